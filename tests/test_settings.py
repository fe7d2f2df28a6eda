"""One field is a flag, a variable, a key of onepass.toml and a row of the documentation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from onepass.errors import BadSetting
from onepass.settings import KINDS, ModelSettings, Option, ServerSettings, options, resolve

EXAMPLES = {"int": ("7", 7), "float": ("2.5", 2.5), "bool": ("false", False), "str": ("word", "word")}
ROWS = [(kind, row) for kind in KINDS for row in options(kind)]


def config(folder: Path, text: str) -> Path:
    path = folder / "onepass.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("kind", "row"), ROWS, ids=[row.name for _, row in ROWS])
def test_every_option_is_read_from_its_flag_its_variable_and_the_file(
    kind: type[Any], row: Option, tmp_path: Path
) -> None:
    text, value = EXAMPLES[row.type.__name__]
    if row.choices:
        text = value = row.choices[-1]
    written = text if row.type is not str else f'"{text}"'
    path = config(tmp_path, f"{row.name} = {written}\n")
    assert value != row.default
    assert getattr(resolve(kind, {row.name: text}, {}), row.name) == value
    assert getattr(resolve(kind, {}, {row.variable: text}), row.name) == value
    assert getattr(resolve(kind, {}, {}, path), row.name) == value


def test_names_are_shared_by_no_two_settings() -> None:
    names = [row.name for _, row in ROWS]
    assert len(names) == len(set(names))


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = config(tmp_path, "port = 1\nmax_body = 10\nmax_inputs = 100\n")
    environ = {"ONEPASS_PORT": "2", "ONEPASS_MAX_BODY": "20"}
    settings = resolve(ServerSettings, {"port": "3", "max_body": None}, environ, path)
    assert (settings.port, settings.max_body, settings.max_inputs) == (3, 20, 100)
    assert settings.queue_tokens == ServerSettings().queue_tokens


def test_the_variable_names_the_file_and_the_working_folder_may_hold_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = config(tmp_path, "port = 5\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resolve(ServerSettings, {}, {"ONEPASS_CONFIG": str(named)}).port == 5
    assert resolve(ServerSettings, {}, {}).port == 8080
    monkeypatch.chdir(tmp_path)
    assert resolve(ServerSettings, {}, {}).port == 5


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"ONEPASS_PORT": "abc"}, "ONEPASS_PORT=abc: it must be a whole number from 0 to 65535"),
        ({"ONEPASS_PORT": "65536"}, "ONEPASS_PORT=65536: it must be a whole number from 0 to 65535"),
        ({"ONEPASS_PORT": "-1"}, "ONEPASS_PORT=-1: it must be a whole number from 0 to 65535"),
        ({"ONEPASS_PORT": ""}, "ONEPASS_PORT=: it must be a whole number from 0 to 65535"),
        ({"ONEPASS_MAX_BODY": "1.5"}, "ONEPASS_MAX_BODY=1.5: it must be a whole number of at least 1"),
        ({"ONEPASS_DRAIN_SECONDS": "nan"}, "ONEPASS_DRAIN_SECONDS=nan: it must be a number of at least 0"),
        ({"ONEPASS_DRAIN_SECONDS": "inf"}, "ONEPASS_DRAIN_SECONDS=inf: it must be a number of at least 0"),
        ({"ONEPASS_AUTO_TRUNCATE": "maybe"}, "ONEPASS_AUTO_TRUNCATE=maybe: it must be true or false"),
        ({"ONEPASS_LOG_FORMAT": "xml"}, "ONEPASS_LOG_FORMAT=xml: it must be one of text, json"),
        ({"ONEPASS_API_KEY": ""}, "ONEPASS_API_KEY: it must be text that is not empty"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value_and_its_rule(environ: dict[str, str], message: str) -> None:
    with pytest.raises(BadSetting) as caught:
        resolve(ServerSettings, {}, environ)
    assert str(caught.value) == message


def test_a_wrong_flag_is_named() -> None:
    with pytest.raises(BadSetting, match=r"^--max-length 0: it must be a whole number of at least 1$"):
        resolve(ModelSettings, {"max_length": "0"}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('port = "8080"', "port = '8080': it must be a whole number from 0 to 65535"),
        ("port = true", "port = True: it must be a whole number from 0 to 65535"),
        ("auto_truncate = 1", "auto_truncate = 1: it must be true or false"),
        ("api_key = 5", "api_key: it must be text that is not empty"),
        ("prot = 8080", 'there is no setting "prot"; the nearest is "port"'),
        ("maxlength = 8", 'there is no setting "maxlength"; the nearest is "max_length"'),
        ("[server]\nport = 1", 'there is no setting "server"; the nearest is "reranker"'),
        ("port = = 1", "the configuration is not valid TOML: Invalid value (at line 1, column 8)"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(text: str, message: str, tmp_path: Path) -> None:
    path = config(tmp_path, text)
    with pytest.raises(BadSetting) as caught:
        resolve(ServerSettings, {}, {}, path)
    assert str(caught.value) == f"{path}: {message}"


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match=r"none\.toml: the configuration cannot be read: No such file or directory$"):
        resolve(ModelSettings, {}, {"ONEPASS_CONFIG": str(tmp_path / "none.toml")})


def test_a_secret_is_in_no_message(tmp_path: Path) -> None:
    path = config(tmp_path, 'api_key = ["hunter2"]')
    with pytest.raises(BadSetting) as caught:
        resolve(ServerSettings, {}, {}, path)
    assert "hunter2" not in str(caught.value)


def test_a_whole_number_serves_as_a_float(tmp_path: Path) -> None:
    settings = resolve(ServerSettings, {}, {}, config(tmp_path, "drain_seconds = 3"))
    assert dataclasses.asdict(settings)["drain_seconds"] == 3.0
    assert type(settings.drain_seconds) is float

"""Every option, once: its name, type, default and one line of help.

Flags (--port), environment variables (ONEPASS_PORT), onepass.toml (port = 8080) and docs/settings.md derive from this
table. A flag wins over the environment, the environment over the file, the file over the default.
"""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from onepass.errors import BadSetting

CONFIG_VARIABLE = "ONEPASS_CONFIG"
CONFIG_FILE = "onepass.toml"
DEFAULT_MODEL = "onepass-mini-1"
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def option(default: Any, words: str, **more: Any) -> Any:
    """A field with its help; `choices` limits a string, `least` and `most` a number, `secret` hides the value."""
    return field(default=default, metadata={"help": words, **more})


def table(words: str) -> Any:
    """A field that only the file has, as a table; what it holds is checked where it is used."""
    return field(default=None, metadata={"help": words, "table": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model is loaded, and how; all commands take these, but serve, info and pull the model as an argument."""

    model: str = option(DEFAULT_MODEL, "A folder, a hub id, or a model that comes with onepass.")
    revision: str | None = option(None, "Branch, tag or commit of a hub model.")
    device: str = option("auto", "Where to run: auto, cpu, cuda, cuda:1 (another GPU by its number) or mps.")
    dtype: str = option(
        "auto", "Arithmetic of the matrix products.", choices=("auto", "float32", "bfloat16", "float16")
    )
    engine: str = option("auto", "Engine to run with.", choices=("auto", "native", "reference", "torch"))
    adapter: str | None = option(None, "Task whose adapter to use; of one of several models NAME=TASK.")
    reranker: str | None = option(
        None, "Rerank with a plain language model as qwen3 or bge-gemma do; of one of several models NAME=RERANKER."
    )
    max_length: int | None = option(None, "Longest row in tokens, at most what the model allows.", least=1)
    cores: int | None = option(None, "Compute threads; default: the physical cores this process may use.", least=1)
    moderation: Mapping[str, Any] | None = table("Labels that make up each category; of several models by NAME.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the server listens, limits and reports."""

    host: str = option("127.0.0.1", "Address to listen on.")
    port: int = option(8080, "Port to listen on; 0 picks a free one.", least=0, most=65_535)
    grpc_port: int | None = option(None, "Port for gRPC beside HTTP; 0 picks a free one.", least=0, most=65_535)
    api_key: str | None = option(None, "Bearer key that requests must carry; commas separate several.", secret=True)
    max_body: int = option(33_554_432, "Largest request body in bytes; above it 413.", least=1)
    max_inputs: int = option(16_384, "Most texts in one request; above it 413.", least=1)
    queue_tokens: int = option(8_388_608, "Tokens admitted at once over all requests; above it 429.", least=1)
    auto_truncate: bool = option(True, "Cut over-long inputs where the request does not say; a header reports it.")
    drain_seconds: float = option(30.0, "How long running requests may take to finish after SIGTERM.", least=0)
    log_level: str = option("info", "Least severe message to log.", choices=("debug", "info", "warning", "error"))
    log_format: str = option("text", "Log lines for people or for machines.", choices=("text", "json"))


KINDS = (ModelSettings, ServerSettings)
Kind = TypeVar("Kind", ModelSettings, ServerSettings)


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table, ready to be shown and read."""

    name: str
    type: type
    default: Any
    help: str
    choices: tuple[str, ...] | None
    least: float | None
    most: float | None
    secret: bool

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "ONEPASS_" + self.name.upper()

    @property
    def rule(self) -> str:
        """What a value must be, to end the sentence "it must be"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.type is bool:
            return "true or false"
        if self.type is str:
            return "text that is not empty"
        noun = "a whole number" if self.type is int else "a number"
        if self.most is not None:
            return f"{noun} from {self.least} to {self.most}"
        return noun if self.least is None else f"{noun} of at least {self.least}"

    def from_text(self, text: str, source: str) -> Any:
        """The value that a flag or a variable spells. Raises BadSetting, beginning with `source`."""
        try:
            value: Any = WORDS[text.strip().lower()] if self.type is bool else self.type(text)
        except (KeyError, ValueError):
            raise self.refusal(source) from None
        return self.checked(value, source)

    def checked(self, value: Any, source: str) -> Any:
        """`value` of exactly this option's type (a whole number serves as a float) and inside its limits."""
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type or value == "" or (self.choices and value not in self.choices):
            raise self.refusal(source)
        if isinstance(value, int | float) and not self.holds(value):
            raise self.refusal(source)
        return value

    def holds(self, number: float) -> bool:
        """Whether a number is finite and inside the limits."""
        above = self.least is None or number >= self.least
        below = self.most is None or number <= self.most
        return math.isfinite(number) and above and below

    def refusal(self, source: str) -> BadSetting:
        return BadSetting(f"{source}: it must be {self.rule}")


def options(kind: type) -> tuple[Option, ...]:
    """The rows of one settings class, in order."""
    types = typing.get_type_hints(kind)
    return tuple(
        Option(
            name=row.name,
            type=plain_type(types[row.name]),
            default=row.default,
            help=row.metadata["help"],
            choices=row.metadata.get("choices"),
            least=row.metadata.get("least"),
            most=row.metadata.get("most"),
            secret=row.metadata.get("secret", False),
        )
        for row in dataclasses.fields(kind)
        if "table" not in row.metadata
    )


def tables(kind: type) -> tuple[str, ...]:
    """The names of a settings class that are tables of the file."""
    return tuple(row.name for row in dataclasses.fields(kind) if "table" in row.metadata)


def plain_type(annotation: Any) -> type:
    """int for `int` and for `int | None`."""
    kinds = [part for part in typing.get_args(annotation) or (annotation,) if part is not type(None)]
    assert len(kinds) == 1, f"an option has one type, not {annotation}"
    return typing.cast(type, kinds[0])


def resolve(
    kind: type[Kind],
    flags: Mapping[str, str | None],
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Kind:
    """One settings value from its sources.

    flags: text by option name; None and names that are not this class's are passed over. environ: os.environ if None.
    file: a TOML file; if None, the one that ONEPASS_CONFIG names, else onepass.toml of the working folder if it exists.
    Raises BadSetting, naming the source.
    """
    environ = os.environ if environ is None else environ
    path = config_path(environ, file)
    given = read_config(path) if path else {}
    values: dict[str, Any] = {}
    for name in tables(kind):
        if name in given and not isinstance(given[name], dict):
            raise BadSetting(f"{path}: {name} = {given[name]!r}: it must be a table, [{name}]")
        values[name] = given.get(name)
    for row in options(kind):
        if (text := flags.get(row.name)) is not None:
            values[row.name] = row.from_text(text, row.flag if row.secret else f"{row.flag} {text}")
        elif (text := environ.get(row.variable)) is not None:
            values[row.name] = row.from_text(text, row.variable if row.secret else f"{row.variable}={text}")
        elif row.name in given:
            value = given[row.name]
            shown = "" if row.secret else f" = {value!r}"
            values[row.name] = row.checked(value, f"{path}: {row.name}{shown}")
    return kind(**values)


def config_path(environ: Mapping[str, str], file: Path | None) -> Path | None:
    """The file to read, or None. A file that was named must exist; the working folder's own need not."""
    named = file or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        return named
    return Path(CONFIG_FILE) if Path(CONFIG_FILE).is_file() else None


def read_config(path: Path) -> dict[str, Any]:
    """The file's keys and values. Raises BadSetting where it is missing, is not TOML or has a key no option has."""
    import difflib
    import tomllib

    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSetting(f"{path}: the configuration cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting(f"{path}: the configuration is not valid TOML: {error}") from None
    known = [name for kind in KINDS for name in (*(row.name for row in options(kind)), *tables(kind))]
    for key in given:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise BadSetting(f'{path}: there is no setting "{key}"; the nearest is "{nearest}"')
    return given

"""The model that comes with onepass: small, the same forever, and every task answers although nobody named a model."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from live import Live, listening
from pinned import FILES, TEXTS, hashes, pinned

import onepass
from onepass import Encoder
from onepass.engines import _native
from onepass.errors import BadCheckpoint, BadSetting, WrongTask
from onepass.model import hub
from onepass.model.hub import EMBEDDED, locate
from onepass.settings import DEFAULT_MODEL

ROOT = Path(__file__).parents[1]
ONEPASS = str(Path(sys.executable).with_name("onepass"))
FOLDER = EMBEDDED[DEFAULT_MODEL]
HEADS = {"embed", "fill", "sentiment", "toxicity", "entities", "rerank", "answer"}
TASKS = {"embed", "similarity", "rerank", "classify", "moderate", "tag", "fill", "multivector", "answer", "log_probs"}
MEGABYTE = 1_000_000

PRAISE, BLAME = "I love this film, it is wonderful!", "A terrible, boring film. I hated it."
NAMES = "Angela Merkel flew from Berlin to Paris in July."
LIST = "How do I list the files of a folder?"
DOCUMENTS = [
    "The train to the coast leaves at seven.",
    "ls shows what is in a directory.",
    "Fever is treated with rest.",
]
PASSAGE = "The play Hamlet was written by William Shakespeare around 1600."
CONTEXT = "The train to the coast leaves at seven, the train to the mountains at eight."


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with Encoder() as encoder:
        yield encoder


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with listening(lambda: {DEFAULT_MODEL: Encoder()}) as live:
        yield live


# What is shipped.


def test_files_and_size() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert {*FILES} <= sizes.keys()
    assert sum(sizes.values()) < 16 * MEGABYTE


def test_the_wheel_has_it_and_stays_small(tmp_path: Path) -> None:
    script = f"import scikit_build_core.build as b; b.build_wheel({str(tmp_path)!r}, {{'wheel.cmake': 'false'}})"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel, "a", zipfile.ZIP_DEFLATED) as archive:
        assert {f"onepass/embedded/{DEFAULT_MODEL}/{name}" for name in FILES} <= {*archive.namelist()}
        archive.write(str(_native.__file__), "onepass/engines/_native.so")  # what compiling would add
    assert wheel.stat().st_size < 25 * MEGABYTE


def test_what_the_name_stands_for_never_changes(encoder: Encoder) -> None:
    assert {*pinned()} == {*EMBEDDED}
    known = pinned()[DEFAULT_MODEL]
    assert hashes(FOLDER) == known["sha256"]
    found, wanted = np.asarray(encoder.embed(TEXTS)), np.array([known["vectors"][text] for text in TEXTS])
    assert (np.sum(found * wanted, axis=1) > 0.999).all()


def test_the_card_names_what_is_shipped_and_what_it_learned_from(encoder: Encoder) -> None:
    card = (ROOT / "docs" / "embedded-model.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in card for name in [DEFAULT_MODEL, *encoder.heads])
    assert runpy.run_path(str(ROOT / "training" / "data" / "sources.py"))["table"]() in card


# Where its name stands for a model.


def test_its_name_is_a_model_and_comes_before_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FOLDER.is_relative_to(Path(onepass.__file__).parent)
    (tmp_path / DEFAULT_MODEL).mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate(DEFAULT_MODEL) == (FOLDER, None)
    assert locate(f"./{DEFAULT_MODEL}") == (Path(DEFAULT_MODEL), None)
    with pytest.raises(BadSetting) as caught:
        locate(DEFAULT_MODEL, "main")
    assert str(caught.value) == (
        f"revision is 'main', but {DEFAULT_MODEL} comes with onepass; only hub models have revisions"
    )


def test_without_its_files_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hub.EMBEDDED, DEFAULT_MODEL, tmp_path / "lost")
    with pytest.raises(BadCheckpoint) as caught:
        Encoder()
    assert str(caught.value) == (
        f"{DEFAULT_MODEL} comes with onepass, but there is no folder {tmp_path / 'lost'}; install onepass again, or in "
        "a source tree check that folder out again"
    )


def test_heads_and_tasks(encoder: Encoder) -> None:
    facts = encoder.info()
    assert facts["model"] == DEFAULT_MODEL
    assert {*facts["heads"]} == HEADS
    assert {*facts["tasks"]} == TASKS


# Every task says something sensible, in Python.


def test_vectors_and_similarity(encoder: Encoder) -> None:
    vectors = encoder.embed([LIST, *DOCUMENTS])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    cosines = encoder.similarity(LIST, DOCUMENTS)[0]
    assert cosines.argmax() == 1
    assert encoder.similarity(PRAISE, [PRAISE, CONTEXT])[0].argmax() == 0


def test_rerank(encoder: Encoder) -> None:
    ranking = encoder.rerank(LIST, DOCUMENTS)
    assert ranking[0].index == 1
    assert all(0 <= one.score <= 1 for one in ranking)


def test_sentiment_is_how_it_classifies(encoder: Encoder) -> None:
    praise, blame = encoder.classify([PRAISE, BLAME])
    assert (praise[0][0], blame[0][0]) == ("positive", "negative")
    assert encoder.classify([PRAISE], head="sentiment") == [praise]
    np.testing.assert_allclose(sum(score for _, score in praise), 1, atol=1e-5)


def test_labels_of_the_callers_own(encoder: Encoder) -> None:
    text = "The team won the match in the last minute, and the fans sang all night."
    assert encoder.classify(text, labels=["cooking", "sports", "politics"])[0][0] == "sports"


def test_moderate(encoder: Encoder) -> None:
    rude, kind = encoder.moderate(["You are a stupid idiot, shut up.", "Thank you for your kind help."])
    assert rude.flagged
    assert not kind.flagged


def test_entities_are_spans_of_the_text(encoder: Encoder) -> None:
    found = encoder.tag(NAMES)
    assert all(NAMES[one.start : one.stop] == one.text for one in found)
    labels = {one.text: one.label for one in found}
    assert labels["Angela Merkel"] == "PER"
    assert labels["Paris"] == "LOC"


def test_fill(encoder: Encoder) -> None:
    (words,) = encoder.fill("The capital of France is [MASK].", top_k=5)
    assert len(words) == 5
    assert all(word.sequence == f"The capital of France is {word.token}." for word in words if word.token.isalpha())
    assert encoder.fill("You can open the [MASK] with a key.", candidates=["door", "idea"])[0][0].token == "door"


def test_answer(encoder: Encoder) -> None:
    (best,) = encoder.answer("Who wrote Hamlet?", PASSAGE)
    assert PASSAGE[best.start : best.stop] == best.text == "William Shakespeare"


def test_what_is_not_shipped_is_refused(encoder: Encoder) -> None:
    with pytest.raises(WrongTask, match="cannot sparse"):
        encoder.sparse(PRAISE)


def test_log_probs(encoder: Encoder) -> None:
    plain, odd = encoder.log_probs(["The train leaves at seven.", "The train leaves at green."])
    assert sum(token.log_prob or 0 for token in plain) > sum(token.log_prob or 0 for token in odd)


def test_every_head_in_one_pass(encoder: Encoder) -> None:
    texts = [PRAISE, NAMES]
    together = encoder.run(texts, ["embed", "sentiment", "entities"])
    np.testing.assert_array_equal([one["embed"] for one in together], encoder.embed(texts))
    assert [one["sentiment"] for one in together] == encoder.classify(texts)
    assert [one["entities"] for one in together] == encoder.tag(texts)


# The same from the shell and over HTTP, where nothing names a model either.

COMMANDS: dict[str, list[str]] = {
    "embed": [PRAISE],
    "embed-chunks": [CONTEXT, "--separator", ", "],
    "rerank": [LIST, *DOCUMENTS],
    "classify": [PRAISE],
    "moderate": [PRAISE],
    "tag": [NAMES],
    "fill": ["The capital of France is [MASK]."],
    "multivector": [PRAISE],
    "answer": ["When does the train leave?", CONTEXT],
    "log-probs": [PRAISE],
    "run": [PRAISE, "--head", "sentiment", "--head", "toxicity"],
}

OFFLINE = (
    "import socket, sys\n"
    "def refuse(*_): raise AssertionError('a look at the network')\n"
    "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse\n"
    "from onepass.cli import main\n"
    "main(sys.argv[1:])\n"
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_without_a_model_and_without_a_network(command: str, tmp_path: Path) -> None:
    script = [sys.executable, "-c", OFFLINE, command, *COMMANDS[command]]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    result = subprocess.run(script, capture_output=True, cwd=tmp_path, timeout=120, env=environ)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stderr == b""
    indices = [json.loads(line)["index"] for line in result.stdout.splitlines()]
    assert sorted(indices) == [*range(3 if command == "rerank" else 1)]
    assert [*tmp_path.iterdir()] == []


def test_the_shell_and_the_library_agree(encoder: Encoder) -> None:
    shown = subprocess.run([ONEPASS, "embed", "hello"], capture_output=True, check=True).stdout
    np.testing.assert_array_equal(
        np.array(json.loads(shown)["embedding"], np.float32), np.asarray(encoder.embed("hello"))
    )
    shown = subprocess.run([ONEPASS, "tag", NAMES], capture_output=True, check=True).stdout
    wanted: Any = orjson.loads(orjson.dumps(encoder.tag(NAMES), option=orjson.OPT_SERIALIZE_NUMPY))
    assert json.loads(shown)["entities"] == wanted


ROUTES: dict[str, dict[str, Any]] = {
    "/embed": {"inputs": PRAISE},
    "/rerank": {"query": LIST, "texts": DOCUMENTS},
    "/predict": {"inputs": PRAISE},
    "/v1/embeddings": {"input": PRAISE},
    "/v1/moderations": {"input": PRAISE},
    "/api/embed": {"model": DEFAULT_MODEL, "input": PRAISE},
    "/onepass/v1/embed": {"texts": [PRAISE]},
    "/onepass/v1/embed_chunks": {"documents": [["The train waits. ", "It leaves at seven."]]},
    "/onepass/v1/similarity": {"a": LIST, "b": DOCUMENTS},
    "/onepass/v1/rerank": {"query": LIST, "documents": DOCUMENTS},
    "/onepass/v1/classify": {"texts": [PRAISE]},
    "/onepass/v1/moderate": {"texts": [PRAISE]},
    "/onepass/v1/tag": {"texts": [NAMES]},
    "/onepass/v1/fill": {"texts": "The capital of France is [MASK]."},
    "/onepass/v1/answer": {"question": "When does the train leave?", "context": CONTEXT},
    "/onepass/v1/log_probs": {"texts": [PRAISE]},
    "/onepass/v1/run": {"texts": [PRAISE], "heads": ["sentiment", "embed"]},
}


@pytest.mark.parametrize("route", ROUTES)
def test_routes_without_a_model(route: str, live: Live) -> None:
    answer = live.http.post(route, json=ROUTES[route])
    assert answer.status_code == 200, answer.text


def test_http_and_the_library_agree(encoder: Encoder, live: Live) -> None:
    (vector,) = live.http.post("/embed", json={"inputs": PRAISE}).json()
    np.testing.assert_array_equal(np.array(vector, np.float32), np.asarray(encoder.embed(PRAISE)))
    labels = live.http.post("/predict", json={"inputs": PRAISE}).json()
    assert labels[0]["label"] == encoder.classify(PRAISE)[0][0] == "positive"
    assert live.http.post("/rerank", json={"query": LIST, "texts": DOCUMENTS}).json()[0]["index"] == 1
    assert [one["id"] for one in live.http.get("/v1/models").json()["data"]] == [DEFAULT_MODEL]

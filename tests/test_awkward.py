"""What is awkward to tasks, in Python and over HTTP alike: characters of several bytes or places, and bad input."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from live import Live, listening, load

from onepass.encoder import Encoder
from onepass.errors import OnepassError

MODELS = ["embedder", "classifier", "entailer", "tagger", "answerer", "filler", "decoder"]
FOUR_BYTES = "𝔘𝔫𝔦 👩\u200d👩\u200d👧 miller 🎬 train"
RIGHT_TO_LEFT = "שלום miller مرحبا train"
COMBINING = "cafe\u0301 miller A\u030angstro\u0308m train"
LINES = "miller\r\ntrain\r\n\r\nmiller\ttrain"

WORDS = {
    FOUR_BYTES: ["𝔘𝔫𝔦", "👩\u200d👩\u200d👧", "miller", "🎬", "train"],
    RIGHT_TO_LEFT: ["שלום", "miller", "مرحبا", "train"],
    COMBINING: ["cafe", "miller", "A\u030angstro\u0308m", "train"],
    LINES: ["miller", "train", "miller", "train"],
}
"""As BERT's tokenizer splits them, which drops accents, spaces and line ends; a mark behind the last letter is lost."""

RUNS = WORDS | {
    COMBINING: ["cafe", "\u0301", "miller", "A", "\u030a", "ngstro", "\u0308", "m", "train"],
    LINES: ["miller", "\r", "\n", "train", "\r\n\r", "\n", "miller", "\t", "train"],
}
"""As RoBERTa's, which drops spaces only."""

SEEN = {
    FOUR_BYTES: "miller train",
    RIGHT_TO_LEFT: "miller train",
    COMBINING: "cafe miller angstrom train",
    LINES: "miller train miller train",
}
"""What its decoder makes of them, without unknown ones."""

Ask = Callable[..., Any]
texts = pytest.mark.parametrize("text", WORDS, ids=["four bytes", "right to left", "combining", "lines"])


@pytest.fixture(scope="module")
def encoders(request: pytest.FixtureRequest) -> dict[str, Encoder]:
    paths: list[Path] = [request.getfixturevalue(f"tiny_{name}") for name in MODELS]
    return load(*zip(MODELS, paths, strict=True))


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: encoders) as live:
        yield live


@pytest.fixture(params=["python", "http"])
def ask(request: pytest.FixtureRequest, live: Live, encoders: dict[str, Encoder]) -> Ask:
    """Puts one text to a task; its answer as plain values, or code and message of its refusal."""

    def python(task: str, model: str, *given: str, **options: Any) -> Any:
        try:
            return plain(getattr(encoders[model], task)(*given, **options))
        except OnepassError as error:
            return {"code": error.code, "message": str(error)}

    def http(task: str, model: str, *given: str, **options: Any) -> Any:
        named = {"question": given[0], "context": given[1]} if task == "answer" else {"texts": given[0]}
        response = live.http.post(f"/onepass/v1/{task}", json={"model": model, **named, **options})
        if response.status_code != 200:
            return response.json()["error"]
        (rows,) = response.json()["results"]
        return rows

    return python if request.param == "python" else http


def plain(found: Any) -> Any:
    return [plain(one) for one in found] if isinstance(found, list) else asdict(found)


def spans(text: str, parts: list[str]) -> list[tuple[int, int]]:
    """Where the parts stand, one after the other."""
    found, end = [], 0
    for part in parts:
        start = text.index(part, end)
        end = start + len(part)
        found.append((start, end))
    return found


def assert_pieces_of_words(found: list[dict[str, Any]], text: str) -> None:
    """Nothing of a word lies between two of its tokens but a mark."""
    assert all(one["text"] == text[one["start"] : one["stop"]] for one in found)
    tokens = iter(found)
    for start, stop in spans(text, WORDS[text]):
        end = start
        while end < stop:
            token = next(tokens)
            assert all(map(unicodedata.combining, text[end : token["start"]]))
            assert start <= token["start"] < token["stop"] <= stop
            end = token["stop"]
        assert end == stop
    assert next(tokens, None) is None


@texts
def test_tags_of_tokens(ask: Ask, text: str) -> None:
    assert_pieces_of_words(ask("tag", "tagger", text, aggregation="none", ignore_labels=[]), text)


@texts
def test_entities_begin_and_end_with_words(ask: Ask, text: str) -> None:
    found = ask("tag", "tagger", text, aggregation="average", ignore_labels=[])
    starts, stops = map(set, zip(*spans(text, WORDS[text]), strict=True))
    assert {one["start"] for one in found} <= starts
    assert {one["stop"] for one in found} <= stops
    assert [one["text"] for one in found] == [text[one["start"] : one["stop"]] for one in found]
    assert (found[0]["start"], found[-1]["stop"]) == (0, len(text))


@texts
def test_answers_are_all_the_runs_of_words(ask: Ask, text: str) -> None:
    found = ask("answer", "answerer", "who?", text, top_k=1000, answer_tokens=64)
    words = spans(text, RUNS[text])
    runs = {(start, stop) for place, (start, _) in enumerate(words) for _, stop in words[place:]}
    assert {(one["start"], one["stop"]) for one in found} <= runs
    assert {one["text"] for one in found} == {text[start:stop] for start, stop in runs}
    assert all(one["text"] == text[one["start"] : one["stop"]] for one in found)


@texts
def test_log_probs_of_tokens(ask: Ask, text: str) -> None:
    assert_pieces_of_words(ask("log_probs", "filler", text), text)


@texts
def test_log_probs_of_bytes_stand_at_their_character(ask: Ask, text: str) -> None:
    found = ask("log_probs", "decoder", text)
    assert all(one["text"] == text[one["start"] : one["stop"]] for one in found)
    shown = {place for one in found for place in range(one["start"], one["stop"])}
    assert shown >= {place for place, character in enumerate(text) if character != " "}
    for place, character in enumerate(text):
        if not character.isascii():
            pieces = {(one["start"], one["stop"]) for one in found if one["start"] <= place < one["stop"]}
            assert pieces == {(place, place + 1)}


@texts
def test_masks_are_filled_where_they_stand(ask: Ask, text: str) -> None:
    (first,) = ask("fill", "filler", f"[MASK] {text}", candidates=["a", "i"])
    (last,) = ask("fill", "filler", f"{text} [MASK]", candidates=["a", "i"])
    assert {one["sequence"] for one in first} == {f"{word} {SEEN[text]}" for word in "ai"}
    assert {one["sequence"] for one in last} == {f"{SEEN[text]} {word}" for word in "ai"}


# Bad input, by name


@pytest.mark.parametrize(
    ("task", "model", "given", "options", "code", "message"),
    [
        ("classify", "entailer", ["fox"], {"labels": []}, "empty_input", "labels is an empty list; send at least one"),
        ("classify", "entailer", ["fox"], {"labels": ["a", ""]}, "empty_input", "label 1 is empty; send some text"),
        (
            "classify",
            "entailer",
            ["fox"],
            {"labels": ["a", "b", "a"]},
            "invalid_input",
            "label 2 is 'a' like an earlier one; send each label once",
        ),
        (
            "classify",
            "entailer",
            ["fox"],
            {"labels": ["a"], "template": "This is about."},
            "invalid_input",
            "template 'This is about.' has 0 slots {}; it needs one",
        ),
        (
            "classify",
            "filler",
            ["fox"],
            {"labels": ["a"], "template": "{} is it."},
            "invalid_input",
            "template '{} is it.' holds 0 masks; this model needs one [MASK] in it",
        ),
        (
            "fill",
            "filler",
            ["no mask"],
            {},
            "invalid_input",
            "input 0 holds no [MASK]; put one where a token is missing",
        ),
    ],
    ids=["labels empty", "label empty", "labels repeated", "template without slot", "template without mask", "no mask"],
)
def test_bad_input(
    ask: Ask, task: str, model: str, given: list[str], options: dict[str, Any], code: str, message: str
) -> None:
    assert ask(task, model, *given, **options) == {"code": code, "message": message}


def test_a_context_of_one_token(ask: Ask) -> None:
    (only,) = ask("answer", "answerer", "who?", " a\n", top_k=5, align_to_words=False, answer_tokens=1)[:1]
    assert (only["text"], only["start"], only["stop"]) == ("a", 1, 2)


@pytest.mark.parametrize(
    ("task", "model", "given", "own"),
    [
        ("embed", "embedder", ["fox"], "embed"),
        ("classify", "classifier", ["fox"], "classify"),
        ("tag", "tagger", ["fox"], "tag"),
        ("fill", "filler", ["[MASK]"], "fill"),
        ("log_probs", "decoder", ["fox"], "next"),
        ("answer", "answerer", ["who?", "fox"], "answer"),
    ],
)
def test_a_head_that_the_checkpoint_does_not_have(ask: Ask, task: str, model: str, given: list[str], own: str) -> None:
    found = ask(task, model, *given, head="nobody")
    assert found["code"] == "wrong_task"
    assert found["message"].startswith(f"this model has no head 'nobody' that can {task}; those that can are {own}")


@pytest.mark.parametrize(
    ("task", "given"),
    [
        ("classify", ["a"]),
        ("tag", ["a"]),
        ("fill", ["[MASK]"]),
        ("answer", ["who?", "a"]),
        ("log_probs", ["a"]),
        ("multivector", ["a"]),
    ],
)
def test_a_task_whose_head_the_checkpoint_does_not_have(ask: Ask, task: str, given: list[str]) -> None:
    message = f"this model cannot {task}; it can embed, similarity, rerank"
    assert ask(task, "embedder", *given) == {"code": "wrong_task", "message": message}

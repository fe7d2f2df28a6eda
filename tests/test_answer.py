"""Answers beside transformers: its tokenizer, its model, and its question-answering pipeline written out.

transformers 5.23 has no such pipeline any more, but still its `select_starts_ends`; `theirs` puts the rest around it as
the pipeline of 5.0 did.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_tag import AWKWARD
from tiny import TEXT, tiny_checkpoint
from transformers import AutoModelForQuestionAnswering, PreTrainedTokenizerFast
from transformers.pipelines.document_question_answering import select_starts_ends

from onepass import Encoder
from onepass.errors import EmptyInput, InputTooLong, InvalidInput, WrongTask
from onepass.tasks.answer import Answer, answer

QUESTIONS = ["Who counts sacks?", "How long do cats sleep, and who knows?", "Was it Zürich 😀 or שלום?"]
CONTEXTS = [*TEXT[:4], *AWKWARD, TEXT[7]]
LONG = " ".join([*TEXT, *AWKWARD, *TEXT[::-1]])
FAMILIES = {"bert": 0, "roberta": 2, "xlm-roberta": 1}
Options = dict[str, Any]

families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("answerer")
    return {family: tiny_checkpoint(place / family, family, "answer", seed=seed) for family, seed in FAMILIES.items()}


@pytest.fixture(scope="module")
def encoders(folders: dict[str, Path]) -> Iterator[dict[str, Encoder]]:
    opened = {family: Encoder(folder, dtype="float32") for family, folder in folders.items()}
    yield opened
    for encoder in opened.values():
        encoder.close()


@pytest.fixture(scope="module")
def bert(encoders: dict[str, Encoder]) -> Encoder:
    return encoders["bert"]


@functools.cache
def reference(folder: Path) -> tuple[Any, Any]:
    auto: Any = AutoModelForQuestionAnswering
    return PreTrainedTokenizerFast.from_pretrained(folder), auto.from_pretrained(folder).eval()


def theirs(
    folder: Path,
    question: str,
    context: str,
    *,
    top_k: int = 1,
    no_answer: bool = False,
    answer_tokens: int = 15,
    align_to_words: bool = True,
    window: int = 64,
    overlap: int = 32,
) -> list[Answer]:
    tokenizer, model = reference(folder)
    given = model.config.model_type == "bert"
    encoded = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=window,
        stride=overlap,
        padding=True,
        return_overflowing_tokens=True,
        return_token_type_ids=given,
        return_tensors="pt",
    )
    encoded.pop("overflow_to_sample_mapping")
    with torch.inference_mode():
        output = model(**encoded)
    answers: list[dict[str, Any]] = []
    nothing: float = 1_000_000
    for row, encoding in enumerate(encoded.encodings):
        size = int(encoded["attention_mask"][row].sum())
        mask = np.array([number != 1 for number in encoding.sequence_ids[:size]])
        mask[np.array(encoding.ids[:size]) == tokenizer.cls_token_id] = False
        starts, ends, scores, nothing = select_starts_ends(
            output.start_logits[row : row + 1, :size].numpy(),
            output.end_logits[row : row + 1, :size].numpy(),
            mask[None].astype(int),
            np.ones((1, size), int),
            nothing,
            2 * top_k + 10 if align_to_words else top_k,
            no_answer,
            answer_tokens,
        )
        for first, last, score in zip(starts.tolist(), ends.tolist(), scores.tolist(), strict=True):
            start, stop = encoding.offsets[first][0], encoding.offsets[last][1]
            words = encoding.token_to_word(first), encoding.token_to_word(last)
            if align_to_words and None not in words:
                start, stop = encoding.word_to_chars(words[0], 1)[0], encoding.word_to_chars(words[1], 1)[1]
            text = context[start:stop]
            known = next((one for one in answers if one["text"].lower() == text.lower()), None)
            if known is None:
                answers.append({"text": text, "score": score, "start": start, "stop": stop})
            else:
                known["score"] += score
    if no_answer:
        answers.append({"text": "", "score": nothing, "start": 0, "stop": 0})
    # where a context is short the pipeline fills up with spans of score 0, which end before they start
    possible = [Answer(**one) for one in answers if one["score"] > 0 or (no_answer and one is answers[-1])]
    return sorted(possible, key=lambda one: -one.score)[:top_k]


def assert_same(ours: list[Answer], expected: list[Answer], context: str) -> None:
    assert [(one.text, one.start, one.stop) for one in ours] == [(one.text, one.start, one.stop) for one in expected]
    np.testing.assert_allclose([one.score for one in ours], [one.score for one in expected], atol=1e-4)
    assert all(one.text == context[one.start : one.stop] for one in ours)


@families
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 4},
        {"top_k": 5, "no_answer": True},
        {"top_k": 3, "align_to_words": False, "answer_tokens": 3},
        {"align_to_words": False, "no_answer": True, "answer_tokens": 1},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_short_contexts(folders: dict[str, Path], encoders: dict[str, Encoder], family: str, options: Options) -> None:
    found = encoders[family].answer(QUESTIONS[0], CONTEXTS, overlap=12, **options)
    for ours, context in zip(found, CONTEXTS, strict=True):
        assert_same(ours, theirs(folders[family], QUESTIONS[0], context, overlap=12, **options), context)
    assert len({one.text for ours in found for one in ours}) > 2


@families
@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 5, "overlap": 16},
        {"top_k": 20, "no_answer": True, "overlap": 5, "answer_tokens": 30},
        {"top_k": 2, "overlap": 10, "window": 40, "align_to_words": False},
    ],
    ids=lambda options: str(options["top_k"]),
)
def test_long_contexts(folders: dict[str, Path], encoders: dict[str, Encoder], family: str, options: Options) -> None:
    found = encoders[family].answer(QUESTIONS, LONG, **options)
    for ours, question in zip(found, QUESTIONS, strict=True):
        assert_same(ours, theirs(folders[family], question, LONG, **options), LONG)


def test_twenty_thousand_tokens(folders: dict[str, Path], bert: Encoder) -> None:
    context = " ".join(f"{index} {text}" for index, text in enumerate(TEXT * 70))
    assert len(bert.tokenizer.tokens(context)) > 20_000
    job = bert.job()
    (ours,) = asyncio.run(answer(job, [(QUESTIONS[0], context)], top_k=9, no_answer=True, overlap=16))
    assert_same(ours, theirs(folders["bert"], QUESTIONS[0], context, top_k=9, no_answer=True, overlap=16), context)
    assert job.usage.windows == len(job.usage.lengths) - 1 > 300
    assert job.usage.truncated == 0


def test_many_questions_that_are_not_ascii(bert: Encoder) -> None:
    """They fit into the queue, which is in tokens; as bytes the questions would fill the windows."""
    context = " ".join([LONG] * 3)
    found = bert.answer([QUESTIONS[2]] * 40, [context] * 40)
    assert found == [bert.answer(QUESTIONS[2], context)] * 40


def test_a_window_is_half_shared_and_at_most_384_tokens(tmp_path: Path, bert: Encoder) -> None:
    short = bert.answer(QUESTIONS[0], LONG, top_k=3)
    assert short == bert.answer(QUESTIONS[0], LONG, top_k=3, window=64, overlap=32)
    with Encoder(tiny_checkpoint(tmp_path, "bert", "answer", max_position_embeddings=1024), max_length=1024) as encoder:
        context = " ".join([LONG] * 3)
        assert encoder.answer(QUESTIONS[0], context) == encoder.answer(QUESTIONS[0], context, window=384, overlap=128)
        assert encoder.answer(QUESTIONS[0], context, top_k=40) != encoder.answer(
            QUESTIONS[0], context, top_k=40, window=1024
        )


def test_a_context_of_one_token_is_its_own_answer(bert: Encoder) -> None:
    (only,) = bert.answer(QUESTIONS[0], " a\n", top_k=5)
    assert (only.text, only.start, only.stop) == ("a", 1, 2)
    best, nothing = sorted(bert.answer(QUESTIONS[0], "a", top_k=5, no_answer=True), key=lambda one: -len(one.text))
    assert (nothing.text, nothing.start, nothing.stop) == ("", 0, 0)
    assert best.score < 1
    assert best.score == pytest.approx(only.score)


def test_a_context_without_tokens_has_no_answer(bert: Encoder) -> None:
    assert bert.answer(QUESTIONS[0], " \n") == []
    (nothing,) = bert.answer(QUESTIONS[0], " \n", no_answer=True)
    assert nothing == Answer("", 1.0, 0, 0)


def test_a_string_goes_with_each_of_many(bert: Encoder) -> None:
    each = [[bert.answer(question, context) for context in TEXT[:2]] for question in QUESTIONS[:2]]
    assert bert.answer(QUESTIONS[0], TEXT[:2]) == each[0]
    assert bert.answer(QUESTIONS[:2], TEXT[1]) == [each[0][1], each[1][1]]
    assert bert.answer(QUESTIONS[:2], TEXT[:2]) == [each[0][0], each[1][1]]
    assert asyncio.run(bert.aanswer(QUESTIONS[0], TEXT[0])) == each[0][0]


@pytest.mark.parametrize(
    ("question", "context", "options", "kind", "message"),
    [
        ("", "fox", {}, EmptyInput, "question 0 is empty; send some text"),
        ("who?", ["fox", ""], {}, EmptyInput, "context 1 is empty"),
        ("who?", [], {}, EmptyInput, "the input is an empty list"),
        (["who?", 3], "fox", {}, InvalidInput, "question 1 is a int; send a string"),
        ("who?", [["fox"]], {}, InvalidInput, "context 0 is a list; send a string"),
        (["who?", "why?"], ["fox"], {}, InvalidInput, "there are 2 questions and 1 contexts"),
        ("who?", "fox \udfff", {}, InvalidInput, "input 0 is not Unicode text"),
        ("who?", "fox", {"top_k": 0}, InvalidInput, "top_k is 0; ask for at least 1"),
        ("who?", "fox", {"answer_tokens": 0}, InvalidInput, "answer_tokens is 0; choose 1 to 512"),
        ("who?", "fox", {"answer_tokens": 513}, InvalidInput, "answer_tokens is 513; choose 1 to 512"),
        ("who?", "fox", {"window": 65}, InvalidInput, "window is 65 tokens"),
        ("who? " * 20, LONG, {}, InputTooLong, "input 0 leaves \\d+ tokens of a row for each window"),
    ],
)
def test_bad_input_is_refused(
    bert: Encoder, question: Any, context: Any, options: Options, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        bert.answer(question, context, **options)


def test_a_model_without_the_head_is_refused(tiny_embedder: Path, bert: Encoder) -> None:
    assert bert.tasks == ["answer"]
    with Encoder(tiny_embedder) as encoder, pytest.raises(WrongTask, match="this model cannot answer; it can embed"):
        encoder.answer("who?", "fox")

"""Tags beside transformers' token-classification pipeline: the same spans, labels and scores in every aggregation."""

from __future__ import annotations

import asyncio
import functools
from array import array
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from tiny import TEXT, USABLE, tiny_checkpoint
from transformers import PreTrainedTokenizerFast, pipeline

from onepass import Encoder
from onepass.engines.batch import RowOutput
from onepass.errors import EmptyInput, InputTooLong, InvalidInput, WrongTask
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Answered
from onepass.schedule.pieces import Alignment, Encoded
from onepass.schedule.row import Ask
from onepass.tasks.tag import AGGREGATIONS, Aggregation, Entity, Strategy, _Tagger, tag

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "in-between")
AWKWARD = [
    "It’s 😀👩‍👩‍👧 smiling😀at Zürich, isn't it?",
    "שלום עולם, the miller said; مرحبا بالعالم.",
    "Cafe\u0301 and A\u030angstro\u0308m with combining marks",
    "Lines\r\nend\r\n\r\ndifferently\there\u00a0and\u2003there.",
    "  spaces   everywhere  ",
    "un<unk>known [UNK] words 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ﬁne ①②③",
    "x",
]
LONG = " ".join([*TEXT, *AWKWARD, *TEXT[::-1]])

families = pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
aggregations = pytest.mark.parametrize("aggregation", AGGREGATIONS)
strategies = get_args(Strategy)  # transformers'


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("tagger")
    return {
        family: tiny_checkpoint(place / family, family, "tag", labels=LABELS, seed=seed)
        for family, seed in (("bert", 4), ("roberta", 3), ("xlm-roberta", 1))
    }


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
def tagger(folder: Path) -> Any:
    """With the tokenizer as the file has it: transformers 5 drops the normaliser of XLMRobertaTokenizer."""
    make: Any = pipeline
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return make("token-classification", str(folder), tokenizer=tokenizer, device="cpu", batch_size=64)


def theirs(folder: Path, aggregation: Aggregation, texts: list[str], **options: Any) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = tagger(folder)(texts, aggregation_strategy=aggregation, **options)
    return found


def assert_same(ours: list[list[Entity]], expected: list[list[dict[str, Any]]], texts: list[str]) -> None:
    assert len(ours) == len(expected)
    for entities, found, text in zip(ours, expected, texts, strict=True):
        names = [one.get("entity_group", one.get("entity")) for one in found]
        spans = [(name, one["start"], one["end"]) for name, one in zip(names, found, strict=True)]
        assert [(entity.label, entity.start, entity.stop) for entity in entities] == spans
        assert [entity.text for entity in entities] == [text[start:stop] for _, start, stop in spans]
        np.testing.assert_allclose([entity.score for entity in entities], [one["score"] for one in found], atol=1e-4)


@families
@pytest.mark.parametrize("aggregation", strategies)
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_short_texts(folders: dict[str, Path], encoders: dict[str, Encoder], family: str, aggregation: Any) -> None:
    encoder = encoders[family]
    texts = [text for text in [*TEXT, *AWKWARD] if len(encoder.tokenizer.tokens(text)) <= USABLE]
    assert len(texts) > 12
    assert set(texts) >= set(AWKWARD)
    ours = encoder.tag(texts, aggregation=aggregation)
    assert_same(ours, theirs(folders[family], aggregation, texts), texts)
    assert len({entity.label for entities in ours for entity in entities}) > 1


@families
@pytest.mark.parametrize("aggregation", strategies[1:])
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_long_texts(folders: dict[str, Path], encoders: dict[str, Encoder], family: str, aggregation: Any) -> None:
    ours = encoders[family].tag([LONG, TEXT[0]], aggregation=aggregation, overlap=16)
    assert_same(ours, theirs(folders[family], aggregation, [LONG, TEXT[0]], stride=16), [LONG, TEXT[0]])
    assert max(entity.stop for entity in ours[0]) > len(LONG) - 40


def test_names_are_of_one_kind(tmp_path: Path) -> None:
    with Encoder(tiny_checkpoint(tmp_path, "bert", "tag", labels=("O", "PER", "LOC"), seed=4)) as encoder:
        by_word, whole = (encoder.tag(TEXT, aggregation=how, ignore_labels=()) for how in ("average", "viterbi"))
    broken = 0
    for before, after in zip(by_word, whole, strict=True):
        assert all("O" in (one.label, other.label) for one, other in pairwise(after))
        if all("O" in (one.label, other.label) for one, other in pairwise(before)):
            assert after == before
        else:
            broken += 1
            assert (after[0].start, after[-1].stop) == (before[0].start, before[-1].stop)
    assert 0 < broken < len(TEXT)


def test_names_of_one_kind_need_words_outside(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "tag", labels=("NOUN", "VERB"))
    with Encoder(folder) as encoder, pytest.raises(InvalidInput) as caught:
        encoder.tag(TEXT[0], aggregation="viterbi")
    assert str(caught.value) == (
        "aggregation 'viterbi' needs a label 'O' of words outside all names, which head 'tag' lacks; choose another"
    )


def test_twenty_thousand_tokens(folders: dict[str, Path], bert: Encoder) -> None:
    text = " ".join(TEXT * 70)
    assert len(bert.tokenizer.tokens(text)) > 20_000
    job = bert.job()
    ours = asyncio.run(tag(job, [text], aggregation="average", overlap=10))
    assert_same(ours, theirs(folders["bert"], "average", [text], stride=10), [text])
    assert job.usage.windows == len(job.usage.lengths) - 1 > 300
    assert job.usage.truncated == 0


def test_other_labels_can_be_ignored(folders: dict[str, Path], bert: Encoder) -> None:
    for aggregation, ignored in (("none", ["B-PER", "I-LOC"]), ("simple", ["PER", "O"]), ("max", [])):
        ours = bert.tag(TEXT, aggregation=aggregation, ignore_labels=ignored)  # type: ignore[call-overload]
        assert_same(ours, theirs(folders["bert"], aggregation, TEXT, ignore_labels=ignored), TEXT)  # type: ignore[arg-type]


def test_single_tokens_of_a_long_text_come_once_each_from_the_window_that_shows_most(bert: Encoder) -> None:
    found = bert.tag(LONG, aggregation="none", ignore_labels=(), overlap=20)
    tokens = bert.tokenizer.tokens(LONG, special=False)
    sizes = [0]
    for character in LONG:
        sizes.append(sizes[-1] + len(character.encode()))
    assert [(sizes[one.start], sizes[one.stop]) for one in found] == [(token.start, token.stop) for token in tokens]
    room, overlap = 62, 20
    rows = [tokens[start : start + room] for start in range(0, len(tokens) - overlap, room - overlap)]
    for index in range(len(rows) - 1):
        # of the 20 tokens that two rows share the first row shows ten best
        alone = bert.job()
        row = [2, *(token.id for token in rows[index]), 3]
        ((scores,),) = asyncio.run(alone.run([row], Ask("tag"), options=EncodeOptions(special=False)))
        start = index * (room - overlap)
        for place in range(overlap // 2 if index else 0, room - overlap // 2):
            assert found[start + place].score == pytest.approx(scores[1 + place].max(), abs=1e-5)


def test_words_are_counted_over_the_whole_text(bert: Encoder) -> None:
    text = "miller " * 200
    found = bert.tag(text, aggregation="first", ignore_labels=(), overlap=8)
    for entity in found:
        assert (entity.words[0], entity.words[1]) == (entity.start // 7, entity.stop // 7 + 1)
    assert found[-1].words[1] == 200


def test_a_string_gives_a_list_and_any_iterable_is_drawn_from(bert: Encoder) -> None:
    assert [bert.tag(text) for text in TEXT] == bert.tag(iter(TEXT)) == bert.tag(TEXT)
    assert asyncio.run(bert.atag(TEXT[0])) == bert.tag(TEXT[0])


def test_the_reference_engine_tags_alike(folders: dict[str, Path], bert: Encoder) -> None:
    with Encoder(folders["bert"], engine="reference") as encoder:
        for ours, expected in zip(bert.tag(LONG), encoder.tag(LONG), strict=True):
            assert replace(ours, score=0) == replace(expected, score=0)
            assert ours.score == pytest.approx(expected.score, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"aggregation": "median"},
            "aggregation 'median' is unknown; choose none, simple, first, average, max, viterbi",
        ),
        ({"ignore_labels": "O"}, "ignore_labels is the string 'O'; send a list of labels"),
        ({"window": 0}, "window is 0 tokens, this model takes rows of 1 to 64; choose one of these"),
        ({"window": 65}, "window is 65 tokens"),
        ({"overlap": -1}, "overlap is -1 tokens, a row here has 64; choose 0 or more and less than a row"),
        ({"overlap": 64}, "overlap is 64 tokens"),
        ({"overlap": 20, "window": 20}, "overlap is 20 tokens, a row here has 20"),
    ],
)
def test_options_out_of_range_are_refused(bert: Encoder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        bert.tag(LONG, **options)


def test_an_overlap_that_leaves_no_room_is_refused(bert: Encoder) -> None:
    with pytest.raises(InputTooLong, match="leaves 62 tokens of a row for each window"):
        bert.tag(LONG, overlap=63)


@pytest.mark.parametrize(
    ("texts", "kind", "message"),
    [
        (["fox", ""], EmptyInput, "input 1 is empty"),
        ([], EmptyInput, "the input is an empty list"),
        (["fox", [5, 6]], InvalidInput, "input 1 is a list; send a string"),
        ([b"fox"], InvalidInput, "input 0 is a bytes; send a string"),
        (["fox \ud800"], InvalidInput, "input 0 is not Unicode text"),
    ],
)
def test_bad_texts_are_refused(bert: Encoder, texts: Any, kind: type[Exception], message: str) -> None:
    for given in (texts, iter(texts)):
        with pytest.raises(kind, match=message):
            bert.tag(given)


def test_a_text_without_tokens_has_no_entities(bert: Encoder) -> None:
    assert bert.tag([" \n", "fox"], ignore_labels=())[0] == []


def test_a_model_without_the_head_is_refused(tiny_embedder: Path, bert: Encoder) -> None:
    assert bert.tasks == ["tag"]
    with (
        Encoder(tiny_embedder) as encoder,
        pytest.raises(WrongTask, match="this model cannot tag; it can embed, similarity, rerank"),
    ):
        encoder.tag("fox")


@aggregations
def test_tokens_without_offsets_can_only_stay_single(bert: Encoder, aggregation: Any) -> None:
    nowhere = Alignment(array("b", [-1, 0, 0, -1]), *(array("i", [0, 0, 0, 0]) for _ in range(3)))
    row = Encoded(array("i", [2, 5, 6, 3]), array("i", [0] * 4), cut=False, alignment=nowhere)
    piece = Answered(row, (RowOutput(np.eye(4, len(LABELS), 1, np.float32)),))
    tagger = _Tagger(bert.tokenizer, LABELS, aggregation, frozenset("O"))
    if aggregation == "none":
        assert [entity.label for entity in tagger.entities("ab", [piece])] == ["I-PER", "B-LOC"]
    else:
        with pytest.raises(InvalidInput, match=f"which the aggregation '{aggregation}' needs; ask for none"):
            tagger.entities("ab", [piece])

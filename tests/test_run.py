"""Several heads about the same texts: one pass of the trunk, and what each head's own task gives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SEVERAL, USABLE, bge_m3_checkpoint, change_json, heads_checkpoint, tiny_checkpoint, write_json

from onepass import Encoder
from onepass.engines.batch import Engine, Output, PackedBatch, Read
from onepass.errors import EmptyInput, InputTooLong, InvalidInput, WrongTask
from onepass.model.heads import HeadSpec, Pool
from onepass.model.own_heads import write_heads

TEXTS = [
    "The miller [MASK] Berg left Zürich on Tuesday.",
    "Anna counts 👩🏽‍🌾 sacks.\r\nשלום, [MASK] and [MASK]!",
]
LONG = "The train to the coast leaves at seven. " * 20
HEADS = ["embed", "mood", "harm", "entities", "fill"]


class Counting:
    """An engine that notes which rows and heads each pass of the trunk was asked for."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.passes: list[tuple[int, list[str]]] = []

    def run(self, batch: PackedBatch, reads: Sequence[Read], cores: int = 1) -> list[Output]:
        self.passes.append((batch.rows, sorted(read.head for read in reads)))
        return self.engine.run(batch, reads, cores)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoder]:
    with Encoder(heads_checkpoint(tmp_path_factory.mktemp("run")), cores=1) as encoder:
        yield encoder


def test_one_pass_for_all_heads(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(encoder.engine)
    monkeypatch.setitem(encoder.device._engines, encoder.job().served.model, counting)
    encoder.run(TEXTS, HEADS)
    assert sum(rows for rows, _ in counting.passes) == 2
    assert {tuple(asked) for _, asked in counting.passes} == {tuple(sorted(HEADS))}


@pytest.mark.parametrize("order", [HEADS, HEADS[::-1]], ids=["forwards", "backwards"])
def test_every_head_gives_what_its_own_task_gives(encoder: Encoder, order: list[str]) -> None:
    answers = encoder.run(TEXTS, order)
    assert [list(answer) for answer in answers] == [order, order]
    np.testing.assert_array_equal([answer["embed"] for answer in answers], encoder.embed(TEXTS))
    assert [answer["mood"] for answer in answers] == encoder.classify(TEXTS, head="mood")
    assert [answer["harm"] for answer in answers] == encoder.classify(TEXTS, head="harm")
    assert [answer["entities"] for answer in answers] == encoder.tag(TEXTS)
    assert [answer["fill"] for answer in answers] == encoder.fill(TEXTS)


def test_vectors_of_all_three_kinds_from_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = ["embed", "sparse", "multivector"]
    with Encoder(bge_m3_checkpoint(tmp_path), cores=1) as encoder:
        alone = [encoder.embed(TEXTS), encoder.sparse(TEXTS), encoder.multivector(TEXTS)]
        counting = Counting(encoder.engine)
        monkeypatch.setitem(encoder.device._engines, encoder.job().served.model, counting)
        found = encoder.run(TEXTS, heads)
    assert sum(rows for rows, _ in counting.passes) == 2
    assert {tuple(asked) for _, asked in counting.passes} == {tuple(sorted(heads))}
    for answer, vector, sparse, vectors in zip(found, *alone, strict=True):
        np.testing.assert_array_equal(answer["embed"], vector)
        np.testing.assert_array_equal(answer["multivector"], vectors)
        assert (list(answer["sparse"]), len(sparse)) == (list(sparse), len(answer["sparse"]))


def test_vectors_of_tokens_among_heads_of_its_own(tmp_path: Path) -> None:
    folder = heads_checkpoint(tmp_path)
    write_heads(folder, {**SEVERAL, "late": HeadSpec("multivector", Pool(("tokens",)), finish="l2")})
    with Encoder(folder) as encoder:
        answer = encoder.run("Cats sleep.", ["late", "mood"])
        np.testing.assert_array_equal(answer["late"], encoder.multivector("Cats sleep."))
        assert answer["late"].shape == (len(encoder.tokenizer.tokens("Cats sleep.")), 32)


def test_a_str_gives_one_answer(encoder: Encoder) -> None:
    answer = encoder.run(TEXTS[0], ["mood"])
    assert answer == {"mood": encoder.classify(TEXTS[0], head="mood")}


def test_a_causal_head(tmp_path: Path) -> None:
    with Encoder(tiny_checkpoint(tmp_path, "gpt2", "next")) as decoder:
        (answer,) = decoder.run(["Cats sleep."], ["next", "embed"])
        assert answer["next"] == decoder.log_probs("Cats sleep.")
        np.testing.assert_array_equal(answer["embed"], decoder.embed("Cats sleep."))


def test_long_texts_are_cut_for_all_heads_and_that_is_said(encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    answer = encoder.run(LONG, ["embed", "entities"])
    assert f"1 of 1 inputs were cut at {USABLE} tokens" in caplog.text
    np.testing.assert_array_equal(answer["embed"], encoder.embed(LONG))
    assert answer["entities"][-1].stop < len(LONG) / 2
    with pytest.raises(InputTooLong):
        encoder.run(LONG, ["embed", "entities"], truncate=None)


def test_prompts_are_read_by_all_heads_or_not_at_all(tmp_path: Path) -> None:
    folder = heads_checkpoint(tmp_path)
    saved = {"prompts": {"query": "find: "}, "default_prompt_name": "query"}
    write_json(folder / "config_sentence_transformers.json", saved)
    with Encoder(folder) as prompted:
        np.testing.assert_array_equal(prompted.run("Cats", ["embed"])["embed"], prompted.embed("Cats"))
        answer = prompted.run("Cats", ["embed", "mood"], prompt="query")
        np.testing.assert_array_equal(answer["embed"], prompted.embed("Cats"))
        assert answer["mood"] == prompted.classify("find: Cats", head="mood")
        bare = prompted.run("Cats", ["embed", "mood"], prompt="")
        np.testing.assert_array_equal(bare["embed"], prompted.embed("Cats", prompt=""))
        assert bare["mood"] == prompted.classify("Cats", head="mood")
        with pytest.raises(InvalidInput) as caught:
            prompted.run("Cats", ["embed", "mood"])
        assert str(caught.value) == (
            "alone these heads read different prompts, '' and 'find: '; name one as prompt for all, or give "
            '"" for none'
        )
        with pytest.raises(InvalidInput, match="^head 'entities' says where in a text something stands"):
            prompted.run("Cats", ["mood", "entities"], prompt="query")


@pytest.mark.parametrize(
    ("heads", "kind", "sentence"),
    [
        ([], EmptyInput, "heads is an empty list; name at least one"),
        ("mood", InvalidInput, "heads is a str; send a list of names"),
        ([3], InvalidInput, "heads is a list; send a list of names"),
        (None, InvalidInput, "heads is a NoneType; send a list of names"),
        (["mood", "harm", "mood"], InvalidInput, "head 'mood' is asked for twice; name each once"),
        (
            ["mood", "colour"],
            WrongTask,
            "this model has no head 'colour'; it has embed, mood, harm, inference, relevance, entities, answer, fill, "
            "sparse",
        ),
        (["answer"], WrongTask, "head 'answer' is for pairs of texts, and run reads single texts; ask its own task"),
        (
            ["mood", "relevance"],
            WrongTask,
            "head 'relevance' is for pairs of texts, and run reads single texts; ask its own task",
        ),
    ],
)
def test_heads_that_cannot_be_run(encoder: Encoder, heads: Any, kind: type[InvalidInput], sentence: str) -> None:
    with pytest.raises(kind) as caught:
        encoder.run(TEXTS, heads)
    assert (type(caught.value), str(caught.value)) == (kind, sentence)


@pytest.mark.parametrize("text", ["", 3, None, ["Cats"]])
def test_texts_that_are_none(encoder: Encoder, text: Any) -> None:
    with pytest.raises(InvalidInput, match="^input 1 is "):
        encoder.run(["Cats", text], ["mood"])


def test_a_head_that_refuses_a_text_refuses_it_alone(encoder: Encoder) -> None:
    with pytest.raises(InvalidInput, match="^input 1 holds no "):
        encoder.run([TEXTS[0], "Cats sleep."], ["mood", "fill"])


# Heads by name


def test_a_head_must_be_named_where_several_do(encoder: Encoder) -> None:
    with pytest.raises(InvalidInput) as caught:
        encoder.classify("Cats")
    assert str(caught.value) == (
        "this model has several heads that classify: mood, harm, inference, relevance; name one as head"
    )
    with pytest.raises(WrongTask) as caught:
        encoder.tag("Cats", head="mood")
    assert str(caught.value) == "this model has no head 'mood' that can tag; those that can are entities"


@pytest.mark.parametrize(
    ("given", "head", "sentence"),
    [
        (
            "Cats",
            "inference",
            "input 1 is a single text, but head 'inference' was trained on pairs; send those, or name another head",
        ),
        (
            ("Cats", "sleep"),
            "mood",
            "input 1 is a pair of texts, but head 'mood' was trained on single texts; send those, or name another head",
        ),
    ],
)
def test_pairs_and_single_texts_go_to_heads_for_them(encoder: Encoder, given: Any, head: str, sentence: str) -> None:
    other = ("cats", "dogs") if isinstance(given, str) else "cats"
    with pytest.raises(InvalidInput) as caught:
        encoder.classify([other, given], head=head)
    assert str(caught.value) == sentence


def test_tasks_find_the_head_that_fits_them(encoder: Encoder) -> None:
    pairs = ("Who counts?", "The miller counts sacks.")
    labelled = dict(encoder.classify([pairs], head="relevance")[0])
    assert encoder.rerank(pairs[0], [pairs[1]])[0].score == pytest.approx(labelled["relevance"], abs=1e-6)
    assert encoder.classify("Cats sleep.", labels=["film", "train"]) == encoder.classify(
        "Cats sleep.", labels=["film", "train"], head="inference"
    )
    assert encoder.tag(TEXTS[0]) == encoder.tag(TEXTS[0], head="entities")
    assert encoder.fill(TEXTS[0]) == encoder.fill(TEXTS[0], head="fill")
    assert encoder.answer(*pairs) == encoder.answer(*pairs, head="answer")
    assert encoder.log_probs("Cats") == encoder.log_probs("Cats", head="fill")
    np.testing.assert_array_equal(encoder.embed("Cats"), encoder.embed("Cats", head="embed"))
    np.testing.assert_array_equal(encoder.similarity("Cats", "Dogs"), encoder.similarity("Cats", "Dogs", head="embed"))


def test_labels_of_the_callers_own_without_a_head_that_infers(tmp_path: Path) -> None:
    folder = heads_checkpoint(tmp_path)
    file = folder / "onepass_heads.json"
    heads = json.loads(file.read_text())["heads"]
    heads["inference"]["labels"] = ["a", "b", "c"]
    change_json(file, heads=heads)
    with Encoder(folder) as speaking:
        spoken = speaking.classify("Cats sleep.", labels=["film", "train"])
        assert spoken == speaking.classify("Cats sleep.", labels=["film", "train"], head="fill")
        with pytest.raises(WrongTask, match="none of its own .* begins with 'entail'"):
            speaking.classify("Cats sleep.", labels=["film", "train"], head="mood")


def test_info_lists_the_heads(encoder: Encoder) -> None:
    heads = encoder.info()["heads"]
    assert heads["mood"] == {"kind": "classify", "labels": ["negative", "neutral", "positive"]}
    assert heads["embed"] == {"kind": "embed", "labels": []}

"""Masks filled as transformers' fill-mask pipeline fills them."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from running import ENGINES
from tiny import KINDS, TEXT, Family, tiny_checkpoint
from transformers import PreTrainedTokenizerFast, pipeline

from onepass import Encoder
from onepass.errors import EmptyInput, InvalidInput, TooLarge, WrongTask
from onepass.tasks.fill import Filling, _filled, fill

ONE = "The train to the {mask} leaves at seven."
SEVERAL = [
    "{mask} café {mask} Zürich",
    "I {mask} this film.\r\nI hated 🎬 this {mask}, שלום {mask}",
    "Cafe\u0301 {mask}\r\n\r\n{mask} 👩\u200d👩\u200d👧 𝔘𝔫𝔦 مرحبا\u202e",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("fill") / "model", "bert", "fill")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Iterator[Encoder]:
    with Encoder(folder, dtype="float32") as encoder:
        yield encoder


def as_pipeline(fillings: Sequence[Filling]) -> list[dict[str, Any]]:
    return [
        {
            "score": pytest.approx(filling.score, abs=1e-4),
            "token": filling.id,
            "token_str": filling.token,
            "sequence": filling.sequence,
        }
        for filling in fillings
    ]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "distilbert", "electra", "albert"])
def test_the_fillings_of_the_pipeline(tmp_path: Path, family: Family, engine: str) -> None:
    folder = tiny_checkpoint(tmp_path, family, "fill")
    mask = "[MASK]" if KINDS[family].vocabulary == "wordpiece" else "<mask>"
    one, *several = (text.format(mask=mask) for text in [ONE, *SEVERAL])
    # the tokenizer as the file has it: transformers 5 drops the normaliser of XLMRobertaTokenizer
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    theirs = pipeline("fill-mask", str(folder), tokenizer=tokenizer, device="cpu")
    with Encoder(folder, engine=engine, dtype="float32") as encoder:
        want: Any = theirs(one, top_k=7)
        assert as_pipeline(encoder.fill(one, top_k=7)[0]) == want
        for text, ours in zip(several, encoder.fill(several), strict=True):
            want = theirs(text)
            assert [as_pipeline(fillings) for fillings in ours] == want
        assert len(encoder.fill(one, top_k=10**9)[0]) == encoder.checkpoint.spec.embed.vocab


@pytest.mark.parametrize("candidates", [["bus", "train", "##s"], ["Nobody", "postman on Tuesday", "train", "train"]])
def test_candidates_are_the_targets_of_the_pipeline(encoder: Encoder, folder: Path, candidates: list[str]) -> None:
    theirs = pipeline("fill-mask", str(folder), device="cpu")
    text = ONE.format(mask="[MASK]")
    (ours,) = encoder.fill(text, candidates=candidates)
    want: Any = theirs(text, targets=candidates)
    assert as_pipeline(ours) == want
    assert len(ours) == 3


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_a_guess_in_the_middle_of_a_long_text(tmp_path: Path, family: Family) -> None:
    """Every token in turn, beside halves of characters, too: the text is that of all tokens decoded."""
    folder = tiny_checkpoint(tmp_path, family, "fill")
    with Encoder(folder) as encoder:
        mask, tokenizer = encoder.tokenizer.mask_id, encoder.tokenizer
        assert mask is not None
        given = "👩 x שלום {} 🎬, (the mill ended. {} 👧👧👧 café\r\nnaïve 🎬 don't"
        given = given.replace("{}", tokenizer.spelling(mask))
        ids = [token.id for token in tokenizer.tokens(given)]
        gaps = [[*ids[:9], *ids[:1] * 9, *ids[9:]], [*ids[:1] * 10, *ids[1:]]]
        halved = [ids[:5] + ids[6:], ids[:-4] + ids[-3:], *gaps, ids]
        for skip in (True, False):
            decode = functools.partial(tokenizer.decode, skip_special=skip)
            for row in halved:
                for position in range(1, len(row) - 1, 3):
                    filled = _filled(decode, row, position)
                    for id in range(0, encoder.checkpoint.spec.embed.vocab, 7):
                        assert filled(id) == decode([*row[:position], id, *row[position + 1 :]])


def test_a_server_refuses_more_than_it_writes(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onepass.tasks.fill.MOST_WRITTEN", 200)
    texts = ["[MASK]"] * 10  # of three tokens
    assert len(asyncio.run(fill(encoder.job(wait=False), texts, top_k=6))) == 10
    with pytest.raises(
        TooLarge,
        match="^the texts around the guesses of inputs 0 to 9 have 210 tokens, more than the 200 that a request may",
    ):
        asyncio.run(fill(encoder.job(wait=False), texts, top_k=7))
    assert len(asyncio.run(fill(encoder.job(), texts, top_k=7))) == 10
    assert encoder.device.admission.reserved == 0


def test_a_candidate_that_is_no_token_is_reported(encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "onepass"):
        (filled,) = encoder.fill("a [MASK]", candidates=["bus", "Train", " "])
    assert [filling.token for filling in filled] in (["bus", "train"], ["train", "bus"])
    assert caplog.messages == [
        "candidate 'Train' is no token; 'train' stands for it",
        "candidate ' ' gives no token; it is left out",
    ]


def test_a_text_is_cut_where_no_mask_is_lost(encoder: Encoder) -> None:
    long = " ".join(TEXT)
    assert len(encoder.fill(f"[MASK] {long}")) == 1
    assert len(encoder.fill(f"{long} [MASK]", truncate="left")) == 1
    with pytest.raises(
        InvalidInput,
        match=r"^1 of the 2 masks of input 1 lie beyond the 64 tokens that the model takes; shorten the text around t",
    ):
        encoder.fill(["[MASK]", f"[MASK] {long} [MASK]"])


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        (["a [MASK]", "fox"], {}, InvalidInput, r"^input 1 holds no \[MASK\]; put one where a token is missing$"),
        (["<mask>"], {}, InvalidInput, r"^input 0 holds no \[MASK\]"),
        ("", {}, EmptyInput, "^input 0 is empty; send some text$"),
        ([], {}, EmptyInput, "^the input is an empty list; send at least one text$"),
        ([[5]], {}, InvalidInput, "^input 0 is a list; send a string$"),
        (["[MASK] \ud800"], {}, InvalidInput, "^input 0 is not Unicode text"),
        ("[MASK]", {"top_k": 0}, InvalidInput, "^top_k is 0; ask for at least 1$"),
        ("[MASK]", {"candidates": "bus"}, InvalidInput, "^candidates is one string; send a list of strings$"),
        ("[MASK]", {"candidates": [5]}, InvalidInput, "^candidate 0 is a int; send a string$"),
        ("[MASK]", {"candidates": []}, EmptyInput, "^none of the candidates is a token; send at least one$"),
    ],
)
def test_bad_input(encoder: Encoder, texts: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        encoder.fill(texts, **options)
    assert encoder.device.admission.reserved == 0


def test_a_model_without_the_head(tiny_embedder: Path) -> None:
    with Encoder(tiny_embedder) as encoder, pytest.raises(WrongTask, match="^this model cannot fill; it can embed"):
        encoder.fill("[MASK]")

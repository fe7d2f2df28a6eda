"""Log-probabilities of given texts, as transformers' language models give them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from running import ENGINES
from tiny import TEXT, Family, tiny_checkpoint, write_json
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from onepass import Encoder
from onepass.errors import EmptyInput, InputTooLong, InvalidInput, TooLarge, WrongTask
from onepass.schedule.device import Device
from onepass.tasks.log_probs import LogProb, log_probs

TEXTS = ["The miller counts sacks.", "Café 🎬\r\nשלום", "a"]
LONG = " ".join(TEXT)


@pytest.fixture(scope="module")
def masked(tiny_filler: Path) -> Iterator[Encoder]:
    with Encoder(tiny_filler, dtype="float32") as encoder:
        yield encoder


@pytest.fixture(scope="module")
def causal(tiny_decoder: Path) -> Iterator[Encoder]:
    with Encoder(tiny_decoder, dtype="float32") as encoder:
        yield encoder


def expected(folder: Path, auto: Any, text: str, *, causal: bool) -> list[tuple[int, float]]:
    """(id, log-probability) of the tokens between the special ones, a forward pass per token where they are masked."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    places = range(1, ids.shape[1] - 1)
    found = []
    with torch.no_grad():
        for place in places:
            given = ids.clone()
            given[0, place] = tokenizer.pad_token_id if causal else tokenizer.mask_token_id
            logits = model(given[:, :place] if causal else given).logits[0, -1 if causal else place]
            found.append((int(ids[0, place]), float(logits.log_softmax(-1)[ids[0, place]])))
    return found


def check(ours: list[LogProb], theirs: list[tuple[int, float]], text: str) -> None:
    assert [token.id for token in ours] == [id for id, _ in theirs]
    assert [token.log_prob for token in ours] == pytest.approx([value for _, value in theirs], abs=1e-4)
    assert all(token.text == text[token.start : token.stop] for token in ours)
    starts = [token.start for token in ours]
    assert starts == sorted(starts)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_each_token_masked_by_itself(tmp_path: Path, family: Family, engine: str) -> None:
    folder = tiny_checkpoint(tmp_path / "model", family, "fill")
    with Encoder(folder, engine=engine, dtype="float32") as encoder:
        for text, ours in zip(TEXTS, encoder.log_probs(iter(TEXTS)), strict=True):
            check(ours, expected(folder, AutoModelForMaskedLM, text, causal=False), text)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", ["qwen3", "gpt2", "llama"])
def test_each_token_given_those_before_it(tmp_path: Path, family: Family, engine: str) -> None:
    folder = tiny_checkpoint(tmp_path / "model", family, "next")
    with Encoder(folder, engine=engine, dtype="float32") as encoder:
        for text, ours in zip(TEXTS, encoder.log_probs(TEXTS), strict=True):
            check(ours, expected(folder, AutoModelForCausalLM, text, causal=True), text)
        assert len(encoder.log_probs(TEXTS[2])) == 1


def test_spans_are_those_of_the_text(masked: Encoder, causal: Encoder) -> None:
    text = "e\u0301t 👩‍👩‍👧 مرحبا\r\n\u202eThe"
    for encoder in (masked, causal):
        tokens = encoder.log_probs(text)
        assert {place for token in tokens for place in range(token.start, token.stop)} >= {
            place for place, character in enumerate(text) if character.isalpha()
        }
        assert [token.text for token in tokens][-1] in ("e", "The", "\u202eThe")


def test_nothing_is_said_of_a_first_token_without_one_before_it(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "model", "gpt2", "next")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    write_json(folder / "tokenizer.json", {**tokenizer, "post_processor": None})
    with Encoder(folder, dtype="float32") as encoder:
        one, two = encoder.log_probs(["a", "The train"])
    assert [token.log_prob for token in one] == [None]
    assert two[0].log_prob is None
    assert all(token.log_prob is not None and token.log_prob < 0 for token in two[1:])
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([[token.id for token in two]])).logits[0]
    want = [float(row.log_softmax(-1)[token.id]) for row, token in zip(logits, two[1:], strict=False)]
    assert [token.log_prob for token in two[1:]] == pytest.approx(want, abs=1e-4)


def test_a_masked_model_reads_a_row_per_token_and_reports_what_it_cut(masked: Encoder) -> None:
    job = masked.job()
    whole, cut = asyncio.run(log_probs(job, [TEXTS[0], LONG]))
    assert len(job.usage.lengths) == len(whole) + len(cut)
    assert len(cut) == 62
    assert job.usage.tokens == len(whole) * (len(whole) + 2) + 62 * 64
    assert (job.usage.truncated, job.usage.windows) == (1, 0)
    assert job.usage.characters == len(TEXTS[0]) + len(LONG)


def test_the_warning_counts_texts(masked: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    masked.log_probs([TEXTS[0], LONG, "a"])
    assert caplog.messages == ["1 of 3 inputs were cut at 64 tokens"]


def test_a_server_refuses_more_than_it_ever_admits(tiny_filler: Path) -> None:
    device = Device(1, queue_tokens=3000)
    with Encoder(tiny_filler, device=device) as encoder:
        with pytest.raises(TooLarge, match="^the request may need 3968 tokens, more than the 3000 this "):
            asyncio.run(log_probs(encoder.job(wait=False), [LONG]))
        assert len(asyncio.run(log_probs(encoder.job(wait=False), TEXTS))) == 3
        assert [len(tokens) for tokens in encoder.log_probs([LONG] * 2)] == [62, 62]
        assert device.admission.reserved == 0
    device.close()


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        ("", {}, EmptyInput, "^input 0 is empty; send some text$"),
        (["a", " "], {}, EmptyInput, "^input 1 has no tokens; send some text$"),
        ([], {}, EmptyInput, "^the input is an empty list; send at least one text$"),
        (["a", 5], {}, InvalidInput, "^input 1 is a int; send a string$"),
        (["a", "\ud800"], {}, InvalidInput, "^input 1 is not Unicode text"),
        (
            ["a", LONG],
            {"truncate": None},
            InputTooLong,
            r"^input 1 has \d+ tokens, the model takes 64; shorten it",
        ),
        (
            "a",
            {"truncate": "left"},
            InvalidInput,
            "^truncate is 'left', but tokens have a log-probability only ",
        ),
    ],
)
def test_bad_input(masked: Encoder, texts: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        masked.log_probs(texts, **options)
    assert masked.device.admission.reserved == 0


def test_a_model_without_the_heads(tiny_embedder: Path) -> None:
    with (
        Encoder(tiny_embedder) as encoder,
        pytest.raises(WrongTask, match="^this model cannot log_probs; it can"),
    ):
        encoder.log_probs("a")

"""LLM2Vec's folders: a decoder that looks both ways, pooled over the text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from running import error
from tiny import Family, refused, tiny_checkpoint, tiny_tokenizer, write_json

from onepass import Encoder
from onepass.errors import UnsupportedOption
from onepass.model.checkpoint import load_checkpoint

auto: Any = transformers
TEXTS = ["Cats sleep for sixteen hours.", "Why?"]


def folder_of(folder: Path, family: Family = "mistral", **settings: Any) -> Path:
    tiny_checkpoint(folder, family, "trunk", auto_map={"AutoModel": "modeling_encoder.EncoderModel"})
    write_json(folder / "llm2vec_config.json", {"pooling_mode": "mean", "max_length": 60, **settings})
    return folder


def pooled(folder: Path, prompt: str, text: str) -> Any:
    """As the package does: all tokens are computed, and as many of the last ones averaged as the text has alone."""
    tokenizer = tiny_tokenizer("mistral")
    ids = tokenizer.encode(prompt + text).ids
    alone = len(tokenizer.encode(text, add_special_tokens=False).ids)
    config = auto.AutoConfig.from_pretrained(folder)
    config.is_causal = False
    model = auto.AutoModel.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    end = len(ids) - 1  # the tests' tokenizer ends texts with a token, Llama's does not
    return states[end - alone : end].mean(0).numpy(), states[end].numpy(), alone


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gemma"])
def test_what_is_read(tmp_path: Path, family: Family) -> None:
    loaded = load_checkpoint(folder_of(tmp_path, family, doc_max_length=40))
    assert not any(layer.attention.causal for layer in loaded.spec.layers)
    assert loaded.heads["embed"].pool.skip_prompt
    assert loaded.max_length == 60
    assert loaded.notes == (
        "llm2vec_config.json shortens texts to 40 tokens; here rows are cut at 60, instruction included.",
    )


@pytest.mark.parametrize("prompt", ["", "The miller counts: "])
def test_instructions_and_special_tokens_are_not_pooled(tmp_path: Path, prompt: str) -> None:
    folder = folder_of(tmp_path)
    with Encoder(folder, engine="native", dtype="float32") as encoder:
        ours = encoder.embed(TEXTS, prompt=prompt or None)
    for vector, text in zip(ours, TEXTS, strict=True):
        mean, last, alone = pooled(folder, prompt, text)
        assert error(vector, (mean * alone + last) / (alone + 1)) < 1e-4


def test_last_token(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, pooling_mode="last_token")
    with Encoder(folder, engine="native", dtype="float32") as encoder:
        ours = encoder.embed(TEXTS)
    assert error(ours, np.stack([pooled(folder, "", text)[1] for text in TEXTS])) < 1e-4


def test_a_pooling_that_is_not_implemented(tmp_path: Path) -> None:
    assert refused(folder_of(tmp_path, pooling_mode="eos_token"), UnsupportedOption) == (
        "llm2vec_config.json sets pooling_mode to 'eos_token', which is not implemented with skip_instruction true; "
        "known are mean, last_token"
    )

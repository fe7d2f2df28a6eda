"""GritLM's folders: a Mistral that looks both ways, pooled over what follows the prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from running import ENGINES, error
from tiny import change_json, refused, tiny_checkpoint, tiny_tokenizer, write_json

from onepass import Encoder
from onepass.errors import UnsupportedOption
from onepass.model.checkpoint import load_checkpoint

auto: Any = transformers
CODE = {"AutoModel": "modeling_gritlm7b.MistralModel", "AutoModelForCausalLM": "modeling_gritlm7b.MistralForCausalLM"}
TEXTS = ["Cats sleep for sixteen hours.", "Why?"]
ALONE, ASKED = "<|embed|>\n", "<|user|>\nFind\n<|embed|>\n"


def folder_of(folder: Path, **config: Any) -> Path:
    """With the language model's head in the file, as on the hub, and a window narrower than a prompt."""
    tiny_checkpoint(folder, "mistral", "next", sliding_window=3)
    change_json(folder / "config.json", **{"auto_map": CODE, **config})
    return folder


def theirs(folder: Path, prompt: str, texts: list[str] = TEXTS) -> NDArray[np.float32]:
    """As the package does: no mask at all, a mean over what follows as many tokens as the prompt has alone."""
    config = auto.AutoConfig.from_pretrained(folder, sliding_window=None)
    config.is_causal = False
    model = auto.MistralModel.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    tokenizer = tiny_tokenizer("mistral")
    start = len(tokenizer.encode(prompt).ids) - 1 if prompt else 0  # less the token that ends the tests' texts
    vectors = []
    for text in texts:
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([tokenizer.encode(prompt + text).ids])).last_hidden_state[0]
        vectors.append(torch.nn.functional.normalize(states[start:].mean(0), dim=0).numpy())
    return np.stack(vectors)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("asked", "prompt"), [(None, ALONE), ("document", ALONE), (ASKED, ASKED), ("", "")])
def test_vectors(tmp_path: Path, asked: str | None, prompt: str, engine: Any) -> None:
    folder = folder_of(tmp_path)
    with Encoder(folder, engine=engine, dtype="float32") as encoder:
        assert error(encoder.embed(TEXTS, prompt=asked), theirs(folder, prompt)) < 1e-4


def test_a_copy_for_vllm_names_no_code(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, auto_map=None, architectures=["GritLM"])
    with Encoder(folder, dtype="float32") as encoder:
        assert error(encoder.embed(TEXTS), theirs(folder, ALONE)) < 1e-4


def test_prompts_saved_beside_it_have_precedence(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    saved = {"prompts": {"query": ASKED}, "default_prompt_name": "query"}
    write_json(folder / "config_sentence_transformers.json", saved)
    loaded = load_checkpoint(folder)
    assert loaded.prompts == {"query": ASKED, "document": ALONE}
    assert loaded.default_prompt == "query"


def test_rows_are_cut_where_the_package_cuts_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, max_position_embeddings=2048)
    loaded = load_checkpoint(folder)
    assert loaded.max_length == 512
    assert loaded.notes == (
        "Rows are cut at 512 tokens, as in the gritlm package; the setting max_length allows more.",
    )
    assert load_checkpoint(folder, max_length=2048).max_length == 2048


def test_its_classifier_is_not_read(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "mistral", "classify")
    change_json(folder / "config.json", auto_map=CODE)
    assert refused(folder, UnsupportedOption) == (
        "config.json sets auto_map to code of its own, which is never run; no family here covers it"
    )

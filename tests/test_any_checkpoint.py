"""Whatever a JSON file of a checkpoint holds: it is loaded, or refused in a sentence, and never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from tiny import Family, tiny_checkpoint, write_json

from onepass.errors import BadCheckpoint
from onepass.model.checkpoint import load_checkpoint

ANY = some.recursive(
    some.none() | some.booleans() | some.integers(-3, 10**20) | some.floats(allow_nan=False) | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = {
    "config.json": ["architectures", "auto_map", "hidden_act", "hidden_size", "id2label", "layer_norm_eps",
                    "model_type", "num_attention_heads", "num_hidden_layers", "num_labels", "pad_token_id",
                    "problem_type", "sentence_transformers", "type_vocab_size", "vocab_size"],
    "tokenizer_config.json": ["add_eos_token", "added_tokens_decoder", "additional_special_tokens", "do_lower_case",
                              "mask_token", "model_input_names", "model_max_length", "strip_accents",
                              "tokenizer_class"],
    "tokenizer.json": ["added_tokens", "model", "normalizer", "post_processor", "pre_tokenizer", "truncation"],
    "special_tokens_map.json": ["cls_token", "additional_special_tokens"],
    "added_tokens.json": ["word", "<new>"],
    "sentence_bert_config.json": ["max_seq_length", "do_lower_case", "query_expansion", "transformer_task"],
    "1_Pooling/config.json": ["pooling_mode", "pooling_mode_cls_token", "include_prompt"],
    "config_sentence_transformers.json": ["prompts", "default_prompt_name", "truncate_dim", "model_type"],
    "model.safetensors.index.json": ["weight_map"],
}  # fmt: skip
CHANGES = some.sampled_from([(file, key) for file, keys in KEYS.items() for key in keys])


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    kinds: list[tuple[Family, Any]] = [("bert", "embed"), ("roberta", "classify")]
    return {family: tiny_checkpoint(tmp_path_factory.mktemp(family) / "model", family, head) for family, head in kinds}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(family=some.sampled_from(["bert", "roberta"]), change=CHANGES, value=ANY)
def test_whatever_a_key_holds_is_loaded_or_refused(
    originals: dict[str, Path], tmp_path: Path, family: str, change: tuple[str, str], value: Any
) -> None:
    folder, (file, key) = tmp_path / "changed", change
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(originals[family], folder)
    if file.startswith("model."):
        (folder / "model.safetensors").unlink()
    path = folder / file
    write_json(path, (json.loads(path.read_text()) if path.exists() else {}) | {key: value})
    sentence = ""
    try:
        load_checkpoint(folder)
    except BadCheckpoint as error:
        sentence = str(error)
    assert "\n" not in sentence

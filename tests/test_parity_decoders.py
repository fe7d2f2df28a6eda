"""Options of decoders, of encoder-decoders and of shared layers give the states of transformers, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running import STATES, error, every_engine, run, start
from test_parity import LIMIT, random_rows, reference, trunk
from tiny import USABLE, Family, Head, change_json, refused, tiny_checkpoint

from onepass.errors import BadCheckpoint, UnsupportedOption
from onepass.model.checkpoint import load_checkpoint
from onepass.model.config import ACTIVATIONS

SLIDING, FULL = "sliding_attention", "full_attention"
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
GEMMA_ROPES = {
    FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 500_000.0},
    SLIDING: {"rope_type": "default", "rope_theta": 5_000.0},
}
BOTH_WAYS = {"is_causal": False}

VARIANTS: dict[str, tuple[Family, dict[str, Any]]] = {
    "one key head for all": ("llama", {"num_key_value_heads": 1}),
    "as many key heads as heads": ("llama", {"num_key_value_heads": None}),
    "head size of its own": ("llama", {"head_dim": 12}),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3 rope": ("llama", {"rope_parameters": LLAMA3}),
    "theta": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "llama both ways": ("llama", BOTH_WAYS),
    "mistral without a window": ("mistral", {"sliding_window": None}),
    "mistral with a window of one": ("mistral", {"sliding_window": 1}),
    "mistral both ways, window": ("mistral", {**BOTH_WAYS, "sliding_window": 5}),
    "qwen2 without windows": ("qwen2", {"use_sliding_window": False}),
    "qwen2 both ways": ("qwen2", BOTH_WAYS),
    "qwen3 layer_types": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 6, "layer_types": [SLIDING, FULL]},
    ),
    "qwen3 yarn": ("qwen3", {"rope_parameters": YARN, "max_position_embeddings": USABLE}),
    "qwen3 both ways": ("qwen3", BOTH_WAYS),
    "qwen3 biases": ("qwen3", {"attention_bias": True}),
    "gemma, the old name of its activation": ("gemma", {"hidden_act": "gelu"}),
    "gemma2 without caps": ("gemma2", {"attn_logit_softcapping": None}),
    "gemma2 layer_types": ("gemma2", {"layer_types": [FULL, SLIDING]}),
    "gemma3 both ways, even window": ("gemma3_text", {"use_bidirectional_attention": True, "sliding_window": 8}),
    "gemma3 both ways, odd window": ("gemma3_text", {"use_bidirectional_attention": True, "sliding_window": 9}),
    "gemma3 not causal": ("gemma3_text", BOTH_WAYS),
    "gemma3 ropes": ("gemma3_text", {"rope_parameters": GEMMA_ROPES}),
    "gemma3 layer_types, biases": ("gemma3_text", {"layer_types": [FULL, SLIDING], "attention_bias": True}),
    "gemma3 scale": ("gemma3_text", {"query_pre_attn_scalar": 30}),
    "eurobert grouped": ("eurobert", {"num_key_value_heads": 4, "attention_bias": True}),
    "gpt2 scores not scaled": ("gpt2", {"scale_attn_weights": False}),
    "gpt2 scores fading": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2 both ways, narrow": ("gpt2", {**BOTH_WAYS, "n_inner": 40}),
    "albert groups": ("albert", {"num_hidden_layers": 5, "num_hidden_groups": 2}),
    "albert inner groups": ("albert", {"num_hidden_layers": 3, "num_hidden_groups": 3, "inner_group_num": 2}),
    "albert of one width": ("albert", {"embedding_size": 32}),
    "rembert of one width": ("rembert", {"input_embedding_size": 32}),
    "t5 gated, tanh form": ("t5", {"feed_forward_proj": "gated-gelu"}),
    "t5 gated, silu": ("t5", {"feed_forward_proj": "gated-silu"}),
    "t5 plain, exact gelu": ("t5", {"feed_forward_proj": "gelu"}),
    "t5 buckets": ("t5", {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}),
    "umt5 plain": ("umt5", {"feed_forward_proj": "relu"}),
    "bart scaled": ("bart", {"scale_embedding": True, "activation_function": "relu"}),
    "mbart scaled": ("mbart", {"scale_embedding": True}),
    "m2m_100 not scaled": ("m2m_100", {"scale_embedding": False}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(tmp_path: Path, name: str) -> None:
    family, config = VARIANTS[name]
    folder = tiny_checkpoint(tmp_path, family, "trunk", **config)
    checkpoint = load_checkpoint(folder)
    model = trunk(folder)
    rows, types = random_rows(family, checkpoint.spec.embed.vocab)
    theirs = [reference(model, ids, kinds).last_hidden_state[0] for ids, kinds in zip(rows, types, strict=True)]
    for engine, built in every_engine(checkpoint):
        for ours, expected in zip(run(built, STATES.kind, rows, types), theirs, strict=True):
            assert error(ours, expected) < LIMIT, f"{engine}, {len(expected)} tokens"


OLD_SPELLINGS: dict[str, tuple[Family, dict[str, Any]]] = {
    "llama": ("llama", {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "qwen2": ("qwen2", {"rope_theta": 1e6, "rope_scaling": {"type": "dynamic", "factor": 4.0}}),
    "gemma3": (
        "gemma3_text",
        {
            "rope_theta": 500_000,
            "rope_local_base_freq": 5_000,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window_pattern": 2,
        },
    ),
}


@pytest.mark.parametrize("name", OLD_SPELLINGS)
def test_rotary_positions_as_older_files_spell_them(tmp_path: Path, name: str) -> None:
    family, old = OLD_SPELLINGS[name]
    folder = tiny_checkpoint(tmp_path, family, "trunk")
    change_json(folder / "config.json", rope_parameters=None, layer_types=None, **old)
    checkpoint = load_checkpoint(folder)
    model = trunk(folder)
    rows, types = random_rows(family, checkpoint.spec.embed.vocab)
    for ours, ids, kinds in zip(run(start("reference", checkpoint), STATES.kind, rows), rows, types, strict=True):
        assert error(ours, reference(model, ids, kinds).last_hidden_state[0]) < LIMIT, f"{len(ids)} tokens"


def test_code_beside_the_weights(tmp_path: Path) -> None:
    """Accepted where the family computes what it does: gte-Qwen2's reads is_causal, llama_bidirec sees both ways."""
    folder = tiny_checkpoint(tmp_path / "qwen2", "qwen2", "trunk")
    code = {"AutoModel": "modeling_qwen.Qwen2Model"}
    change_json(folder / "config.json", auto_map=code, is_causal=False)
    assert not any(layer.attention.causal for layer in load_checkpoint(folder).spec.layers)
    folder = tiny_checkpoint(tmp_path / "llama", "llama", "trunk")
    assert all(layer.attention.causal for layer in load_checkpoint(folder).spec.layers)
    change_json(folder / "config.json", auto_map={"AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel"})
    assert "auto_map" in refused(folder, UnsupportedOption)
    change_json(folder / "config.json", model_type="llama_bidirec", architectures=["LlamaBidirectionalModel"])
    assert not any(layer.attention.causal for layer in load_checkpoint(folder).spec.layers)


REFUSALS: dict[str, tuple[Family, Head, dict[str, Any], type[BadCheckpoint], str]] = {
    "t5 classifier": (
        "t5",
        "trunk",
        {"architectures": ["T5ForSequenceClassification"]},
        UnsupportedOption,
        "config.json names the architecture 'T5ForSequenceClassification', which is not served: it reads the decoder's "
        "states, and only the encoder runs here",
    ),
    "bart classifier": (
        "bart",
        "trunk",
        {"architectures": ["BartForSequenceClassification"]},
        UnsupportedOption,
        "config.json names the architecture 'BartForSequenceClassification', which is not served: it reads the "
        "decoder's states, and only the encoder runs here",
    ),
    "bart decoder": (
        "bart",
        "trunk",
        {"architectures": ["BartForCausalLM"]},
        UnsupportedOption,
        "config.json names the architecture 'BartForCausalLM', which is not served: it reads the decoder's states, and "
        "only the encoder runs here",
    ),
    "gemma2 logits": (
        "gemma2",
        "next",
        {},
        UnsupportedOption,
        "config.json names the architecture 'Gemma2ForCausalLM', which is not served: its logits are capped "
        "(final_logit_softcapping), which is not done here",
    ),
    "t5 activation": (
        "t5",
        "trunk",
        {"feed_forward_proj": "gated-mish"},
        UnsupportedOption,
        "config.json sets feed_forward_proj to 'mish', which is not implemented; known are " + ", ".join(ACTIVATIONS),
    ),
    "partial rotary": (
        "llama",
        "trunk",
        {"partial_rotary_factor": 0.5},
        UnsupportedOption,
        "config.json sets partial_rotary_factor to 0.5, which is not implemented; only 1 is",
    ),
    "gemma both ways": (
        "gemma",
        "trunk",
        {"use_bidirectional_attention": True},
        UnsupportedOption,
        "config.json sets use_bidirectional_attention to true, which is not implemented; only false is",
    ),
    "key heads": (
        "llama",
        "trunk",
        {"num_key_value_heads": 3},
        BadCheckpoint,
        "config.json divides 4 heads among 3 key heads; that leaves a rest",
    ),
    "layer types": (
        "qwen3",
        "trunk",
        {"layer_types": ["full_attention", "linear_attention"]},
        BadCheckpoint,
        'config.json sets layer_types to ["full_attention", "linear_attention"], but it must be a list of 2 names, '
        "each full_attention or sliding_attention",
    ),
    "sliding without a window": (
        "qwen3",
        "trunk",
        {"layer_types": ["full_attention", "sliding_attention"]},
        BadCheckpoint,
        "config.json has sliding layers in layer_types, but no sliding_window in use",
    ),
    "albert groups": (
        "albert",
        "trunk",
        {"num_hidden_groups": 3},
        BadCheckpoint,
        "config.json has 2 layers in 3 groups of 1, which do not fit one another",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(tmp_path: Path, name: str) -> None:
    family, head, config, kind, sentence = REFUSALS[name]
    folder = tiny_checkpoint(tmp_path, family, head)
    change_json(folder / "config.json", **config)
    assert refused(folder, kind) == sentence

"""Options that change a family's path give the numbers of transformers, each in a checkpoint of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from running import ENGINES, STATES, error, run, start
from test_parity import LIMIT, random_rows, reference, trunk
from test_parity_heads import logits
from tiny import AUTO, Family, Head, tiny_checkpoint

from onepass.model.checkpoint import load_checkpoint

auto: Any = transformers  # whose from_pretrained carries no types
engines = pytest.mark.parametrize("engine", ENGINES)

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "factor": 2.5}

TRUNKS: dict[str, tuple[Family, dict[str, Any]]] = {
    "ernie no tasks": ("ernie", {"use_task_id": False}),
    "biases": ("modernbert", {"attention_bias": True, "mlp_bias": True, "norm_bias": True}),
    "window of a neighbour": ("modernbert", {"local_attention": 2}),
    "window of itself": ("modernbert", {"local_attention": 1}),
    "window wider than the row": ("modernbert", {"local_attention": 200}),
    "local layers only": ("modernbert", {"layer_types": ["sliding_attention"] * 2}),
    "global layers only": ("modernbert", {"layer_types": ["full_attention"] * 2}),
    "every second layer global": ("modernbert", {"global_attn_every_n_layers": 2, "num_hidden_layers": 4}),
    "old rope keys": ("modernbert", {"global_rope_theta": 300.0, "local_rope_theta": 50.0}),
    "rope scaled": ("modernbert", {"rope_scaling": LINEAR}),
    "rope by layer type": (
        "modernbert",
        {"rope_parameters": {"full_attention": {**YARN, "rope_theta": 500.0}, "sliding_attention": LINEAR}},
    ),
    "modernbert silu": ("modernbert", {"hidden_activation": "silu"}),
    "v2 content only": ("deberta-v2", {"pos_att_type": []}),
    "v2 no pos_att_type": ("deberta-v2", {"pos_att_type": None}),
    "v2 c2p": ("deberta-v2", {"pos_att_type": ["c2p"]}),
    "v2 p2c": ("deberta-v2", {"pos_att_type": ["p2c"]}),
    "v2 as text": ("deberta-v2", {"pos_att_type": "p2c|c2p"}),
    "v2 own matrices": ("deberta-v2", {"share_att_key": False}),
    "v2 own matrix, c2p": ("deberta-v2", {"share_att_key": False, "pos_att_type": ["c2p"]}),
    "v2 table without norm": ("deberta-v2", {"norm_rel_ebd": "none"}),
    "v2 plain distances": ("deberta-v2", {"position_buckets": -1}),
    "v2 distances beyond the table": ("deberta-v2", {"position_buckets": -1, "max_relative_positions": 9}),
    "v2 buckets beyond the table": ("deberta-v2", {"position_buckets": 12, "max_relative_positions": 30}),
    "v2 not relative": ("deberta-v2", {"relative_attention": False, "norm_rel_ebd": "none"}),
    "v2 absolute too": ("deberta-v2", {"position_biased_input": True}),
    "v2 narrow words": ("deberta-v2", {"embedding_size": 24, "position_biased_input": True}),
    "v2 no types": ("deberta-v2", {"type_vocab_size": 0}),
    "v2 conv": ("deberta-v2", {"conv_kernel_size": 3}),
    "v2 conv in groups": ("deberta-v2", {"conv_kernel_size": 5, "conv_groups": 4, "conv_act": "gelu"}),
    "v1 content only": ("deberta", {"pos_att_type": []}),
    "v1 c2p": ("deberta", {"pos_att_type": ["c2p"]}),
    "v1 p2c": ("deberta", {"pos_att_type": ["p2c"]}),
    "v1 distances within the table": ("deberta", {"max_relative_positions": -1}),
    "v1 not relative": ("deberta", {"relative_attention": False}),
    "v1 absolute too": ("deberta", {"position_biased_input": True}),
    "v1 narrow words": ("deberta", {"embedding_size": 24}),
    "nomic rope scaled": ("nomic_bert", {"rope_parameters": {**YARN, "rope_theta": 300.0}}),
    "nomic one type": ("nomic_bert", {"type_vocab_size": 1}),
    "gte no types": ("gte", {"type_vocab_size": 0}),
    "gte two types": ("gte", {"type_vocab_size": 2}),
    "gte rope scaled": ("gte", {"rope_parameters": {**LINEAR, "rope_theta": 300.0}}),
    "gte yarn": ("gte", {"rope_parameters": {**YARN, "rope_theta": 300.0}}),
    "jina rope scaled": ("jina_embeddings_v3", {"rope_parameters": {**LINEAR, "rope_theta": 300.0}}),
    "all attention in the bottleneck": ("mobilebert", {"use_bottleneck_attention": True}),
    "all attention in the bottleneck, one matrix": (
        "mobilebert",
        {"use_bottleneck_attention": True, "key_query_shared_bottleneck": False},
    ),
    # transformers runs it only where the bottleneck is as wide as the model
    "attention outside the bottleneck": (
        "mobilebert",
        {"key_query_shared_bottleneck": False, "intra_bottleneck_size": 32},
    ),
    "no bottleneck": ("mobilebert", {"use_bottleneck": False}),
    "one feed-forward": ("mobilebert", {"num_feedforward_networks": 1}),
    "no trigrams": ("mobilebert", {"trigram_input": False}),
    "no trigrams, wide words": ("mobilebert", {"trigram_input": False, "embedding_size": 32}),
    "trigrams of wide words": ("mobilebert", {"embedding_size": 32}),
}


@engines
@pytest.mark.parametrize("variant", TRUNKS)
def test_trunk(tmp_path: Path, variant: str, engine: str) -> None:
    family, config = TRUNKS[variant]
    folder = tiny_checkpoint(tmp_path, family, "trunk", **config)
    checkpoint = load_checkpoint(folder)
    model = trunk(folder)
    rows, types = random_rows(family, checkpoint.spec.embed.vocab, checkpoint.spec.embed.types)
    states = run(start(engine, checkpoint), STATES.kind, rows, types)
    for ours, ids, kinds in zip(states, rows, types, strict=True):
        assert error(ours, reference(model, ids, kinds).last_hidden_state[0]) < LIMIT, f"{len(ids)} tokens"


HEADS: dict[str, tuple[Family, Head, dict[str, Any]]] = {
    "bert untied": ("bert", "fill", {"tie_word_embeddings": False}),
    "ernie untied": ("ernie", "fill", {"tie_word_embeddings": False}),
    "roberta untied": ("roberta", "fill", {"tie_word_embeddings": False}),
    "mpnet untied": ("mpnet", "fill", {"tie_word_embeddings": False}),
    "distilbert untied": ("distilbert", "fill", {"tie_word_embeddings": False}),
    "electra untied": ("electra", "fill", {"tie_word_embeddings": False}),
    "albert untied": ("albert", "fill", {"tie_word_embeddings": False}),
    "modernbert mean": ("modernbert", "classify", {"classifier_pooling": "mean"}),
    "modernbert biases": ("modernbert", "classify", {"classifier_bias": True, "norm_bias": True}),
    "modernbert activation": ("modernbert", "classify", {"classifier_activation": "relu"}),
    "modernbert untied": ("modernbert", "fill", {"tie_word_embeddings": False, "decoder_bias": False}),
    "deberta pooler": ("deberta-v2", "classify", {"pooler_hidden_act": "tanh"}),
    "deberta v1 fill": ("deberta", "fill", {"legacy": False}),
    "deberta v2 fill": ("deberta-v2", "fill", {"legacy": False}),
    "deberta narrow words": ("deberta-v2", "fill", {"embedding_size": 24}),
    "deberta eps": ("deberta-v2", "fill", {"layer_norm_eps": 0.1}),
    "nomic activation": ("nomic_bert", "fill", {"hidden_act": "gelu"}),
    "gte untied": ("gte", "fill", {"tie_word_embeddings": False, "hidden_act": "silu"}),
    "mobilebert first token": ("mobilebert", "classify", {"classifier_activation": False}),
}


@engines
@pytest.mark.parametrize("variant", HEADS)
def test_head(tmp_path: Path, variant: str, engine: str) -> None:
    family, head, config = HEADS[variant]
    folder = tiny_checkpoint(tmp_path, family, head, **config)
    checkpoint = load_checkpoint(folder)
    kind = AUTO.get(head, "AutoModelForSequenceClassification")
    model = getattr(auto, kind).from_pretrained(folder, dtype=torch.float32).eval()
    rows, types = random_rows(family, checkpoint.spec.embed.vocab, checkpoint.spec.embed.types)
    ours = run(start(engine, checkpoint), head, rows, types, finish="none")
    theirs = [logits(reference(model, ids, kinds)) for ids, kinds in zip(rows, types, strict=True)]
    for a, b in zip(ours, theirs, strict=True):
        assert error(a, b.reshape(a.shape)) < LIMIT

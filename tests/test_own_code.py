"""Families whose code lies beside their weights, written from their papers and that code's tensor names.

The reference is transformers' nearest model with the missing part put in: here Nomic's experts and Jina's adapters,
merged by hand; those of tests/own_code.py for model types that transformers does not have.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live import listening
from own_code import JINA, MAKERS, NEAREST, OPTIONS, jina_v2, read_heads, saved, write
from running import ENGINES, STATES, deviation, error, every_engine, run, start
from test_parity import LIMIT, random_rows, reference
from tiny import change_json, redraw, refused, tiny_checkpoint
from torch import nn

from onepass.encoder import Encoder
from onepass.errors import BadSetting, UnsupportedOption
from onepass.model.checkpoint import Checkpoint, load_checkpoint
from onepass.model.spec import Alibi
from onepass.server.serve import load, of_each
from onepass.settings import ModelSettings, ServerSettings

engines = pytest.mark.parametrize("engine", ENGINES)


def compare(checkpoint: Checkpoint, model: Any, engine: str) -> None:
    rows, types = random_rows("bert", checkpoint.spec.embed.vocab, checkpoint.spec.embed.types)
    states = run(start(engine, checkpoint), STATES.kind, rows, types)
    for ours, ids, kinds in zip(states, rows, types, strict=True):
        assert error(ours, reference(model, ids, kinds).last_hidden_state[0]) < LIMIT, f"{len(ids)} tokens"


# Nomic

OLD = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "layer_norm_eps": "layer_norm_epsilon",
    "max_position_embeddings": "n_positions",
}
NOMIC = {
    "activation_function": "swiglu",
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "prenorm": False,
    "use_rms_norm": False,
    "qkv_proj_bias": False,
    "max_trained_positions": 16,
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
}


def old_spelling(folder: Path, **changes: Any) -> dict[str, Any]:
    """Changes that turn a config.json of transformers into one of the code beside the weights."""
    config = json.loads((folder / "config.json").read_text())
    named = {new: config[old] for old, new in OLD.items()}
    gone = dict.fromkeys((*OLD, "rope_parameters", "head_dim", "hidden_act"))
    return gone | named | NOMIC | changes


@engines
def test_nomic_in_its_old_spelling(tmp_path: Path, engine: str) -> None:
    folder = tiny_checkpoint(tmp_path, "nomic_bert", "trunk", layer_norm_eps=1e-3, max_position_embeddings=128)
    model, tensors = saved(folder)
    checkpoint = write(folder, tensors, **old_spelling(folder))
    assert checkpoint.spec.max_tokens == 128
    compare(checkpoint, model, engine)


def test_nomic_in_both_spellings(tmp_path: Path) -> None:
    """As nomic-embed-text-v1.5 has it: the longest row is that of its own code."""
    folder = tiny_checkpoint(tmp_path, "nomic_bert", "trunk", max_position_embeddings=16)
    _, tensors = saved(folder)
    alone = load_checkpoint(folder)
    both = write(folder, tensors, n_positions=64, n_embd=32, max_trained_positions=16, rotary_emb_base=1000)
    assert (alone.spec.max_tokens, both.spec.max_tokens) == (16, 64)
    assert both.spec == replace(alone.spec, max_tokens=64)


@engines
@pytest.mark.parametrize(("name", "act"), [("geglu", nn.GELU()), ("glu", nn.Sigmoid())])
def test_nomic_gates(tmp_path: Path, name: str, act: nn.Module, engine: str) -> None:
    folder = tiny_checkpoint(tmp_path, "nomic_bert", "trunk")
    model, tensors = saved(folder)
    for layer in model.layers:
        layer.mlp.act_fn = act
    compare(write(folder, tensors, **old_spelling(folder, activation_function=name)), model, engine)


@engines
def test_nomic_beyond_the_trained_length(tmp_path: Path, engine: str) -> None:
    """Rows longer than it have a larger base, by their own length."""
    folder = tiny_checkpoint(tmp_path, "nomic_bert", "trunk")
    model, tensors = saved(folder)
    checkpoint = write(folder, tensors, **old_spelling(folder, rotary_scaling_factor=2.0))
    rows, types = random_rows("nomic_bert", checkpoint.spec.embed.vocab)
    states = run(start(engine, checkpoint), STATES.kind, rows, types)
    for ours, ids, kinds in zip(states, rows, types, strict=True):
        base = 1000.0 * max(2 * len(ids) / 16 - 1, 1) ** (8 / 6)
        model.rotary_emb.inv_freq = 1 / base ** (torch.arange(0, 8, 2).float() / 8)
        assert error(ours, reference(model, ids, kinds).last_hidden_state[0]) < LIMIT, f"{len(ids)} tokens"


class Plain(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Experts(nn.Module):
    """One row at a time: its best experts, each times its share of the softmax over all, and one bias at the end."""

    def __init__(self, width: int, inner: int, experts: int, top: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.w1 = nn.Parameter(torch.zeros(experts * inner, width))
        self.w2 = nn.Parameter(torch.zeros(experts * inner, width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.experts, self.top = experts, top

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up, down = self.w1.chunk(self.experts), self.w2.chunk(self.experts)
        rows = []
        for row in x[0]:
            shares = torch.softmax(self.router(row), -1)
            best = torch.argsort(shares, descending=True)[: self.top]
            rows.append(sum(shares[e] * (nn.functional.gelu(up[e] @ row) @ down[e]) for e in best) + self.bias)
        return torch.stack(rows)[None]


@engines
def test_nomic_mixture_of_experts(tmp_path: Path, engine: str) -> None:
    folder = tiny_checkpoint(tmp_path, "nomic_bert", "trunk", num_hidden_layers=4)
    model, tensors = saved(folder)
    for index, layer in enumerate(model.layers):
        layer.mlp = Experts(32, 24, experts=5, top=2) if index % 2 else Plain(32, 24)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(layer.self_attn, name, nn.Linear(32, 32))
    redraw(model, 3)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("encoder.")}
    tensors |= {
        "embeddings.word_embeddings.weight": model.embeddings.word_embeddings.weight,
        "embeddings.token_type_embeddings.weight": model.embeddings.token_type_embeddings.weight,
        "emb_ln.weight": model.embeddings.LayerNorm.weight,
        "emb_ln.bias": model.embeddings.LayerNorm.bias,
    }
    for index, layer in enumerate(model.layers):
        attention, mlp, name = layer.self_attn, layer.mlp, f"encoder.layers.{index}"
        for kind in ("weight", "bias"):
            thirds = [getattr(part, kind) for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
            tensors[f"{name}.attn.Wqkv.{kind}"] = torch.cat(thirds)
            tensors[f"{name}.attn.out_proj.{kind}"] = getattr(attention.o_proj, kind)
            tensors[f"{name}.norm1.{kind}"] = getattr(layer.post_attention_layernorm, kind)
            tensors[f"{name}.norm2.{kind}"] = getattr(layer.post_mlp_layernorm, kind)
            if isinstance(mlp, Plain):
                tensors |= {f"{name}.mlp.{part}.{kind}": getattr(getattr(mlp, part), kind) for part in ("fc1", "fc2")}
        if isinstance(mlp, Experts):
            tensors[f"{name}.mlp.router.layer.weight"] = mlp.router.weight
            tensors[f"{name}.mlp.experts.bias"] = mlp.bias
            tensors |= {f"{name}.mlp.experts.mlp.{part}": getattr(mlp, part) for part in ("w1", "w2")}
    changes = old_spelling(folder, activation_function="gelu", num_experts=5, moe_top_k=2, moe_every_n_layers=2)
    wrong = {"hidden_act": "silu", "layer_norm_eps": 0.5, "rope_parameters": {"rope_theta": 7.0}}  # transformers' keys
    compare(write(folder, tensors, **(changes | wrong | {"n_inner": 24})), model, engine)


# Model types that transformers does not have

CASES = {
    **{f"{family} {head}": (family, head, {}) for family in MAKERS for head in read_heads(family)},
    **{name: (family, "trunk", options) for name, (family, options) in OPTIONS.items()},
}


@pytest.mark.parametrize("case", CASES)
def test_nearest_model(tmp_path: Path, case: str) -> None:
    family, head, options = CASES[case]
    pair = MAKERS[family](tmp_path, head, **options)
    assert pair.checkpoint.family == family
    rows, types = random_rows(NEAREST[family], pair.checkpoint.spec.embed.vocab, pair.checkpoint.spec.embed.types)
    theirs = pair.theirs(rows, types)
    for name, engine in every_engine(pair.checkpoint):
        ours = run(engine, STATES.kind if head == "trunk" else head, rows, types, finish="none")
        assert deviation(ours, theirs) < LIMIT, name


def test_jina_v2_has_linear_biases(tmp_path: Path) -> None:
    assert jina_v2(tmp_path).checkpoint.spec.relative == Alibi()


def test_new_with_rms_norms_is_read(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "gte", "trunk")
    _, tensors = saved(folder)
    kept = {name: tensor for name, tensor in tensors.items() if not ("ln" in name.lower() and name.endswith("bias"))}
    checkpoint = write(
        folder,
        {name: tensor for name, tensor in kept.items() if name != "embeddings.LayerNorm.bias"},
        layer_norm_type="rms_norm",
    )
    assert checkpoint.spec.layers[0].norm.kind == "rms"
    assert "layers.0.norm1.bias" not in checkpoint.weights


def test_jina_v2_with_normed_queries_is_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "trunk")
    change_json(folder / "config.json", **JINA | {"_name_or_path": "jinaai/jina-bert-v2-qk-post-norm"})
    assert refused(folder, UnsupportedOption) == (
        "config.json names the code jina-bert-v2-qk-post-norm, which is not implemented"
    )


# Jina v3

TASKS = ["retrieval.query", "retrieval.passage", "separation"]
FLASH = {
    "model_type": "xlm-roberta",
    "architectures": ["XLMRobertaModel"],
    "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"},
    "position_embedding_type": "rotary",
    "rotary_emb_base": 300.0,
    "rope_parameters": None,
}


INSTRUCTIONS = dict.fromkeys(TASKS, "") | {TASKS[1]: "Represent the document for retrieval: "}


def adapted(folder: Path, task: str | None) -> Any:
    """transformers' model with the change for this task merged in; `folder` gets a checkpoint with those for all."""
    theta = {"rope_theta": 300.0, "rope_type": "default"}
    tiny_checkpoint(folder, "jina_embeddings_v3", "trunk", rope_parameters=theta)
    model, tensors = saved(folder)
    generator = torch.Generator().manual_seed(0)
    merged, original = {}, {}
    for name, tensor in tensors.items():
        merged[name], original[f"roberta.{name}"] = tensor, tensor
        if tensor.ndim == 1 or name.startswith("pooler"):
            continue
        table = name.startswith("embeddings.")
        rows, columns = tensor.shape
        a = torch.randn(3, *((rows, 4) if table else (4, columns)), generator=generator)
        b = torch.randn(3, *((4, columns) if table else (rows, 4)), generator=generator)
        if task is not None:
            index = TASKS.index(task)
            merged[name] = tensor + 2 / 4 * (a[index] @ b[index] if table else b[index] @ a[index])
        stem = f"roberta.{name.removesuffix('.weight')}.parametrizations.weight"
        del original[f"roberta.{name}"]
        original |= {f"{stem}.original": tensor, f"{stem}.0.lora_A": a, f"{stem}.0.lora_B": b}
    write(folder, merged)
    model, _ = saved(folder)
    write(folder, original, **FLASH, lora_adaptations=TASKS, lora_alpha=2, lora_rank=4, task_instructions=INSTRUCTIONS)
    return model


@engines
@pytest.mark.parametrize("task", [None, *TASKS[1:]])
def test_jina_v3_adapters(tmp_path: Path, task: str | None, engine: str) -> None:
    """Each of its matrices has a low-rank change for each task; none is used where none is asked for."""
    model = adapted(tmp_path, task)
    checkpoint = load_checkpoint(tmp_path, adapter=task)
    assert checkpoint.family == "jina_embeddings_v3"
    assert checkpoint.prompts == INSTRUCTIONS
    assert checkpoint.default_prompt == task
    unused = f"The adapters for {', '.join(TASKS)} are not used; the setting `adapter` chooses one."
    assert (unused in checkpoint.notes) == (task is None)
    compare(checkpoint, model, engine)
    assert refused(tmp_path, BadSetting, adapter="poetry") == (
        f"adapter is 'poetry', which this model does not have; it has adapters for {', '.join(TASKS)}"
    )


def test_each_model_of_a_server_has_its_own_adapter(tmp_path: Path) -> None:
    adapted(tmp_path / "jina", None)
    bert = tiny_checkpoint(tmp_path / "bert")
    models = {"asked": tmp_path / "jina", "kept": tmp_path / "jina", "bert": bert}
    settings = ModelSettings(adapter=f"asked={TASKS[0]}, kept={TASKS[1]}")
    encoders = load(models, settings, ServerSettings())
    chosen = [encoder.checkpoint.default_prompt for encoder in encoders.values()]
    for encoder in encoders.values():
        encoder.close()
    encoders["bert"].device.close()
    assert chosen == [TASKS[0], TASKS[1], None]


def test_a_task_of_another_adapter_is_refused(tmp_path: Path) -> None:
    adapted(tmp_path, None)
    with Encoder(tmp_path, adapter=TASKS[1]) as encoder, listening(lambda: {"jina": encoder}) as live:
        right = live.http.post("/v1/embeddings", json={"input": "a cat", "task": TASKS[1]})
        assert np.allclose(right.json()["data"][0]["embedding"], encoder.embed("a cat", normalize=True), atol=1e-6)
        wrong = live.http.post("/v1/embeddings", json={"input": "a cat", "task": TASKS[0]})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_input")
        assert "serve the model under a second name with --adapter NAME=retrieval.query" in wrong.json()["detail"]


def test_an_adapter_for_no_model_is_refused() -> None:
    assert of_each(["a", "b"], "adapter", "separation") == {"a": "separation", "b": "separation"}
    with pytest.raises(
        BadSetting, match="^adapter is 'c=separation', of which 'c=separation' is not NAME=VALUE for one"
    ):
        of_each(["a", "b"], "adapter", "c=separation")


def test_an_adapter_of_a_model_that_has_none_is_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "trunk")
    assert refused(folder, BadSetting, adapter="poetry") == (
        "adapter is 'poetry', which this model does not have; it has none; leave the setting out"
    )


@engines
def test_the_same_code_with_learned_positions(tmp_path: Path, engine: str) -> None:
    """Jina's reranker v2: XLM-RoBERTa under the names of v3."""
    folder = tiny_checkpoint(tmp_path, "xlm-roberta", "trunk")
    model, tensors = saved(folder)
    named = {}
    for name, tensor in tensors.items():
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        named[f"roberta.{name}"] = tensor
    for kind in ("weight", "bias"):
        for index in range(2):
            stem = f"roberta.encoder.layers.{index}"
            thirds = [named.pop(f"{stem}.attention.self.{part}.{kind}") for part in ("query", "key", "value")]
            named[f"{stem}.mixer.Wqkv.{kind}"] = torch.cat(thirds)
    checkpoint = write(folder, named, **FLASH | {"position_embedding_type": "absolute"})
    assert checkpoint.spec.max_tokens == 64
    compare(checkpoint, model, engine)


RENAMED = {
    "embeddings.LayerNorm": "emb_ln",
    "encoder.layer.": "encoder.layers.",
    "attention.output.dense": "mixer.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
}


# What is not implemented


@pytest.mark.parametrize(
    ("family", "changes", "sentence"),
    [
        (
            "mobilebert",
            {"normalization_type": "layer_norm"},
            '"layer_norm", which is not implemented; only "no_norm" is',
        ),
        ("deberta", {"talking_head": True}, "true, which is not implemented; only false is"),
        ("deberta-v2", {"pos_att_type": "p2p|c2p"}, "['p2p', 'c2p'], of which only c2p and p2c are known"),
        ("deberta-v2", {"attention_head_size": 5}, "5, which is not implemented; only 8 is"),
        ("gte", {"logn_attention_scale": True}, "true, which is not implemented; only false is"),
        ("gte", {"position_embedding_type": "absolute"}, '"absolute", which is not implemented; only "rope" is'),
        ("nomic_bert", {"prenorm": True}, "true, which is not implemented; only false is"),
        ("nomic_bert", {"rotary_emb_fraction": 0.5}, "0.5, which is not implemented; only 1 is"),
        ("mpnet", {"relative_attention_num_buckets": 64}, "64, which is not implemented; only 32 is"),
        ("modernbert", {"classifier_pooling": "max"}, '"max", which is not implemented; only "cls" or "mean" is'),
    ],
)
def test_options_that_are_refused(tmp_path: Path, family: str, changes: dict[str, Any], sentence: str) -> None:
    head = "classify" if "classifier_pooling" in changes else "trunk"
    folder = tiny_checkpoint(tmp_path, family, head)  # type: ignore[arg-type]
    change_json(folder / "config.json", **changes)
    assert refused(folder, UnsupportedOption) == f"config.json sets {next(iter(changes))} to {sentence}"

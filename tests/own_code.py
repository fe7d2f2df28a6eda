"""Checkpoints of model types that transformers does not have, because their code lies beside their weights.

Each comes with transformers' nearest model, the missing part put in from its paper: GTE's frequencies, Jina's linear
biases and gated feed-forward, a Llama without its mask. Tensors and config.json are spelled as that code spells them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from test_parity import reference
from test_parity_heads import logits
from tiny import AUTO, Family, Head, change_json, redraw, tiny_checkpoint
from torch import nn

from onepass.model.checkpoint import Checkpoint, load_checkpoint
from onepass.model.families import FAMILIES

auto: Any = transformers  # whose from_pretrained carries no types
Tensors = dict[str, torch.Tensor]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """inputs: what the model takes besides ids and types, by the number of tokens."""

    checkpoint: Checkpoint
    model: Any
    inputs: Callable[[int], dict[str, torch.Tensor]] = lambda tokens: {}

    def theirs(self, rows: Sequence[list[int]], types: Sequence[list[int]]) -> list[Floats]:
        """The model's states or logits, [tokens, width], of each row alone."""
        found = []
        for ids, kinds in zip(rows, types, strict=True):
            output = reference(self.model, ids, kinds, **self.inputs(len(ids)))
            found.append(output.last_hidden_state[0].numpy() if "last_hidden_state" in output else logits(output))
        return found


def read_heads(family: Family) -> list[Any]:
    """The trunk and the heads that we read."""
    return ["trunk", *(head for head, reader in FAMILIES[family].heads.items() if callable(reader))]


def saved(folder: Path, head: Head = "trunk") -> tuple[Any, Tensors]:
    """transformers' model in `folder`, and the tensors of its file."""
    kind = "AutoModel" if head == "trunk" else AUTO.get(head, "AutoModelForSequenceClassification")
    model = getattr(auto, kind).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return model, load_file(folder / "model.safetensors")


def write(folder: Path, tensors: Tensors, **config: Any) -> Checkpoint:
    """The folder's checkpoint with these tensors instead, and config.json's keys changed; None removes one."""
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    change_json(folder / "config.json", **config)
    return load_checkpoint(folder)


def architecture(folder: Path, old: str, new: str) -> list[str]:
    """The architecture of config.json under the code's own name."""
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    return [name.replace(old, new)]


def llama_bidirec(folder: Path, head: Head = "trunk", *, scale: float = 1.0) -> Pair:
    """A Llama without its causal mask."""
    tiny_checkpoint(folder, "llama", head, scale=scale)
    config = auto.AutoConfig.from_pretrained(folder)
    config.is_causal = False
    model = auto.AutoModel.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    change_json(
        folder / "config.json",
        model_type="llama_bidirec",
        architectures=["LlamaBidirectionalModel"],
        auto_map={"AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel"},
    )
    return Pair(load_checkpoint(folder), model)


def new(
    folder: Path, head: Head = "trunk", *, packed: bool = True, mixed: float | None = None, scale: float = 1.0
) -> Pair:
    """GTE, its frequencies stretched whatever the length: all alike, or by `mixed`, fast ones less than slow ones.

    packed: queries, keys and values lie in one matrix.
    """
    tiny_checkpoint(folder, "gte", head, scale=scale)
    model, tensors = saved(folder, head)
    steps = torch.arange(4, dtype=torch.float64)
    if mixed is None:
        frequencies = (500_000.0 * 8) ** (-steps / 4) / 8 ** (2 / 8)
    else:
        frequencies = 500_000.0 ** (-steps / 4) / torch.exp(math.log(8) / 4**mixed * (steps + 1) ** mixed)
    model.base_model.rotary_emb.inv_freq = frequencies.float()
    if not packed:
        for name in [name for name in tensors if ".qkv_proj." in name]:
            for letter, third in zip("qkv", tensors.pop(name).chunk(3), strict=True):
                tensors[name.replace("qkv_proj", f"{letter}_proj")] = third
    prefix = "new." if head == "trunk" else ""
    checkpoint = write(
        folder,
        {prefix + name.replace("gte.", "new."): tensor for name, tensor in tensors.items()},
        model_type="new",
        architectures=architecture(folder, "Gte", "New"),
        auto_map={"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
        position_embedding_type="rope",
        layer_norm_type="layer_norm",
        logn_attention_scale=False,
        pack_qkv=packed,
        rope_parameters=None,
        rope_theta=500_000,
        rope_scaling={"type": "ntk", "factor": 8.0} | ({} if mixed is None else {"mixed_b": mixed}),
    )
    return Pair(checkpoint, model)


JINA = {
    "position_embedding_type": "alibi",
    "_name_or_path": "jinaai/jina-bert-implementation",
    "auto_map": {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"},
}
GATES = {"geglu": nn.GELU(), "reglu": nn.ReLU()}


def slopes(heads: int) -> list[float]:
    """Press et al. 2022: 2^(-8 / heads) to its powers; between two powers of two every second one of the next."""
    power = 2 ** math.floor(math.log2(heads))
    own = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    return own + ([] if power == heads else slopes(2 * power)[::2][: heads - power])


class Gated(nn.Module):
    """The first half of one matrix is activated and multiplied by the second."""

    def __init__(self, width: int, inner: int, act: nn.Module) -> None:
        super().__init__()
        self.gated_layers, self.act = nn.Linear(width, 2 * inner, bias=False), act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.gated_layers(x).chunk(2, -1)
        return self.act(first) * second


def jina_v2(folder: Path, head: Head = "trunk", *, kind: str = "geglu", heads: int = 4, scale: float = 1.0) -> Pair:
    """A BERT with linear biases for positions. kind: its feed_forward_type, of which "original" is BERT's own."""
    tiny_checkpoint(folder, "bert", head, scale=scale, hidden_size=48, num_attention_heads=heads)
    model, _ = saved(folder, head)
    trunk = model.base_model
    trunk.embeddings.position_embeddings.weight.data.zero_()
    if kind in GATES:
        for layer in trunk.encoder.layer:
            layer.intermediate = Gated(48, 64, GATES[kind])
            redraw(layer.intermediate, 5, scale)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if kind in GATES:
            name = name.replace("intermediate.gated_layers", "mlp.gated_layers")
            if ".attention." not in name:
                name = name.replace("output.dense", "mlp.wo").replace("output.LayerNorm", "mlp.layernorm")
        tensors[name] = tensor
    del tensors[next(name for name in tensors if name.endswith("position_embeddings.weight"))]
    checkpoint = write(
        folder,
        tensors,
        **JINA,
        architectures=architecture(folder, "Bert", "JinaBert"),
        feed_forward_type=kind,
        max_position_embeddings=8192,
    )

    def biases(tokens: int) -> dict[str, torch.Tensor]:
        """[1, heads, tokens, tokens], added to the scaled scores."""
        places = torch.arange(tokens)
        distances = (places[:, None] - places).abs()
        return {"attention_mask": -torch.tensor(slopes(heads))[None, :, None, None] * distances}

    return Pair(checkpoint, model, biases)


MAKERS: dict[Family, Callable[..., Pair]] = {"llama_bidirec": llama_bidirec, "new": new, "jina_bert_v2": jina_v2}
"""By model_type."""

NEAREST: dict[Family, Family] = {"llama_bidirec": "llama", "new": "gte", "jina_bert_v2": "bert"}

OPTIONS: dict[str, tuple[Family, dict[str, Any]]] = {
    "new apart": ("new", {"packed": False}),
    "new mixed": ("new", {"mixed": 0.625}),
    "jina v2 reglu": ("jina_bert_v2", {"kind": "reglu"}),
    "jina v2 original": ("jina_bert_v2", {"kind": "original"}),
    "jina v2 six heads": ("jina_bert_v2", {"heads": 6}),
}

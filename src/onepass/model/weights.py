"""Tensors under onepass's own names, the same for every family.

    embed.word [vocab, width]            embed.position [rows, ...]      embed.type, embed.task
    embed.norm.weight, .bias             embed.project.weight, .bias
    layers.{g}.attention.query.weight, .bias     also key, value, output (query [heads * head_size, width], ...)
    layers.{g}.norm1.weight, .bias               norm2; a sandwich has norm1_after and norm2_after too
    layers.{g}.ff.up.weight, .bias               down, and gate where gated
    final_norm.weight, .bias
    head tensors: "{head}.{...}", as the head's steps name them, e.g. classify.0.weight, classify.1.bias

Every linear weight is [out, in]; all are float32 and C-contiguous.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from onepass.errors import BadCheckpoint, LeftoverTensor, MissingTensor
from onepass.model.heads import HeadSpec, Linear, Norm, Step, Truncate, Vocabulary
from onepass.model.spec import EncoderSpec, LayerSpec
from onepass.model.tensor_files import StoredTensor

Weights = Mapping[str, NDArray[np.float32]]
Shape = tuple[int, ...]

# Heads that a file may carry although the task at hand does not use them, and buffers that are no parameters.
HEADS = (
    *("pooler.", "cls.", "lm_head.", "predictions.", "sop_classifier.", "classifier.", "pre_classifier."),
    *("qa_outputs.", "discriminator_predictions.", "generator_", "vocab_", "mask_predictions.", "lm_predictions."),
    *("decoder.", "final_logits_bias", "head.", "score."),
)
BUFFERS = (
    *("position_ids", "token_type_ids", "inv_freq", "original_inv_freq", "attn.bias", "attn.masked_bias"),
    *("embed_scale", "embed_positions.weights", "encoder.version", "decoder.version"),
)


def shapes(spec: EncoderSpec) -> dict[str, Shape]:
    """Name and shape of every tensor that a trunk of this spec can have, biases included."""
    embed, width = spec.embed, spec.width
    named: dict[str, Shape] = {"embed.word": (embed.vocab, embed.width)}
    inner = embed.width if embed.project in ("sum", "after") else width
    if embed.positions is not None and not embed.positions.sinusoid:
        named["embed.position"] = (embed.positions.rows, inner)
    if embed.types:
        named["embed.type"] = (embed.types, inner)
    if embed.tasks:
        named["embed.task"] = (embed.tasks, inner)
    if embed.norm is not None:
        named |= _vectors("embed.norm", embed.width if embed.project == "after" else width)
    if embed.project is not None:
        named |= _linear("embed.project", width, embed.width * embed.ngram)
    for layer in dict.fromkeys(spec.layers):
        named |= _layer_shapes(f"layers.{layer.weights}", layer, width)
    if spec.final_norm is not None:
        named |= _vectors("final_norm", width)
    return named


def _layer_shapes(name: str, layer: LayerSpec, width: int) -> dict[str, Shape]:
    attention, feed_forward = layer.attention, layer.feed_forward
    queries, keys = (count * attention.head_size for count in (attention.heads, attention.kv_heads))
    named = _linear(f"{name}.attention.query", queries, width)
    named |= _linear(f"{name}.attention.key", keys, width) | _linear(f"{name}.attention.value", keys, width)
    named |= _linear(f"{name}.attention.output", width, queries)
    norms = ["norm1"] * layer.first_norm + ["norm2"] + ["norm1_after", "norm2_after"] * (layer.place == "sandwich")
    for norm in norms:
        named |= _vectors(f"{name}.{norm}", width)
    for part in ("up", "gate") if feed_forward.kind == "gated" else ("up",):
        named |= _linear(f"{name}.ff.{part}", feed_forward.width, width)
    return named | _linear(f"{name}.ff.down", width, feed_forward.width)


def _linear(name: str, wide_out: int, wide_in: int) -> dict[str, Shape]:
    return {f"{name}.weight": (wide_out, wide_in), f"{name}.bias": (wide_out,)}


def _vectors(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def without_prefix(stored: Mapping[str, StoredTensor], prefixes: tuple[str, ...]) -> dict[str, StoredTensor]:
    """Tensors by the name that a bare trunk would give them; LayerNorm's old gamma and beta become weight and bias."""
    plain: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        short = next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name)
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            short = short.removesuffix(old) + new if short.endswith(old) else short
        if short in plain:
            raise BadCheckpoint(f"{tensor.file} holds both {plain[short].name!r} and {name!r}, which mean one tensor")
        plain[short] = tensor
    return plain


def gather(stored: Mapping[str, StoredTensor], wanted: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
    """Read `wanted` (our name -> name in the file). Raises MissingTensor, LeftoverTensor and BadCheckpoint."""
    missing = [file for file in wanted.values() if file not in stored]
    if missing:
        raise MissingTensor(f"the weights lack {_some(missing)}, which config.json promises")
    leftover = [name for name in stored if not _used_elsewhere(name) and name not in set(wanted.values())]
    if leftover:
        raise LeftoverTensor(f"the weights hold {_some(leftover)}, which config.json does not mention")
    return {name: stored[file].read() for name, file in wanted.items()}


def _used_elsewhere(name: str) -> bool:
    return name.startswith(HEADS) or any(name == buffer or name.endswith("." + buffer) for buffer in BUFFERS)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"tensor {names[0]!r}{more}"


def check(spec: EncoderSpec, heads: Mapping[str, HeadSpec], weights: Weights) -> None:
    """Hold every shape against the spec and the heads. Raises MissingTensor, LeftoverTensor or BadCheckpoint."""
    wanted = shapes(spec)
    for name, shape in wanted.items():
        if name in weights:
            _same(name, weights[name].shape, shape)
        elif not name.endswith(".bias"):
            raise MissingTensor(f"the weights have no tensor {name!r}, which the spec needs")
    for head in heads.values():
        head_width(head, spec.width, weights)
    used = wanted.keys() | {name for head in heads.values() for name in _head_tensors(head)}
    for name in weights:
        if name not in used:
            raise LeftoverTensor(f"the weights have a tensor {name!r}, which neither the spec nor a head uses")


def head_width(head: HeadSpec, width: int, weights: Weights) -> int:
    """Width of the head's rows over a trunk of `width`. Raises BadCheckpoint where one step does not fit the next."""
    for step in head.per_token:
        width = _step_width(step, width, weights)
    width *= len(head.pool.kinds)
    for step in head.per_row:
        width = _step_width(step, width, weights)
    if head.labels and len(head.labels) != width:
        raise BadCheckpoint(f"the classifier has {width} outputs, but config.json names {len(head.labels)} labels")
    return width


def _step_width(step: Step, width: int, weights: Weights) -> int:
    match step:
        case Linear() | Vocabulary():
            out: int = _tensor(weights, step.weight).shape[0]
            _same(step.weight, weights[step.weight].shape, (out, width))
            if step.bias is not None:
                _same(step.bias, _tensor(weights, step.bias).shape, (out,))
            if isinstance(step, Linear) and isinstance(step.residual, str):
                _same(step.residual, _tensor(weights, step.residual).shape, (out, width))
            elif isinstance(step, Linear) and step.residual and out != width:
                raise BadCheckpoint(f"the head adds its input of width {width} to the {out} outputs of {step.weight!r}")
            return out
        case Norm():
            for name in (step.weight, step.bias):
                if name is not None:
                    _same(name, _tensor(weights, name).shape, (width,))
        case Truncate():
            return min(width, step.width)
    return width


def _head_tensors(head: HeadSpec) -> Iterator[str]:
    for step in (*head.per_token, *head.per_row):
        for field in ("weight", "bias", "residual"):
            if isinstance(name := getattr(step, field, None), str):
                yield name


def _tensor(weights: Weights, name: str) -> NDArray[np.float32]:
    if name not in weights:
        raise MissingTensor(f"the weights have no tensor {name!r}, which a head needs")
    return weights[name]


def _same(name: str, shape: Shape, wanted: Shape) -> None:
    if shape != wanted:
        raise BadCheckpoint(f"tensor {name!r} has shape {list(shape)}, but config.json makes it {list(wanted)}")

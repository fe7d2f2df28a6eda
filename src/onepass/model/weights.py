"""Tensors under onepass's own names, the same for every family.

    embed.word [vocab, width]            embed.position [rows, ...]      embed.type, embed.task
    embed.norm.weight, .bias             embed.project.weight, .bias
    layers.{g}.attention.query.weight, .bias     also key, value, output (query [heads * head_size, width], ...)
    layers.{g}.attention.query_norm.weight, .bias            key_norm; of a head, or of the whole row where flat
    layers.{g}.attention.position_key.weight, .bias          position_query; for DeBERTa's relative table
    layers.{g}.attention.distance [buckets, heads]           relative.distance where all layers share it (T5)
    layers.{g}.norm1.weight, .bias               norm2; a sandwich has norm1_after and norm2_after too
    layers.{g}.ff.up.weight, .bias               down, and gate where gated
    layers.{g}.ff.router.weight [experts, width]             up [experts * width, ...] and down [..., experts * width]
    layers.{g}.chain.{k}.up.weight, .bias        down, norm; the feed-forwards before ff in a chain
    layers.{g}.bottleneck.input.weight, .bias    shared, output, and input_norm, shared_norm, output_norm
    relative.table [2 span, width]               relative.norm.weight, .bias
    conv.weight [width, width / groups, kernel]  conv.bias, conv.norm.weight, .bias
    final_norm.weight, .bias
    head tensors: "{head}.{...}", as the head's steps name them, e.g. classify.0.weight, classify.1.bias

Every linear weight is [out, in]; all are float32 and C-contiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepass.errors import BadCheckpoint, LeftoverTensor, MissingTensor
from onepass.model.heads import HeadSpec, Linear, Norm, Step, Truncate, Vocabulary
from onepass.model.spec import AttentionSpec, Disentangled, EmbedSpec, EncoderSpec, LayerSpec, Relative, T5Buckets
from onepass.model.tensor_files import StoredTensor

Weights = Mapping[str, NDArray[np.float32]]
Shape = tuple[int, ...]

# Heads that a file may carry although the task at hand does not use them, and buffers that are no parameters.
HEADS = (
    *("pooler.", "cls.", "lm_head.", "predictions.", "sop_classifier.", "classifier.", "pre_classifier."),
    *("qa_outputs.", "discriminator_predictions.", "generator_", "vocab_", "mask_predictions.", "lm_predictions."),
    *("decoder.", "final_logits_bias", "head.", "score.", "linear."),
)
BUFFERS = (
    *("position_ids", "token_type_ids", "inv_freq", "original_inv_freq", "attn.bias", "attn.masked_bias"),
    *("embed_scale", "embed_positions.weights", "encoder.version", "decoder.version"),
)


def shapes(spec: EncoderSpec) -> dict[str, Shape]:
    """Name and shape of every tensor that a trunk of this spec can have, biases included."""
    width = spec.width
    named = _embed_shapes(spec.embed, width)
    for layer in dict.fromkeys(spec.layers):
        named |= _layer_shapes(f"layers.{layer.weights}", layer, width)
        named |= _relative_shapes(f"layers.{layer.weights}.attention", spec.relative, layer.attention, width)
    if isinstance(spec.relative, Disentangled):
        named["relative.table"] = (2 * spec.relative.span, width)
        if spec.relative.norm is not None:
            named |= _vectors("relative.norm", width)
    if spec.conv is not None:
        named |= {"conv.weight": (width, width // spec.conv.groups, spec.conv.kernel), "conv.bias": (width,)}
        named |= _vectors("conv.norm", width)
    if spec.final_norm is not None:
        named |= _vectors("final_norm", width)
    return named


def _embed_shapes(embed: EmbedSpec, width: int) -> dict[str, Shape]:
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
    return named


def _layer_shapes(name: str, layer: LayerSpec, width: int) -> dict[str, Shape]:
    attention, feed_forward, bottleneck = layer.attention, layer.feed_forward, layer.bottleneck
    queries, keys = (count * attention.head_size for count in (attention.heads, attention.kv_heads))
    inner = width if bottleneck is None else bottleneck.width
    asking = inner if bottleneck is not None and bottleneck.shares != "none" else width
    answering = inner if bottleneck is not None and bottleneck.shares == "all" else width
    named = _linear(f"{name}.attention.query", queries, asking)
    named |= _linear(f"{name}.attention.key", keys, asking) | _linear(f"{name}.attention.value", keys, answering)
    named |= _linear(f"{name}.attention.output", inner, queries)
    if attention.qk_norm is not None:
        flat = attention.qk_norm == "flat"
        named |= _vectors(f"{name}.attention.query_norm", queries if flat else attention.head_size)
        named |= _vectors(f"{name}.attention.key_norm", keys if flat else attention.head_size)
    norms = ["norm1"] * layer.first_norm + ["norm2"] + ["norm1_after", "norm2_after"] * (layer.place == "sandwich")
    for norm in norms:
        named |= _vectors(f"{name}.{norm}", inner)
    for link in range(feed_forward.chain - 1):
        named |= _linear(f"{name}.chain.{link}.up", feed_forward.width, inner)
        named |= _linear(f"{name}.chain.{link}.down", inner, feed_forward.width)
        named |= _vectors(f"{name}.chain.{link}.norm", inner)
    hidden = feed_forward.width * max(feed_forward.experts, 1)
    if feed_forward.kind == "experts":
        named |= {f"{name}.ff.router.weight": (feed_forward.experts, inner)}
    for part in ("up", "gate") if feed_forward.kind == "gated" else ("up",):
        named |= _linear(f"{name}.ff.{part}", hidden, inner)
    named |= _linear(f"{name}.ff.down", inner, hidden)
    if bottleneck is not None:
        for part in ("input", "shared") if bottleneck.shares == "query_key" else ("input",):
            named |= _linear(f"{name}.bottleneck.{part}", inner, width)
            named |= _vectors(f"{name}.bottleneck.{part}_norm", inner)
        named |= _linear(f"{name}.bottleneck.output", width, inner)
        named |= _vectors(f"{name}.bottleneck.output_norm", width)
    return named


def _relative_shapes(name: str, relative: Relative | None, attention: AttentionSpec, width: int) -> dict[str, Shape]:
    match relative:
        case T5Buckets(per_layer=True):
            return {f"{name}.distance": (relative.buckets, attention.heads)}
        case T5Buckets():
            return {"relative.distance": (relative.buckets, attention.heads)}
        case Disentangled():
            keys = attention.heads * attention.head_size
            named = _linear(f"{name}.position_key", keys, width) if relative.content_to_position else {}
            return named | (_linear(f"{name}.position_query", keys, width) if relative.position_to_content else {})
    return {}


def _linear(name: str, wide_out: int, wide_in: int) -> dict[str, Shape]:
    return {f"{name}.weight": (wide_out, wide_in), f"{name}.bias": (wide_out,)}


def _vectors(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def without_prefix(stored: Mapping[str, StoredTensor], prefixes: tuple[str, ...]) -> dict[str, StoredTensor]:
    """Tensors by the name that a bare trunk would give them.

    LayerNorm's old gamma and beta become weight and bias, and a matrix that torch keeps beside its adapters (Jina's
    LoRA) is called by its plain name.
    """
    plain: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        short = next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name)
        for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
            short = short.removesuffix(old) + new if short.endswith(old) else short
        short = short.replace(".parametrizations.weight.original", ".weight")
        if short in plain:
            raise BadCheckpoint(f"{tensor.file} holds both {plain[short].name!r} and {name!r}, which mean one tensor")
        plain[short] = tensor
    return plain


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor made of tensors of the file: make(spec, *arrays), float32 in and out, in the order of `files`."""

    files: tuple[str, ...]
    make: Callable[..., NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class OneOf:
    """Whichever of these names the file has, the first that fits; the others may be there, too."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IfThere:
    """A tensor that a file may lack: a bias."""

    source: str | Made


Source = str | Made | OneOf | IfThere
"""Where one of our tensors comes from; a str is its name in the file."""


def files_of(source: Source) -> tuple[str, ...]:
    match source:
        case str():
            return (source,)
        case IfThere():
            return files_of(source.source)
    return source.files


def renamed(source: Source, rename: Callable[[str], str]) -> Source:
    """The same with every name in the file changed."""
    match source:
        case str():
            return rename(source)
        case Made():
            return Made(tuple(map(rename, source.files)), source.make)
        case OneOf():
            return OneOf(tuple(map(rename, source.files)))
        case IfThere():
            inner = renamed(source.source, rename)
            assert isinstance(inner, str | Made)
            return IfThere(inner)


def gather(
    stored: Mapping[str, StoredTensor],
    wanted: Mapping[str, Source],
    spec: EncoderSpec | None = None,
    unread: tuple[str, ...] = (),
) -> dict[str, NDArray[np.float32]]:
    """Read `wanted` (our name -> where it comes from). Raises MissingTensor, LeftoverTensor and BadCheckpoint.

    Names that come from the same tensor of the file share its memory.  unread: parts of names that may be left over.
    """
    there = {name: source for name, source in wanted.items() if not _lacks(stored, source)}
    missing = [file for source in there.values() for file in _needed(stored, source) if file not in stored]
    if missing:
        raise MissingTensor(f"the weights lack {_some(missing)}, which config.json promises")
    used = {file for source in wanted.values() for file in files_of(source)}
    leftover = [name for name in stored if name not in used and not _used_elsewhere(name, unread)]
    if leftover:
        raise LeftoverTensor(f"the weights hold {_some(leftover)}, which config.json does not mention")
    whole: dict[str, NDArray[np.float32]] = {}
    return {name: _read(stored, source, spec, whole) for name, source in there.items()}


def has_all(stored: Mapping[str, StoredTensor], wanted: Mapping[str, Source]) -> bool:
    """Whether the file has what `gather` would read."""
    needed = [source for source in wanted.values() if not _lacks(stored, source)]
    return all(file in stored for source in needed for file in _needed(stored, source))


def _lacks(stored: Mapping[str, StoredTensor], source: Source) -> bool:
    return isinstance(source, IfThere) and not any(file in stored for file in files_of(source))


def _needed(stored: Mapping[str, StoredTensor], source: Source) -> tuple[str, ...]:
    if isinstance(source, OneOf):
        return (next((file for file in source.files if file in stored), source.files[0]),)
    return files_of(source)


def _read(
    stored: Mapping[str, StoredTensor],
    source: Source,
    spec: EncoderSpec | None,
    whole: dict[str, NDArray[np.float32]],
) -> NDArray[np.float32]:
    arrays = []
    for file in _needed(stored, source):
        if file not in whole:
            whole[file] = stored[file].read()
        arrays.append(whole[file])
    if isinstance(source, IfThere):
        source = source.source
    if not isinstance(source, Made):
        return arrays[0]
    try:
        made = np.ascontiguousarray(source.make(spec, *arrays), dtype=np.float32)
    except (ValueError, IndexError) as error:
        names = ", ".join(repr(file) for file in source.files)
        raise BadCheckpoint(f"tensor {names} has a shape that config.json does not allow ({error})") from error
    made.flags.writeable = False
    return made


def _used_elsewhere(name: str, unread: tuple[str, ...]) -> bool:
    if name.startswith(HEADS) or any(part in name for part in unread):
        return True
    return any(name == buffer or name.endswith("." + buffer) for buffer in BUFFERS)


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
        for step in (*head.per_token, *head.per_row):
            if isinstance(step, Vocabulary):
                _same(step.weight, weights[step.weight].shape, (spec.embed.vocab, weights[step.weight].shape[1]))
    used = wanted.keys() | {name for head in heads.values() for name in tensors_of_head(head)}
    for name in weights:
        if name not in used:
            raise LeftoverTensor(f"the weights have a tensor {name!r}, which neither the spec nor a head uses")


def head_width(head: HeadSpec, width: int, weights: Weights) -> int:
    """Width of the head's rows over a trunk of `width`. Raises BadCheckpoint where one step does not fit the next."""
    for step in head.per_token:
        width = _step_width(step, width, weights)
    width *= sum(2 if kind == "spans" else 1 for kind in head.pool.kinds)
    for step in head.per_row:
        width = _step_width(step, width, weights)
    if head.labels and len(head.labels) != width:
        raise BadCheckpoint(f"the {head.kind} head has {width} outputs, but {len(head.labels)} labels are named")
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


def tensors_of_head(head: HeadSpec) -> Iterator[str]:
    """Names of the tensors that the head's steps read."""
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

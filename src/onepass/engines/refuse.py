"""What an engine does not run, refused by name before any weight is packed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from onepass.errors import UnsupportedOption
from onepass.model.heads import SEVERAL, HeadSpec
from onepass.model.positions import OPTIONS
from onepass.model.spec import Disentangled, EncoderSpec, LayerSpec, Relative, RopeSpec, T5Buckets


def refuse(engine: str, *options: Iterable[str]) -> None:
    """Raises UnsupportedOption that names all `options`, if there are any."""
    named = list(dict.fromkeys(chain(*options)))
    if named:
        raise UnsupportedOption(f"the {engine} engine does not run {', '.join(named)}; serve a model without it")


def meaningless(spec: EncoderSpec, heads: Mapping[str, HeadSpec]) -> Iterator[str]:
    """Options that say nothing beside each other, in any engine."""
    embed = spec.embed
    if embed.ngram != 1 and (embed.ngram, embed.project) != (3, "word"):
        yield f"embed.ngram={embed.ngram} with embed.project={embed.project}"
    for index, rope in enumerate(spec.ropes):
        yield from _meaningless_rope(rope)
        if all(layer.attention.rope != index for layer in spec.layers):
            yield f"ropes.{index}, which no layer names"
    yield from _meaningless_relative(spec.relative)
    if len({layer.weights for layer in spec.layers}) != len(set(spec.layers)):
        yield "different layers over the same layer.weights"
    for layer in dict.fromkeys(spec.layers):
        yield from _meaningless_layer(spec, layer)
    for head in heads.values():
        yield from _meaningless_head(head)


def _meaningless_rope(rope: RopeSpec) -> Iterator[str]:
    options = sorted(name for name, _ in rope.options)
    needed = sorted(OPTIONS[rope.scaling])
    if options != needed and not (rope.scaling == "ntk" and options == [*needed, "mixed_b"]):
        yield f"rope.scaling={rope.scaling} with options {', '.join(options) or 'none'}"
    for name, value in rope.options:
        if isinstance(value, tuple) and len(value) != rope.size // 2:
            yield f"rope.size={rope.size} with {len(value)} numbers of {name}"


def _meaningless_relative(relative: Relative | None) -> Iterator[str]:
    match relative:
        case T5Buckets(buckets, furthest) if buckets < 4 or furthest <= buckets // 4:
            yield f"relative.buckets={buckets} with relative.max_distance={furthest}"
        case Disentangled(buckets=0, max_distance=furthest, span=span) if furthest != span:
            yield f"relative.max_distance={furthest} with relative.span={span} and no buckets"
        case Disentangled(buckets=buckets, max_distance=furthest) if buckets and not 1 <= buckets // 2 < furthest - 1:
            yield f"relative.buckets={buckets} with relative.max_distance={furthest}"


def _meaningless_layer(spec: EncoderSpec, layer: LayerSpec) -> Iterator[str]:
    attention, feed_forward = layer.attention, layer.feed_forward
    if (layer.place == "bottleneck") != (layer.bottleneck is not None):
        yield f"layer.place={layer.place} with layer.bottleneck={layer.bottleneck}"
    if attention.heads % attention.kv_heads:
        yield f"attention.heads={attention.heads} with attention.kv_heads={attention.kv_heads}"
    if attention.rope is not None and not 0 <= attention.rope < len(spec.ropes):
        yield f"attention.rope={attention.rope} with {len(spec.ropes)} ropes"
    elif attention.rope is not None and not _fits(spec.ropes[attention.rope].size, attention.head_size):
        yield f"rope.size={spec.ropes[attention.rope].size} with attention.head_size={attention.head_size}"
    if not _possible(feed_forward.kind == "experts", feed_forward.experts, feed_forward.top):
        yield f"feed_forward.kind={feed_forward.kind} with {feed_forward.experts} experts, top {feed_forward.top}"
    if feed_forward.chain != 1 and layer.place not in ("post", "bottleneck"):
        yield f"feed_forward.chain={feed_forward.chain} with layer.place={layer.place}"


def _meaningless_head(head: HeadSpec) -> Iterator[str]:
    kinds, without = " and ".join(head.pool.kinds), head.pool.without
    several = SEVERAL.intersection(head.pool.kinds)
    if several and len(head.pool.kinds) > 1:
        yield f"head pooling {' and '.join(sorted(several))} beside another"
    if several and head.sparse:
        yield f"head pooling {kinds} and sparse"
    if without and "max_by_token" not in several:
        yield f"head pooling {kinds} without {len(without)} ids"
    if list(without) != sorted({*without}):
        yield "head pooling without ids that do not rise"


def _fits(size: int, head_size: int) -> bool:
    return 2 <= size <= head_size and size % 2 == 0


def _possible(mixed: bool, experts: int, top: int) -> bool:
    return 1 <= top <= experts if mixed else experts == top == 0


def not_run(spec: EncoderSpec) -> Iterator[str]:
    """Options that make sense and that no engine here runs."""
    if any(layer.attention.conv_kernel is not None for layer in spec.layers):
        yield "attention.conv_kernel"

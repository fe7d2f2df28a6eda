"""What an engine does not run, refused by name before any weight is packed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from onepass.errors import UnsupportedOption
from onepass.model.heads import HeadSpec, Norm, Vocabulary
from onepass.model.spec import EncoderSpec, LayerSpec, NormSpec

SEVERAL = {"tokens", "spans", "max_by_token"}
"""Poolings that give more than one row."""


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
    for layer in dict.fromkeys(spec.layers):
        yield from _meaningless_layer(spec, layer)
    for head in heads.values():
        several = SEVERAL.intersection(head.pool.kinds)
        if several and len(head.pool.kinds) > 1:
            yield f"head pooling {' and '.join(sorted(several))} beside another"


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


def _fits(size: int, head_size: int) -> bool:
    return 2 <= size <= head_size and size % 2 == 0


def _possible(mixed: bool, experts: int, top: int) -> bool:
    return 1 <= top <= experts if mixed else experts == top == 0


POOLS = {"first", "last", "last_not_pad", "mean", "max", "mean_sqrt", "weighted_mean", "tokens"}


def not_native(spec: EncoderSpec, heads: Mapping[str, HeadSpec]) -> Iterator[str]:
    """What the native engine does not run yet."""
    yield from _trunk(spec)
    yield from _heads(heads.values())


def _trunk(spec: EncoderSpec) -> Iterator[str]:
    embed = spec.embed
    if embed.ngram != 1:
        yield f"embed.ngram={embed.ngram}"
    if embed.project not in (None, "after"):
        yield f"embed.project={embed.project}"
    if embed.tasks:
        yield f"embed.tasks={embed.tasks}"
    if embed.positions is not None and embed.positions.sinusoid:
        yield "embed.positions.sinusoid"
    if spec.ropes:
        yield "ropes"
    if spec.relative is not None:
        yield f"relative={type(spec.relative).__name__}"
    if spec.conv is not None:
        yield "conv"
    if spec.final_norm is not None:
        yield "final_norm"
    yield from _norm("embed.norm", embed.norm)
    for layer in dict.fromkeys(spec.layers):
        yield from _layer(layer)


def _layer(layer: LayerSpec) -> Iterator[str]:
    attention, feed_forward = layer.attention, layer.feed_forward
    if layer.place != "post":
        yield f"layer.place={layer.place}"
    if not layer.first_norm:
        yield "layer.first_norm=False"
    if layer.bottleneck is not None:
        yield "layer.bottleneck"
    for option in ("radius", "rope", "softcap", "qk_norm", "conv_kernel"):
        if getattr(attention, option) is not None:
            yield f"attention.{option}"
    if attention.causal:
        yield "attention.causal"
    if attention.kv_heads != attention.heads:
        yield "attention.kv_heads"
    if feed_forward.kind != "plain":
        yield f"feed_forward.kind={feed_forward.kind}"
    if feed_forward.chain != 1:
        yield "feed_forward.chain"
    yield from _norm("layer.norm", layer.norm)


def _norm(place: str, norm: NormSpec | None) -> Iterator[str]:
    if norm is not None and norm.kind != "layer":
        yield f"{place}.kind={norm.kind}"


def _heads(heads: Iterable[HeadSpec]) -> Iterator[str]:
    for head in heads:
        if head.sparse:
            yield "head sparse"
        for kind in head.pool.kinds:
            if kind not in POOLS:
                yield f"head pooling {kind}"
        for step in (*head.per_token, *head.per_row):
            if isinstance(step, Vocabulary):
                yield "head step Vocabulary"
            if isinstance(step, Norm):
                yield from _norm("head step Norm", step.spec)

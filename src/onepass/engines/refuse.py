"""What the engines do not run yet, refused by name before any weight is packed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from onepass.errors import UnsupportedOption
from onepass.model.heads import HeadSpec, Norm, Vocabulary
from onepass.model.spec import EncoderSpec, LayerSpec, NormSpec

POOLS = {"first", "last", "last_not_pad", "mean", "max", "mean_sqrt", "weighted_mean", "tokens"}


def refuse(spec: EncoderSpec, heads: Mapping[str, HeadSpec]) -> None:
    """Raises UnsupportedOption that names every option of the spec and its heads that no engine here runs."""
    options = list(dict.fromkeys((*_trunk(spec), *_heads(heads.values()))))
    if options:
        raise UnsupportedOption(f"the engines do not run {', '.join(options)} yet; serve a model without it")


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
    if feed_forward.kind != "plain" or feed_forward.experts or feed_forward.top:
        yield f"feed_forward.kind={feed_forward.kind}"
    if feed_forward.chain != 1:
        yield "feed_forward.chain"
    yield from _norm("layer.norm", layer.norm)


def _norm(place: str, norm: NormSpec | None) -> Iterator[str]:
    if norm is not None and norm.kind != "layer":
        yield f"{place}.kind={norm.kind}"


def _heads(heads: Iterable[HeadSpec]) -> Iterator[str]:
    for head in heads:
        for kind in head.pool.kinds:
            if kind not in POOLS:
                yield f"head pooling {kind}"
            elif kind == "tokens" and len(head.pool.kinds) > 1:
                yield "head pooling tokens beside another"
        for step in (*head.per_token, *head.per_row):
            if isinstance(step, Vocabulary):
                yield "head step Vocabulary"
            if isinstance(step, Norm):
                yield from _norm("head step Norm", step.spec)

"""A spec in words: what a reader of the paper would say of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

from onepass.model.spec import (
    Alibi,
    AttentionSpec,
    Disentangled,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    NormSpec,
    PositionSpec,
    RopeSpec,
    T5Buckets,
)

Option = TypeVar("Option")

NORMS = {"layer": "layer norm", "rms": "RMS norm", "rms1": "RMS norm (times 1 + w)", "affine": "affine norm"}
PLACES = {
    "post": "norm after",
    "pre": "norm before",
    "sandwich": "norm before and after",
    "bottleneck": "a bottleneck in each, norm after",
}
BOTTLENECKS = {
    "all": "which attention reads",
    "query_key": "queries and keys read a second one like it",
    "none": "attention reads what is before it",
}
PROJECTIONS = {
    "word": "widened to {} at once",
    "sum": "widened to {} before the norm",
    "after": "widened to {} after the norm",
}
ACTIVATIONS = {"gelu_tanh": "gelu (tanh form)", "quick_gelu": "quick gelu", "gelu_clipped": "gelu clipped to +-10"}


def in_words(spec: EncoderSpec) -> dict[str, str]:
    """Sentences by what they are about: embeddings, layers, attention, feed-forward, and output where there is more."""
    attention = by_layer([layer.attention for layer in spec.layers], lambda item: _sight(item, spec))
    said = {
        "embeddings": _embeddings(spec.embed, spec.width),
        "layers": _layers(spec),
        "attention": f"{_heads(spec.layers[0].attention)}; {attention}",
        "feed-forward": by_layer([layer.feed_forward for layer in spec.layers], _feed_forward),
    }
    output = [f"a convolution over {spec.conv.kernel} tokens beside layer 0"] if spec.conv is not None else []
    output += [f"a final {_norm(spec.final_norm)}"] if spec.final_norm is not None else []
    output += [f"rows of up to {spec.max_tokens} tokens"] if spec.max_tokens is not None else []
    return said | ({"output": ", ".join(output)} if output else {})


def by_layer(options: Sequence[Option], say: Callable[[Option], str]) -> str:
    """What is said of the options, and of which layers where they are not all the same."""
    said = [say(option) for option in options]
    kinds = list(dict.fromkeys(said))
    if len(kinds) == 1:
        return kinds[0]
    places = [[index for index, words in enumerate(said) if words == kind] for kind in kinds]
    places_and_kinds = sorted(zip(places, kinds, strict=True), key=lambda pair: len(pair[0]))
    *few, (_, rest) = places_and_kinds
    return "; ".join([*(f"{which(layers, len(said))}: {kind}" for layers, kind in few), f"the others: {rest}"])


def which(layers: Sequence[int], count: int) -> str:
    """Some of `count` layers: "every third layer", "layers 4 to 7", "layers 1, 5 and 6"."""
    first, step = layers[0], (layers[1] - layers[0] if len(layers) > 1 else 0)
    if len(layers) > 1 and step > 1 and list(layers) == list(range(first, count, step)):
        ordinals = {2: "second", 3: "third"}
        return f"every {ordinals.get(step, f'{step}th')} layer" + (f" from layer {first} on" if first else "")
    runs = [[index for _, index in run] for _, run in groupby(enumerate(layers), lambda pair: pair[1] - pair[0])]
    parts = [part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    joined = ", ".join(parts[:-1]) + (" and " if parts[1:] else "") + parts[-1]
    return f"layer{'s' if len(layers) > 1 else ''} {joined}"


def _embeddings(embed: EmbedSpec, width: int) -> str:
    parts = [f"{embed.vocab} words of {embed.width}"]
    if embed.scale != 1:
        parts[0] += f", times {_number(embed.scale)}"
    if embed.ngram != 1:
        parts.append("each beside its two neighbours")
    if embed.project is not None:
        parts.append(PROJECTIONS[embed.project].format(width))
    if embed.positions is not None:
        parts.append(_positions(embed.positions))
    if embed.types:
        parts.append(f"{embed.types} token type{'s' if embed.types > 1 else ''}")
    if embed.tasks:
        parts.append("one of the tasks")
    if embed.norm is not None:
        parts.append(_norm(embed.norm))
    return ", ".join(parts)


def _positions(positions: PositionSpec) -> str:
    kind = "sinusoids for positions" if positions.sinusoid else "learned positions"
    counted = ", counted from the pad id on" if positions.rule == "after_pad" else ""
    return f"{kind} up to {positions.usable}{counted}"


def _layers(spec: EncoderSpec) -> str:
    layer = spec.layers[0]
    count, groups = len(spec.layers), len({layer.weights for layer in spec.layers})
    parts = [f"{count} of width {spec.width}"]
    if groups < count:
        parts[0] += f" over {groups} set{'s' if groups > 1 else ''} of weights"
    parts.append(f"{PLACES[layer.place]}: {_norm(layer.norm)}")
    if layer.bottleneck is not None:
        parts.append(f"{layer.bottleneck.width} wide within, {BOTTLENECKS[layer.bottleneck.shares]}")
    without = [index for index, layer in enumerate(spec.layers) if not layer.first_norm]
    if without:
        parts.append(f"no norm before attention in {which(without, count)}")
    return ", ".join(parts)


def _heads(attention: AttentionSpec) -> str:
    words = f"{attention.heads} head{'s' if attention.heads > 1 else ''} of {attention.head_size}"
    if attention.kv_heads != attention.heads:
        words += f" over {attention.kv_heads} for keys and values"
    if attention.qk_norm is not None:
        words += ", queries and keys normed" + (" over all heads" if attention.qk_norm == "flat" else "")
    return words


def _sight(attention: AttentionSpec, spec: EncoderSpec) -> str:
    """What a token sees, and how it knows where that is."""
    if attention.radius is None:
        sees = "all tokens before it" if attention.causal else "all tokens"
    else:
        sees = f"{attention.radius} tokens {'before it' if attention.causal else 'to each side'}"
    parts = [f"a token sees {sees}"]
    if attention.rope is not None:
        parts.append(_rope(spec.ropes[attention.rope], attention.head_size))
    match spec.relative:
        case T5Buckets(buckets, furthest, per_layer):
            tables = " in each layer" if per_layer else ""
            parts.append(f"a learned bias{tables} for {buckets} buckets of distances up to {furthest}")
        case Alibi():
            parts.append("a bias that falls with the distance (ALiBi)")
        case Disentangled() as relative:
            parts.append(_disentangled(relative))
    usual = attention.head_size**-0.5
    if abs(attention.scale - usual) > 1e-6 * usual:
        parts.append(f"scores times {_number(attention.scale)}")
    if attention.softcap is not None:
        parts.append(f"capped at {_number(attention.softcap)}")
    return ", ".join(parts)


def _rope(rope: RopeSpec, head_size: int) -> str:
    scaling = "" if rope.scaling == "none" else f", {rope.scaling} scaling"
    size = "" if rope.size == head_size else f", {rope.size} of each head"
    return f"rotary (theta {_number(rope.theta)}{size}{scaling})"


def _disentangled(relative: Disentangled) -> str:
    ways = {
        "content to position": relative.content_to_position,
        "position to content": relative.position_to_content,
    }
    known = " and ".join(way for way, there in ways.items() if there)
    span = f"{relative.buckets} buckets for {relative.max_distance}" if relative.buckets else str(relative.span)
    return f"disentangled distances, {known or 'unused'}, {span} to each side"


def _feed_forward(feed_forward: FeedForwardSpec) -> str:
    activation = ACTIVATIONS.get(feed_forward.activation, feed_forward.activation)
    match feed_forward.kind:
        case "plain":
            words = f"{feed_forward.width} wide, {activation}"
        case "gated":
            words = f"gated, {feed_forward.width} wide, {activation}"
        case "experts":
            words = f"{feed_forward.top} of {feed_forward.experts} experts, {feed_forward.width} wide, {activation}"
    return words + (f", {feed_forward.chain} in a row" if feed_forward.chain > 1 else "")


def _norm(norm: NormSpec) -> str:
    return NORMS[norm.kind] + ("" if norm.kind == "affine" else f" of eps {norm.eps:g}")


def _number(value: float) -> str:
    return f"{value:.6g}" if value < 1e6 else f"{value:.0f}"

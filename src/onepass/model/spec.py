"""What an encoder is, as data: one block with options, described by frozen dataclasses that every engine can run.

A spec holds no tensors and no arithmetic. A family file (families/*.py) turns a config.json into an `EncoderSpec`; an
engine runs the options it knows and refuses the others by name. A bias is no option: it is there if its tensor is.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

ActivationKind = Literal[
    "gelu",  # 0.5 x (1 + erf(x / sqrt 2)), exact
    "gelu_tanh",  # 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
    "quick_gelu",  # x sigmoid(1.702 x)
    "gelu_clipped",  # exact gelu clipped to +-10
    "silu",
    "relu",
    "relu2",
    "tanh",
    "sigmoid",
    "relu_log1p",  # log(1 + max(x, 0)), SPLADE's saturation
]


@dataclass(frozen=True, slots=True)
class NormSpec:
    """One normalisation of a vector x of the model's width.

    layer: (x - mean) / sqrt(var + eps) * w + b, population variance.  rms: x / sqrt(mean(x^2) + eps) * w.
    rms1: the same, times (1 + w) (Gemma).  affine: x * w + b, no statistics (MobileBERT).
    """

    kind: Literal["layer", "rms", "rms1", "affine"]
    eps: float


@dataclass(frozen=True, slots=True)
class PositionSpec:
    """Absolute positions, added to the word vectors as rows of a table.

    arange: token t reads row t + start (BERT 0, BART 2).
    after_pad: token t reads row start + (number of ids != start among ids 0..t), or row `start` where its own id is
    `start`; `start` is the pad id (RoBERTa). It looks at ids, not at a mask.
    sinusoid: the table is computed, not stored (M2M); positions.sinusoids makes it.
    """

    rule: Literal["arange", "after_pad"]
    start: int
    rows: int
    sinusoid: bool = False

    @property
    def usable(self) -> int:
        """The longest row, in tokens, for which every position has a table row."""
        return self.rows - self.start - (1 if self.rule == "after_pad" else 0)


@dataclass(frozen=True, slots=True)
class EmbedSpec:
    """From token ids to the first hidden state.

    width: of the word table; where it differs from the model's, `project` says at which of three places a linear
    layer widens it: "word" (before anything is added), "sum" (before the norm), "after" (after the norm).
    ngram 3: row t becomes [w(t+1), w(t), w(t-1)] inside its sequence (MobileBERT).
    types, tasks: rows of those tables; a table that exists is always added, row 0 where no type is given.
    """

    vocab: int
    width: int
    norm: NormSpec | None
    positions: PositionSpec | None = None
    types: int = 0
    tasks: int = 0
    scale: float = 1.0
    ngram: int = 1
    project: Literal["word", "sum", "after"] | None = None


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary positions in the half-split form, on the first `size` dimensions of a head.

    `options` are the scaling's numbers by config name; model/positions.py says what each scaling makes of them.
    factor multiplies cosines and sines (yarn, longrope).
    """

    size: int
    theta: float
    scaling: Literal["none", "linear", "llama3", "yarn", "longrope", "dynamic", "ntk"] = "none"
    factor: float = 1.0
    options: tuple[tuple[str, float | tuple[float, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """score = scale * (q . k) + bias, softmax in float32, times v. Query head h reads kv head h // (heads / kv_heads).

    radius: inclusive window: token i sees j iff |i - j| <= radius (causal: 0 <= i - j <= radius); None sees all.
    rope: index into `EncoderSpec.ropes`, or None.  softcap c: score becomes c tanh(score / c).
    qk_norm: "head" normalises each head of q and k (Qwen3), "flat" the whole projected row (Jina code).
    conv_kernel: ConvBERT's convolution heads beside the attention heads.
    """

    heads: int
    head_size: int
    scale: float
    kv_heads: int
    causal: bool = False
    radius: int | None = None
    rope: int | None = None
    softcap: float | None = None
    qk_norm: Literal["head", "flat"] | None = None
    conv_kernel: int | None = None


@dataclass(frozen=True, slots=True)
class FeedForwardSpec:
    """plain: down act(up x).  gated: down (act(gate x) * up x).

    experts: `experts` plain ones of `width` side by side, of which a token takes the `top` by the router, each weighted
    by the router's softmax over all of them, not renormalised (Nomic).
    chain: how many feed-forwards follow one another; all but the last have a residual and a norm of their own
    (MobileBERT).
    """

    kind: Literal["plain", "gated", "experts"]
    width: int
    activation: ActivationKind
    chain: int = 1
    experts: int = 0
    top: int = 0


@dataclass(frozen=True, slots=True)
class BottleneckSpec:
    """MobileBERT's: attention and feed-forwards work at `width`, on u = N(input h), and h = N(output b + h) at the end.

    shares: queries, keys and values read u ("all"); queries and keys read N(shared h), values h ("query_key"); all
    read h ("none").
    """

    width: int
    shares: Literal["all", "query_key", "none"]


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer; most layers of a model are one shared object.

    post: h = N1(h + A(h)), h = N2(h + F(h)).  pre: h = h + A(N1 h), h = h + F(N2 h).
    sandwich: h = h + N1b(A(N1 h)), h = h + N2b(F(N2 h)).
    bottleneck: u as BottleneckSpec says, a = N1(A + u), a = Nk(Fk(a) + a) for each of the chain but the last,
    b = N2(F(a) + a), and h from b; the norms have their names in model/weights.py.
    weights: index of the tensor group this layer reads (ALBERT repeats one).  first_norm: whether N1 exists.
    """

    weights: int
    place: Literal["post", "pre", "sandwich", "bottleneck"]
    norm: NormSpec
    attention: AttentionSpec
    feed_forward: FeedForwardSpec
    first_norm: bool = True
    bottleneck: BottleneckSpec | None = None


@dataclass(frozen=True, slots=True)
class T5Buckets:
    """A learned bias per head and bucket of the signed distance, not scaled; one table, or one per layer (UMT5)."""

    buckets: int
    max_distance: int
    per_layer: bool = False


@dataclass(frozen=True, slots=True)
class Alibi:
    """bias = -slope of the head * |i - j|, added after scaling."""


@dataclass(frozen=True, slots=True)
class Disentangled:
    """DeBERTa's content-to-position and position-to-content scores over relative indices clipped to +-span.

    With delta = i - j and idx = clip(bucket(delta) + span, 0, 2 span - 1), the score of token i for token j is
    scale (q_i . k_j + [content_to_position] q_i . PK[idx] + [position_to_content] k_j . PQ[idx]), where PK and PQ are
    the relative table (after `norm`) through the layer's position_key and position_query.
    buckets: log buckets, or 0 for plain distances.  norm: of the relative table, or None.
    """

    span: int
    max_distance: int
    buckets: int
    content_to_position: bool
    position_to_content: bool
    norm: NormSpec | None = None


Relative = T5Buckets | Alibi | Disentangled


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """DeBERTa v2's convolution over the embedding output, joined after layer 0."""

    kernel: int
    groups: int
    activation: ActivationKind
    norm: NormSpec


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """The trunk: token ids to one hidden state of `width` per token.

    max_tokens: the longest row the positions allow, or None where nothing limits it.
    """

    width: int
    embed: EmbedSpec
    layers: tuple[LayerSpec, ...]
    ropes: tuple[RopeSpec, ...] = ()
    relative: Relative | None = None
    conv: ConvSpec | None = None
    final_norm: NormSpec | None = None
    max_tokens: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values only; `relative` carries its class name under "kind"."""
        plain = dataclasses.asdict(self)
        if self.relative is not None:
            plain["relative"] = {"kind": type(self.relative).__name__} | plain["relative"]
        return plain

    def as_json(self) -> str:
        return json.dumps(self.as_dict())

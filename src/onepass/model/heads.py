"""What is read from an encoder, as data: steps per token, a pooling, steps per row, a finish.

A head names the tensors it needs; they lie beside the trunk's in the checkpoint's weights. The pooling may stand in the
middle of the chain: SPLADE pools after a non-linear step per token, a BERT classifier before its first step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onepass.model.spec import ActivationKind, NormSpec

PoolKind = Literal[
    "first",
    "last",
    "last_not_pad",  # the last token whose id is not the pad id
    "mean",
    "sum",
    "max",
    "mean_sqrt",  # sum / sqrt(n)
    "weighted_mean",  # sum (t + 1) x_t / sum (t + 1)
    "tokens",  # every token, or the read's positions: one output row each
    "spans",  # [first state, last state] of each of the read's spans: one output row each
    "max_by_token",  # the maximum per distinct token id: one output row each, by rising id
]
SEVERAL: frozenset[PoolKind] = frozenset({"tokens", "spans", "max_by_token"})
"""Poolings that give more than one row."""
Finish = Literal["none", "l2", "softmax", "sigmoid"]
Joining = Literal["simple", "first", "average", "max", "viterbi"]  # how tokens become entities


@dataclass(frozen=True, slots=True)
class Linear:
    """y = act(x W^T + b); tensor names, W [out, in], b [out] or None.

    With `residual`, x (or x R^T, if it is a name) is added after the activation: sentence-transformers' Dense.
    """

    weight: str
    bias: str | None = None
    residual: bool | str = False
    activation: ActivationKind | None = None


@dataclass(frozen=True, slots=True)
class Activation:
    kind: ActivationKind


@dataclass(frozen=True, slots=True)
class Norm:
    spec: NormSpec
    weight: str
    bias: str | None = None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Scores against a [vocab, width] matrix, the word table where tied: all ids, or only the read's `vocabulary`."""

    weight: str = "embed.word"
    bias: str | None = None


@dataclass(frozen=True, slots=True)
class L2:
    """x / max(|x|, 1e-12)."""


@dataclass(frozen=True, slots=True)
class Truncate:
    width: int


Step = Linear | Activation | Norm | Vocabulary | L2 | Truncate


@dataclass(frozen=True, slots=True)
class Pool:
    """Several kinds are concatenated in order.

    skip_prompt: leave out the row's leading prompt tokens (`Read.skip`).  without: rising ids that max_by_token leaves
    out.
    """

    kinds: tuple[PoolKind, ...]
    pad_id: int | None = None
    skip_prompt: bool = False
    without: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """kind: what it answers, which says what tasks read it; engines do not look at it.
    "embed" (a vector per text), "classify" (labels per text or pair; of one label, how well a pair fits), "tag" (labels
    per token), "answer" (where an answer begins and ends), "fill" (the vocabulary at a masked token), "next" (the
    vocabulary after each token), "sparse" (weights of ids of the vocabulary), "multivector" (a vector per token).
    labels: name the output columns of a classifier, in order; empty for vectors.
    sparse: of a pooled row only the values above 0 come out, by rising column, each with its column as id (SPLADE over
    a Vocabulary); what is not a number comes out, too.
    pairs: whether it was trained on pairs of texts (relevance, inference), or on single ones; None: nobody says.
    aggregation: how `tasks.tag` makes entities of a tagger's tokens unless the caller says.
    """

    kind: str
    pool: Pool
    per_token: tuple[Step, ...] = ()
    per_row: tuple[Step, ...] = ()
    finish: Finish = "none"
    labels: tuple[str, ...] = ()
    sparse: bool = False
    pairs: bool | None = None
    aggregation: Joining = "simple"


STATES = ""
"""Name of a head that every engine has beside the checkpoint's: each token's last state, as it is."""
OF_TRUNK = {STATES: HeadSpec("states", Pool(("tokens",)))}

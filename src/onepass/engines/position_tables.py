"""Tables of positions: made by model/positions.py for the longest row yet, kept, and handed out for each batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onepass.engines.batch import Floats, Ints, PackedBatch
from onepass.model.positions import alibi_slopes, distance_buckets, inverse_frequencies, rotary
from onepass.model.spec import Alibi, EncoderSpec, LayerSpec, RopeSpec, T5Buckets

Rotary = tuple[Floats, Floats, Ints]
"""cosines and sines [m, size / 2], and int32 [rows], where each row of the batch begins in them."""


class PositionTables:
    """One rotary table for each of the spec's ropes, and the biases by distance that its layers read."""

    def __init__(self, spec: EncoderSpec, tensor: Callable[[str], Floats]) -> None:
        self._rotary = [_RotaryTable(rope) for rope in spec.ropes]
        self._names: list[str | int] = []
        self._biases: list[_Bias] = []
        for layer in spec.layers:
            name = _bias_name(spec, layer)
            if name is not None and name not in self._names:
                self._names.append(name)
                self._biases.append(_Bias(_bias(spec, name, tensor)))
        self._spec = spec

    def bias_index(self, layer: LayerSpec) -> int:
        """Which of the biases a layer adds to its scores; -1: none."""
        name = _bias_name(self._spec, layer)
        return -1 if name is None else self._names.index(name)

    @property
    def by_length(self) -> bool:
        """Whether a row's rotary table depends on the row's own length."""
        return any(table.by_length for table in self._rotary)

    def of(self, batch: PackedBatch, longest: int = 1) -> tuple[list[Rotary], list[Floats]]:
        """What a batch needs: rotary tables, and biases [heads, 2 reach + 1] of at least its longest row's reach.

        longest: tokens that the tables cover, too.
        """
        if not self._rotary and not self._biases:
            return [], []
        lengths = np.maximum(batch.lengths, 1)
        longest = int(lengths.max(initial=longest))
        return [table.of(lengths, longest) for table in self._rotary], [bias.of(longest - 1) for bias in self._biases]


def _bias_name(spec: EncoderSpec, layer: LayerSpec) -> str | int | None:
    """T5's tables go by their tensors' names, ALiBi's by the number of heads."""
    match spec.relative:
        case T5Buckets(per_layer=True):
            return f"layers.{layer.weights}.attention.distance"
        case T5Buckets():
            return "relative.distance"
        case Alibi():
            return layer.attention.heads
    return None


def _bias(spec: EncoderSpec, name: str | int, tensor: Callable[[str], Floats]) -> Callable[[int], Floats]:
    """reach -> float32 [heads, 2 reach + 1], of the distances j - i = -reach .. reach."""
    if isinstance(spec.relative, T5Buckets):
        buckets, table = spec.relative, np.array(tensor(str(name)).T)
        return lambda reach: np.ascontiguousarray(table[:, distance_buckets(buckets, reach)])
    slopes = alibi_slopes(int(name))
    return lambda reach: -slopes[:, None] * np.abs(np.arange(-reach, reach + 1, dtype=np.float32))


class _Bias:
    def __init__(self, make: Callable[[int], Floats]) -> None:
        self._make = make
        self._longest = make(0)

    def of(self, reach: int) -> Floats:
        held = self._longest  # another thread may replace it
        if held.shape[1] < 2 * reach + 1:
            self._longest = held = self._make(_rounded_up(reach))
        return held


class _RotaryTable:
    def __init__(self, rope: RopeSpec) -> None:
        self._rope = rope
        self.by_length = rope.scaling in ("dynamic", "longrope")
        self._longest = rotary(rope, 1)

    def of(self, lengths: Ints, longest: int) -> Rotary:
        if self.by_length:
            return self._of_lengths(lengths)
        held = self._longest  # another thread may replace it
        if len(held[0]) < longest:
            self._longest = held = rotary(self._rope, _rounded_up(longest))
        return *held, np.zeros(len(lengths), np.int32)

    def _of_lengths(self, lengths: Ints) -> Rotary:
        """A table for every set of frequencies that some row's length asks for, one behind the other."""
        distinct, which = np.unique(lengths, return_inverse=True)
        kinds = [inverse_frequencies(self._rope, int(length)).tobytes() for length in distinct]
        longest = {kind: int(length) for kind, length in zip(kinds, distinct, strict=True)}  # lengths rise
        begins = dict(zip(longest, np.cumsum([0, *longest.values()]), strict=False))
        tables = [rotary(self._rope, length) for length in longest.values()]
        starts = np.array([begins[kind] for kind in kinds], np.int32)[which]
        return np.concatenate([c for c, _ in tables]), np.concatenate([s for _, s in tables]), starts


def _rounded_up(n: int) -> int:
    """To a power of two, so that rows that become longer one by one make few tables."""
    return max(64, 1 << (n - 1).bit_length())

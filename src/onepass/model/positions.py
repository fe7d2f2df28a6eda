"""The tables behind positions, built once in numpy and handed to every engine, so that all read the same numbers.

A rotary table is built in float32 step by step as PyTorch builds it, powers alone in float64 and rounded: angles grow
with the position, and one bit of an inverse frequency is 1e-4 of a state some thousand tokens on.

families/rotary.py reads rotary positions from a config.json.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onepass.model.spec import Disentangled, RopeSpec, T5Buckets

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

ORIGINAL = "original_max_position_embeddings"
OPTIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
    "yarn": ("factor", "beta_fast", "beta_slow", ORIGINAL, "truncate"),  # truncate: 1 or 0
    "longrope": ("short_factor", "long_factor", ORIGINAL),  # size / 2 factors each
    "dynamic": ("factor", "trained"),  # trained: tokens up to which nothing is scaled
    "ntk": ("factor",),  # and mixed_b, which may be missing
}
"""`RopeSpec.options` by scaling, under the names of transformers' rope_parameters.

longrope and dynamic depend on the row's own length, the others do not.
"""


def rotary(rope: RopeSpec, tokens: int) -> tuple[Floats, Floats]:
    """(cosines, sines), float32 [tokens, size / 2] each, of positions 0 .. tokens - 1, `rope.factor` applied."""
    angles = np.arange(tokens, dtype=np.float32)[:, None] * inverse_frequencies(rope, tokens)
    factor = np.float32(rope.factor)
    return _rounded(np.cos(angles.astype(np.float64))) * factor, _rounded(np.sin(angles.astype(np.float64))) * factor


def inverse_frequencies(rope: RopeSpec, tokens: int) -> Floats:
    """float32 [size / 2] for a row of `tokens` tokens. Sources: modeling_rope_utils in transformers, GTE for ntk."""
    options: dict[str, Any] = dict(rope.options)
    powers = _powers(rope.theta, rope.size)
    inverse = _inverse(powers)
    match rope.scaling:
        case "none":
            return inverse
        case "linear":
            return inverse / np.float32(options["factor"])
        case "llama3":
            return _llama3(inverse, options)
        case "yarn":
            return _yarn(powers, rope, options)
        case "longrope":
            longer = tokens > options[ORIGINAL]
            factors = np.array(options["long_factor" if longer else "short_factor"], np.float32)
            return _inverse(factors * powers)
        case "dynamic":
            return _inverse(_powers(_dynamic_theta(rope, tokens, options), rope.size))
        case "ntk":
            return _ntk(rope, options)


def _inverse(x: Floats) -> Floats:
    return np.reciprocal(x)


def _powers(theta: float, size: int) -> Floats:
    """theta^(2k / size), k = 0 .. size / 2 - 1."""
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    return _rounded(np.float64(np.float32(theta)) ** exponents.astype(np.float64))


def _llama3(inverse: Floats, options: dict[str, Any]) -> Floats:
    """Long waves are stretched by `factor`, short ones stay, those between are blended."""
    factor, old = np.float32(options["factor"]), options[ORIGINAL]
    low, high = np.float32(options["low_freq_factor"]), np.float32(options["high_freq_factor"])
    waves = np.float32(2 * math.pi) / inverse
    smooth = (np.float32(old) / waves - low) / (high - low)
    blended = (1 - smooth) * inverse / factor + smooth * inverse
    stretched = np.where(waves > np.float32(old / low), inverse / factor, blended)
    return np.where(waves < np.float32(old / high), inverse, stretched)


def _yarn(powers: Floats, rope: RopeSpec, options: dict[str, Any]) -> Floats:
    """Dimensions that turn often within the old length stay, those that hardly turn are stretched, a ramp between."""

    def dimension(turns: float) -> float:
        old = options[ORIGINAL]
        return rope.size * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(options["beta_fast"]), dimension(options["beta_slow"])
    if options["truncate"] == 1:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.size - 1)
    width = high - low or 0.001
    ramp = np.clip((np.arange(rope.size // 2, dtype=np.float32) - np.float32(low)) / np.float32(width), 0, 1)
    kept = 1 - ramp
    return _inverse(np.float32(options["factor"]) * powers) * (1 - kept) + _inverse(powers) * kept


def _dynamic_theta(rope: RopeSpec, tokens: int, options: dict[str, Any]) -> float:
    factor, trained = options["factor"], options["trained"]
    length = np.float32(max(tokens, trained))
    stretch = np.float32(factor) * length / np.float32(trained) - np.float32(factor - 1)
    return float(np.float32(rope.theta) * np.float32(float(stretch) ** (rope.size / (rope.size - 2))))


def _ntk(rope: RopeSpec, options: dict[str, Any]) -> Floats:
    factor, half = options["factor"], rope.size // 2
    if "mixed_b" not in options:
        return _inverse(_powers(rope.theta * factor, rope.size)) / np.float32(factor ** (2 / rope.size))
    b = options["mixed_b"]
    a = np.float32(math.log(factor)) / np.float32(half**b)
    steps = _rounded(np.arange(1, half + 1, dtype=np.float64) ** b)
    return _inverse(_powers(rope.theta, rope.size)) / _rounded(np.exp((a * steps).astype(np.float64)))


def distance_buckets(spec: T5Buckets, reach: int) -> Ints:
    """int32 [2 reach + 1]: the bucket of j - i = -reach .. reach. Source: Raffel et al. 2020, transformers' T5.

    Half of the buckets are for keys behind the query; of each half the first half holds one distance each, the others
    grow with the logarithm up to `max_distance`, beyond which all is the last one's.
    """
    distances = np.arange(-reach, reach + 1)
    half = spec.buckets // 2
    exact = half // 2
    size = np.abs(distances)
    logs = _rounded(np.log(np.maximum(size, exact) / exact)) / np.float32(math.log(spec.max_distance / exact))
    grown = np.minimum(exact + (logs * np.float32(half - exact)).astype(np.int64), half - 1)
    return (np.where(distances > 0, half, 0) + np.where(size < exact, size, grown)).astype(np.int32)


def alibi_slopes(heads: int) -> Floats:
    """float32 [heads]. Source: Press et al. 2022: a geometric series from 2^(-8 / heads) down to 2^-8.

    Where `heads` is no power of two: the slopes of the next lower one, then every second one of its double's.
    """
    power = 1 << (heads.bit_length() - 1)
    series = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    between = 2.0 ** (-8 * np.arange(1, 2 * power + 1, 2) / (2 * power))
    return _rounded(np.concatenate([series, between])[:heads])


def relative_indices(spec: Disentangled, reach: int) -> Ints:
    """int32 [2 reach + 1]: the relative table's row for i - j = -reach .. reach. Source: He et al. 2021.

    With buckets, distances up to half of them have a row each, and the others share rows by their logarithm.
    """
    distances = np.arange(-reach, reach + 1)
    if spec.buckets > 0:
        middle = spec.buckets // 2
        size = np.maximum(np.abs(distances), middle)
        logs = _rounded(np.log(size / middle)) / _rounded(np.log((spec.max_distance - 1) / middle))
        grown = np.ceil(logs * np.float32(middle - 1)).astype(np.int64) + middle
        distances = np.where(np.abs(distances) <= middle, distances, np.sign(distances) * grown)
    return np.clip(distances + spec.span, 0, 2 * spec.span - 1).astype(np.int32)


def sinusoids(rows: int, width: int, pad: int) -> Floats:
    """float32 [rows, width]: sines, then cosines, of falling frequency; row `pad` is zero. Source: fairseq's M2M."""
    half = width // 2
    step = np.float32(-math.log(10_000) / (half - 1))
    frequencies = _rounded(np.exp((np.arange(half, dtype=np.float32) * step).astype(np.float64)))
    angles = (np.arange(rows, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
    table = np.zeros((rows, width), np.float32)
    table[:, :half], table[:, half : 2 * half] = np.sin(angles), np.cos(angles)
    table[pad] = 0
    return table


def _rounded(x: Any) -> Floats:
    return np.asarray(x, dtype=np.float32)

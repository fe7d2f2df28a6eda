"""Rotary positions as config files say them: `rope_parameters`, or the older `rope_scaling` beside `rope_theta`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from onepass.errors import BadCheckpoint, UnsupportedOption
from onepass.model.config import Config
from onepass.model.positions import ORIGINAL
from onepass.model.spec import RopeSpec

Options = dict[str, float | tuple[float, ...]]
LayerType = Literal["full_attention", "sliding_attention"]


def read_rope(
    config: Config,
    head_size: int,
    *,
    theta: float = 10_000.0,
    theta_key: str = "rope_theta",
    max_positions: int,
    layer_type: LayerType | None = None,
) -> RopeSpec:
    """The rotary positions of a config.json, in any of its spellings.

    theta: where the file names none, neither in its parameters nor under `theta_key`.  max_positions: the model's
    max_position_embeddings.  layer_type: which entry to read where rope_parameters has one for each type of layer.
    Raises UnsupportedOption for a scaling that is not implemented, BadCheckpoint for values that cannot be.
    """
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    parameters = config.get(key) or {}
    if isinstance(parameters, dict) and layer_type in parameters:
        parameters = parameters[layer_type] or {}
    if not isinstance(parameters, dict):
        raise config.wrong(key, "an object")
    beside = {name: config.get(name) for name in ("partial_rotary_factor",) if config.get(name) is not None}
    pretrained = config.get(ORIGINAL)
    before = {} if pretrained is None else {ORIGINAL: pretrained}
    return rope_from_config(
        {**beside, **parameters, **before},
        head_size,
        config.number(theta_key, theta),
        max_positions,
        f"{config.source}'s {key}",
    )


def rope_from_config(
    parameters: Mapping[str, Any],
    head_size: int,
    theta: float,
    max_positions: int,
    source: str = "config.json's rope_parameters",
) -> RopeSpec:
    """One rope_parameters or rope_scaling dictionary; empty: plain rotary positions.

    theta: where `parameters` has no rope_theta.  source: what messages call the dictionary.  Raises as read_rope.
    """
    values = Config(parameters, source)
    kind = values.text("rope_type", values.text("type", "default"))
    if kind not in SCALINGS:
        raise UnsupportedOption(
            f"{source} sets rope_type to {kind!r}, which is not implemented; known are {', '.join(SCALINGS)}"
        )
    size = int(head_size * values.number("partial_rotary_factor", 1.0))
    if not 2 <= size <= head_size or size % 2:
        raise BadCheckpoint(f"{source} rotates {size} of a head's {head_size} numbers; it must be an even part of them")
    theta = _positive(values, "rope_theta", theta)
    scaling, factor, options = SCALINGS[kind](values, size, max_positions)
    return RopeSpec(size, theta, scaling, factor, tuple(options.items()))


Scaling = Literal["none", "linear", "llama3", "yarn", "longrope", "dynamic", "ntk"]
Scaled = tuple[Scaling, float, Options]
"""Name, factor on cosines and sines, options as model/positions.py lists them."""


def _none(values: Config, size: int, max_positions: int) -> Scaled:
    return "none", 1.0, {}


def _linear(values: Config, size: int, max_positions: int) -> Scaled:
    return "linear", 1.0, {"factor": _positive(values, "factor")}


def _llama3(values: Config, size: int, max_positions: int) -> Scaled:
    needed = {key: _positive(values, key) for key in ("factor", "low_freq_factor", "high_freq_factor")}
    return "llama3", 1.0, {**needed, ORIGINAL: _positive(values, ORIGINAL, max_positions)}


def _yarn(values: Config, size: int, max_positions: int) -> Scaled:
    original = _positive(values, ORIGINAL, max_positions)
    factor = _positive(values, "factor", max_positions / original)
    scale, all_dim = values.number("mscale", 0), values.number("mscale_all_dim", 0)

    def growth(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0

    usual = growth(scale) / growth(all_dim) if scale and all_dim else growth(1)
    options: Options = {
        "factor": factor,
        "beta_fast": values.number("beta_fast", 32) or 32.0,
        "beta_slow": values.number("beta_slow", 1) or 1.0,
        ORIGINAL: original,
        "truncate": float(values.flag("truncate", True)),
    }
    return "yarn", _positive(values, "attention_factor", usual), options


def _longrope(values: Config, size: int, max_positions: int) -> Scaled:
    original = _positive(values, ORIGINAL, max_positions)
    factor = _positive(values, "factor", max_positions / original)
    usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    factors = {key: _numbers(values, key, size // 2) for key in ("short_factor", "long_factor")}
    return "longrope", _positive(values, "attention_factor", usual), {**factors, ORIGINAL: original}


def _dynamic(values: Config, size: int, max_positions: int) -> Scaled:
    if size == 2:
        raise BadCheckpoint(f"{values.source} scales a single rotated pair by its length, which has no exponent")
    return "dynamic", 1.0, {"factor": _positive(values, "factor"), "trained": float(max_positions)}


def _ntk(values: Config, size: int, max_positions: int) -> Scaled:
    mixed = {} if values.get("mixed_b") is None else {"mixed_b": _positive(values, "mixed_b")}
    return "ntk", 1.0, {"factor": _positive(values, "factor"), **mixed}


SCALINGS: dict[str, Callable[[Config, int, int], Scaled]] = {
    "default": _none,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "su": _longrope,  # its name before the paper
    "dynamic": _dynamic,
    "ntk": _ntk,  # GTE's: fixed, whatever the length
}


def _positive(values: Config, key: str, default: float = 0.0) -> float:
    number = values.number(key, default)
    if not 0 < number < math.inf:
        raise values.wrong(key, "a number above 0")
    return number


def _numbers(values: Config, key: str, count: int) -> tuple[float, ...]:
    numbers = values.get(key)
    right = isinstance(numbers, list) and len(numbers) == count
    if not right or not all(isinstance(number, int | float) and number > 0 for number in numbers):
        raise values.wrong(key, f"a list of {count} numbers above 0")
    return tuple(map(float, numbers))

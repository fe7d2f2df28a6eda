"""Engines: spec + weights + packed batch -> numbers. One table; an engine is a file here and a line in it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from onepass.engines.batch import Engine
from onepass.engines.place import CPU, INSTALL, Place
from onepass.engines.reference import Reference
from onepass.errors import BadSetting, MissingExtra
from onepass.model.checkpoint import Checkpoint
from onepass.model.heads import OF_TRUNK


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen and why, for `info` and the logs."""

    value: str
    reason: str


def build_native(checkpoint: Checkpoint, dtype: str, place: Place) -> tuple[Engine, Choice]:
    from onepass.engines.native import Native, bfloat16_products, choose_instruction_set

    _on_cpu("native", place)
    isa, _ = choose_instruction_set()
    if dtype != "auto":
        chosen = Choice(dtype, "asked")
    elif bfloat16_products(isa):
        chosen = Choice("bfloat16", f"{isa} multiplies it faster than float32")
    else:
        chosen = Choice("float32", f"{isa} has no bfloat16 products")
    return Native(checkpoint.spec, {**checkpoint.heads, **OF_TRUNK}, checkpoint.weights, dtype=chosen.value), chosen


def build_reference(checkpoint: Checkpoint, dtype: str, place: Place) -> tuple[Engine, Choice]:
    _on_cpu("reference", place)
    if dtype not in ("auto", "float32"):
        raise BadSetting(f"the reference engine computes in float32 only, not {dtype}; ask for dtype float32 or auto")
    chosen = Choice("float32", "the reference engine has no other" if dtype == "auto" else "asked")
    return Reference(checkpoint.spec, {**checkpoint.heads, **OF_TRUNK}, checkpoint.weights), chosen


def build_torch(checkpoint: Checkpoint, dtype: str, place: Place) -> tuple[Engine, Choice]:
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra(f"the torch engine needs torch; run: {INSTALL}, or choose another engine")
    from onepass.engines.torch import Torch, fastest_dtype

    chosen = Choice(*fastest_dtype(place.name)) if dtype == "auto" else Choice(dtype, "asked")
    heads = {**checkpoint.heads, **OF_TRUNK}
    return Torch(checkpoint.spec, heads, checkpoint.weights, chosen.value, device=place.name), chosen


def _on_cpu(engine: str, place: Place) -> None:
    if place.name != "cpu":
        raise BadSetting(f"the {engine} engine computes on the CPU, not on {place.name}; choose device cpu or auto")


ENGINES: dict[str, Callable[[Checkpoint, str, Place], tuple[Engine, Choice]]] = {
    "native": build_native,
    "reference": build_reference,
    "torch": build_torch,
}
DTYPES = ("float32", "bfloat16", "float16")


def build_engine(
    checkpoint: Checkpoint, engine: str = "auto", dtype: str = "auto", place: Place = CPU
) -> tuple[Engine, dict[str, Choice]]:
    """The engine for a checkpoint, with what was chosen and why under "engine" and "dtype".

    Raises BadSetting for an unknown engine or dtype, or one that is not for this place, UnsupportedOption where the
    engine does not run the spec, MissingExtra.
    """
    if engine != "auto":
        chosen = Choice(engine, "asked")
    elif place.name == "cpu":
        chosen = Choice("native", "the default on a CPU")
    else:
        chosen = Choice("torch", "the one for GPUs")
    if chosen.value not in ENGINES:
        raise BadSetting(f"engine {engine!r} is unknown; choose auto, {', '.join(ENGINES)}")
    if dtype not in ("auto", *DTYPES):
        raise BadSetting(f"dtype {dtype!r} is unknown; choose auto, {', '.join(DTYPES)}")
    built, dtype_choice = ENGINES[chosen.value](checkpoint, dtype, place)
    return built, {"engine": chosen, "dtype": dtype_choice}

"""Engines: spec + weights + packed batch -> numbers. One table; an engine is a file here and a line in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onepass.engines.batch import Engine
from onepass.engines.reference import Reference
from onepass.errors import BadSetting
from onepass.model.checkpoint import Checkpoint
from onepass.model.heads import OF_TRUNK


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen and why, for `info` and the logs."""

    value: str
    reason: str


def build_native(checkpoint: Checkpoint, dtype: str) -> tuple[Engine, Choice]:
    from onepass.engines.native import Native, bfloat16_products, choose_instruction_set

    isa, _ = choose_instruction_set()
    if dtype != "auto":
        chosen = Choice(dtype, "asked")
    elif bfloat16_products(isa):
        chosen = Choice("bfloat16", f"{isa} multiplies it faster than float32")
    else:
        chosen = Choice("float32", f"{isa} has no bfloat16 products")
    return Native(checkpoint.spec, {**checkpoint.heads, **OF_TRUNK}, checkpoint.weights, dtype=chosen.value), chosen


def build_reference(checkpoint: Checkpoint, dtype: str) -> tuple[Engine, Choice]:
    if dtype not in ("auto", "float32"):
        raise BadSetting(f"the reference engine computes in float32 only, not {dtype}; ask for dtype float32 or auto")
    chosen = Choice("float32", "the reference engine has no other" if dtype == "auto" else "asked")
    return Reference(checkpoint.spec, {**checkpoint.heads, **OF_TRUNK}, checkpoint.weights), chosen


ENGINES: dict[str, Callable[[Checkpoint, str], tuple[Engine, Choice]]] = {
    "native": build_native,
    "reference": build_reference,
}


def build_engine(checkpoint: Checkpoint, engine: str = "auto", dtype: str = "auto") -> tuple[Engine, dict[str, Choice]]:
    """The engine for a checkpoint, with what was chosen and why under "engine" and "dtype".

    Raises BadSetting for an unknown engine or dtype, UnsupportedOption where the engine does not run the spec.
    """
    chosen = Choice("native", "the default on a CPU") if engine == "auto" else Choice(engine, "asked")
    if chosen.value not in ENGINES:
        raise BadSetting(f"engine {engine!r} is unknown; choose auto, {', '.join(ENGINES)}")
    if dtype not in ("auto", "float32", "bfloat16"):
        raise BadSetting(f"dtype {dtype!r} is unknown; choose auto, float32 or bfloat16")
    built, dtype_choice = ENGINES[chosen.value](checkpoint, dtype)
    return built, {"engine": chosen, "dtype": dtype_choice}

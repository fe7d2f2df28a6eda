"""Where engines compute: this machine's cores, or a GPU, and how work should come to each.

torch is imported only where its extra is installed and a GPU is asked for, or may be there.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from dataclasses import dataclass, field, replace

from onepass.errors import BadSetting, MissingExtra

INSTALL = 'pip install "onepass[torch]"'
PLACES = "auto, cpu, cuda, cuda:1 (another GPU by its number) or mps"


@dataclass(frozen=True, slots=True)
class Place:
    """name: "cpu", "cuda:0", "mps".

    calls: how many micro-batches are given to the engines at once; None: one on each core, on which the calls compute.
    least, most: tokens of a micro-batch, between which the engine's measured cost decides, in multiples of `step`.
    window: how many micro-batches' worth of rows are looked through for those that fill one up.
    sizes: rows' lengths of the batches with which an engine is measured, each so many times as `runs` says, until it
    took `seconds` in all.  reason: why this place.
    """

    name: str
    calls: int | None
    least: int
    most: int
    step: int
    window: int
    sizes: tuple[tuple[int, ...], ...]
    runs: int
    seconds: float
    reason: str = field(default="given", compare=False)


CPU = Place(
    "cpu",
    calls=None,
    least=256,
    most=1024,  # tokens whose activations stay in a core's own cache
    step=1,
    window=4,
    # Enough to tell the three parts of the cost from each other, and no more: commands wait for it.
    sizes=((8,), (32,) * 4, (256,)),
    runs=2,
    seconds=1.0,
)


def gpu(name: str, reason: str) -> Place:
    """Of three calls one computes, one is packed and sent meanwhile, and of one the answers are handed out."""
    return Place(
        name,
        calls=3,
        least=4096,
        most=32_768,  # tens of milliseconds, for which a query may have to wait
        step=4096,  # so that full ones, whatever their rows, fill the bucket of one CUDA graph
        window=1,  # of hundreds of rows: as they come
        # Single texts of usual lengths, so that their CUDA graphs are there, and batches that fill a GPU.
        sizes=((12,), (24,), (48,), (96,), (192,), (384,), (64,) * 64, (64,) * 256, (256,) * 64),
        runs=3,
        seconds=20.0,
        reason=reason,
    )


def find_place(asked: str, engine: str = "auto") -> Place:
    """For a device and an engine that were asked for, "auto" for either.

    Raises BadSetting for a device that is unknown or not there, MissingExtra for a GPU without torch.
    """
    if asked != "auto":
        return _asked(asked)
    if engine not in ("auto", "torch"):
        return replace(CPU, reason=f"the {engine} engine computes there")
    if importlib.util.find_spec("torch") is None:
        return replace(CPU, reason="torch is not installed, without which no GPU is used")
    if not _cuda_driver():
        return replace(CPU, reason="no CUDA device was found")
    import torch

    if not torch.cuda.is_available():
        return replace(CPU, reason="torch finds no CUDA device")
    return gpu("cuda:0", f"torch finds {torch.cuda.get_device_name(0)}")


def _asked(asked: str) -> Place:
    if asked == "cpu":
        return replace(CPU, reason="asked")
    if not re.fullmatch(r"cuda(:\d{1,3})?|mps", asked):
        raise BadSetting(f"device {asked!r} is unknown; choose {PLACES}")
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra(f"device {asked!r} needs torch; run: {INSTALL}, or choose device cpu")
    import torch

    if asked == "mps":
        if not torch.backends.mps.is_available():
            raise BadSetting("device 'mps' is not here: torch finds no Apple GPU; choose device cpu or auto")
        return gpu("mps", "asked")
    number, there = int(asked.partition(":")[2] or 0), torch.cuda.device_count()
    if number >= there:
        raise BadSetting(f"device {asked!r} is not here: torch finds {there} CUDA devices; choose device cpu or auto")
    return gpu(f"cuda:{number}", "asked")


def _cuda_driver() -> bool:
    """Whether NVIDIA's driver library can be loaded: asked before torch, whose import takes seconds."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True

"""Where engines compute: this machine's cores, or a GPU, and how work should come to each.

torch is imported only where its extra is installed and a GPU is asked for, or may be there.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from dataclasses import dataclass

from onepass.errors import BadSetting, MissingExtra

INSTALL = 'pip install "onepass[torch]"'
PLACES = "auto, cpu, cuda, cuda:1 (another GPU by its number) or mps"


@dataclass(frozen=True, slots=True)
class Place:
    """name: "cpu", "cuda:0", "mps".

    calls: how many micro-batches are given to the engines at once; None: one on each core, which the calls compute on.
    least, most: tokens of a micro-batch, between which the engine's measured cost decides.
    sizes: rows' lengths of the batches with which an engine is measured.
    """

    name: str
    calls: int | None
    least: int
    most: int
    sizes: tuple[tuple[int, ...], ...]


CPU = Place(
    "cpu",
    calls=None,
    least=256,
    most=1024,  # tokens whose activations stay in a core's own cache
    sizes=((8,), (64,) * 4, (64,) * 8, (256, 256)),
)


def gpu(name: str) -> Place:
    """One call computes, one is packed and sent meanwhile, and of one the answers are handed out."""
    return Place(
        name,
        calls=3,
        least=4096,
        most=32_768,  # tens of milliseconds, for which a query may have to wait
        sizes=((12,), (32,), (64,), (128,), (256,), (64,) * 32, (64,) * 256, (256,) * 64),
    )


def find_place(asked: str, engine: str = "auto") -> tuple[Place, str]:
    """(the place, the reason) for a device and an engine that were asked for, "auto" for either.

    Raises BadSetting for a device that is unknown or not there, MissingExtra for a GPU without torch.
    """
    if asked != "auto":
        return _asked(asked), "asked"
    if engine not in ("auto", "torch"):
        return CPU, f"the {engine} engine computes on the CPU"
    if importlib.util.find_spec("torch") is None:
        return CPU, "torch is not installed, without which no GPU is used"
    if not _cuda_driver():
        return CPU, "no CUDA device was found"
    import torch

    if not torch.cuda.is_available():
        return CPU, "torch finds no CUDA device"
    return gpu("cuda:0"), f"torch finds {torch.cuda.get_device_name(0)}"


def _asked(asked: str) -> Place:
    if asked == "cpu":
        return CPU
    if not re.fullmatch(r"cuda(:\d{1,3})?|mps", asked):
        raise BadSetting(f"device {asked!r} is unknown; choose {PLACES}")
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra(f"device {asked!r} needs torch; run: {INSTALL}, or choose device cpu")
    import torch

    if asked == "mps":
        if not torch.backends.mps.is_available():
            raise BadSetting("device 'mps' is not here: torch finds no Apple GPU; choose device cpu or auto")
        return gpu("mps")
    number, there = int(asked.partition(":")[2] or 0), torch.cuda.device_count()
    if number >= there:
        raise BadSetting(f"device {asked!r} is not here: torch finds {there} CUDA devices; choose device cpu or auto")
    return gpu(f"cuda:{number}")


def _cuda_driver() -> bool:
    """Whether NVIDIA's driver library can be loaded: asked before torch, whose import takes seconds."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True

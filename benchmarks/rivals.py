"""The runtimes that are compared, each used as its own documentation shows, all giving unit vectors.

Every runtime gets all compute threads. `ids` is timed without tokenising, `texts` with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import graph_rivals
import numpy as np
import torch_rivals
from batches import Ids, Setting, Vectors
from models import LONGEST

from onepass import Encoder


class Rival(Protocol):
    """Both give float32 [sequences, width] in the order of the input; ids include special tokens.

    settings: the batchings worth trying, likely ones first.
    """

    settings: Sequence[Setting]

    def ids(self, rows: Ids, setting: Setting) -> Vectors: ...

    def texts(self, texts: list[str], setting: Setting) -> Vectors: ...


class Onepass:
    """Through the public Encoder, which schedules by itself; it puts the special tokens around given ids."""

    settings: Sequence[Setting] = (Setting(),)
    dtype = "float32"

    def __init__(self, folder: Path, threads: int) -> None:
        self.encoder = Encoder(folder, dtype=self.dtype, engine="native", max_length=LONGEST, cores=threads)

    def ids(self, rows: Ids, setting: Setting) -> Vectors:
        return np.asarray(self.encoder.embed([list(row[1:-1]) for row in rows]))

    def texts(self, texts: list[str], setting: Setting) -> Vectors:
        return np.asarray(self.encoder.embed(texts))


class OnepassBf16(Onepass):
    dtype = "bfloat16"


RIVALS: dict[str, Callable[[Path, int], Rival]] = {
    "transformers fp32": torch_rivals.Transformers,
    "sentence-transformers fp32": torch_rivals.SentenceTransformers,
    "torch bf16": torch_rivals.TorchBf16,
    "ONNX Runtime fp32": graph_rivals.OnnxRuntime,
    "ONNX Runtime int8": graph_rivals.OnnxRuntimeInt8,
    "OpenVINO fp32": graph_rivals.OpenVino,
    "OpenVINO bf16": graph_rivals.OpenVinoBf16,
    "OpenVINO int8": graph_rivals.OpenVinoInt8,
    "onepass fp32": Onepass,
    "onepass bf16": OnepassBf16,
}

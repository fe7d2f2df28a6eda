"""The runtimes that load a graph: ONNX Runtime and OpenVINO, sorted by length, one or several batches at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from batches import Ids, Setting, Vectors, by_length, settings
from graphs import inputs, onnx, onnx_int8, openvino_int8
from models import LONGEST
from tokenizers import Tokenizer

ROWS = (8, 1, 4, 32)


class Graph:
    """`embedder(streams)` gives what runs one batch; everything else is the same for both runtimes."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.settings: Sequence[Setting] = settings(ROWS, sorted({threads, 1}, reverse=True))
        self.threads = threads
        self.embedder = cache(self.loaded(folder))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)

    def loaded(self, folder: Path) -> Callable[[int], Callable[[Ids], Vectors]]:
        raise NotImplementedError

    def ids(self, rows: Ids, setting: Setting) -> Vectors:
        return by_length(rows, setting, self.embedder(setting.streams))

    def texts(self, texts: list[str], setting: Setting) -> Vectors:
        return self.ids([encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts)], setting)


class OnnxRuntime(Graph):
    file = staticmethod(onnx)

    def loaded(self, folder: Path) -> Callable[[int], Callable[[Ids], Vectors]]:
        import onnxruntime  # type: ignore[import-untyped]

        path = str(self.file(folder))

        def embedder(streams: int) -> Callable[[Ids], Vectors]:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads // streams
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            return lambda batch: np.asarray(session.run(None, inputs(batch))[0])

        return embedder


class OnnxRuntimeInt8(OnnxRuntime):
    file = staticmethod(onnx_int8)


class OpenVino(Graph):
    file = staticmethod(onnx)
    precision: Mapping[str, str] = MappingProxyType({"INFERENCE_PRECISION_HINT": "f32"})

    def loaded(self, folder: Path) -> Callable[[int], Callable[[Ids], Vectors]]:
        import openvino

        core = openvino.Core()
        model = core.read_model(self.file(folder))

        def embedder(streams: int) -> Callable[[Ids], Vectors]:
            options: dict[str, Any] = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": self.threads, **self.precision}
            if streams == 1:
                options["PERFORMANCE_HINT"] = "LATENCY"
            compiled = core.compile_model(model, "CPU", options)
            free = [compiled.create_infer_request() for _ in range(streams)]

            def embed(batch: Ids) -> Vectors:
                request = free.pop()
                vectors = np.array(next(iter(request.infer(inputs(batch)).values())))
                free.append(request)
                return vectors

            return embed

        return embedder


class OpenVinoBf16(OpenVino):
    precision = MappingProxyType({"INFERENCE_PRECISION_HINT": "bf16"})


class OpenVinoInt8(OpenVino):
    """What is not int8 in it has the precision that OpenVINO chooses."""

    file = staticmethod(openvino_int8)
    precision = MappingProxyType({})

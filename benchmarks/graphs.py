"""The models as files for the graph runtimes, written once beside the checkpoint: ONNX, and int8 of two kinds."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from batches import Ids, padded
from numpy.typing import NDArray
from workloads import workloads

CALIBRATION_SEQUENCES = 64


def inputs(batch: Ids) -> dict[str, NDArray[np.int64]]:
    ids, mask = padded(batch)
    return {"input_ids": ids, "attention_mask": mask}


def onnx(folder: Path) -> Path:
    """With mean pooling and normalisation, in float32."""
    path = folder / "model.onnx"
    if path.exists():
        return path
    import torch
    import transformers

    class Embedder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager")

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            states = self.trunk(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(states.dtype)
            return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    partial = path.with_suffix(".partial")
    ids, mask = map(torch.from_numpy, padded([[101, 2000, 2001, 102], [101, 2002, 102]]))
    axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Embedder().eval(),
            (ids, mask),
            str(partial),
            input_names=list(axes),
            output_names=["embedding"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    partial.rename(path)
    return path


def onnx_int8(folder: Path) -> Path:
    """ONNX Runtime's dynamic quantisation: int8 weights, activations quantised as they come."""
    path = folder / "model.int8.onnx"
    if not path.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

        logging.getLogger().setLevel(logging.ERROR)  # it warns that a pre-processing step was left out
        partial = path.with_suffix(".partial")
        quantize_dynamic(onnx(folder), partial, per_channel=True, weight_type=QuantType.QInt8)
        partial.rename(path)
    return path


def openvino_int8(folder: Path) -> Path:
    """nncf's quantisation of weights and activations, calibrated on sequences of stream512."""
    path = folder / "int8" / "model.xml"
    if not path.exists():
        import nncf  # type: ignore[import-untyped]
        import openvino

        nncf.set_log_level(logging.ERROR)
        sequences = workloads(folder)["stream512"].ids[:CALIBRATION_SEQUENCES]
        samples = nncf.Dataset([inputs([row]) for row in sequences])
        quantized = nncf.quantize(
            openvino.Core().read_model(onnx(folder)),
            samples,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=CALIBRATION_SEQUENCES,
        )
        openvino.save_model(quantized, path, compress_to_fp16=False)
    return path

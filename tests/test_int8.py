"""Weights stored as int8 with a scale for each row."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tiny import heads_checkpoint, tiny_checkpoint, write_json

from onepass.errors import BadCheckpoint
from onepass.model.checkpoint import load_checkpoint
from onepass.model.int8 import dequantize, quantize, quantized

MATRICES = drawn.arrays(
    np.float32,
    drawn.array_shapes(min_dims=2, max_dims=3, max_side=6),
    elements=st.floats(-(2.0**120), 2.0**120, width=32),
)


@given(MATRICES)
def test_no_value_is_off_by_more_than_half_a_scale(matrix: NDArray[np.float32]) -> None:
    integers, scale = quantize(matrix)
    assert (str(integers.dtype), integers.shape) == ("int8", matrix.shape)
    assert (str(scale.dtype), scale.shape) == ("float32", matrix.shape[:1])
    assert integers.min() >= -127
    # in float64, for what the rounding of scale and product to float32 adds
    off = np.abs(matrix.astype(np.float64) - dequantize(integers, scale)).reshape(len(matrix), -1)
    assert (off <= scale[:, None] * (0.5 + 1e-4)).all()


@given(MATRICES)
def test_what_was_int8_stays_as_it_is(matrix: NDArray[np.float32]) -> None:
    once = dequantize(*quantize(matrix))
    np.testing.assert_allclose(dequantize(*quantize(once)), once, rtol=1e-6)


def test_rows_have_scales_of_their_own() -> None:
    integers, scale = quantize(np.array([[1.27, -0.5, 0.004], [0, 0, 0], [127e3, 1e3, -64e3]], np.float32))
    np.testing.assert_allclose(scale, [0.01, 1, 1000])
    assert integers.tolist() == [[127, -50, 0], [0, 0, 0], [127, 1, -64]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_int8_of_what_is_no_number(value: float) -> None:
    with pytest.raises(BadCheckpoint, match="NaN or infinity cannot be stored as int8"):
        quantize(np.array([[1, value]], np.float32))


@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta"])
def test_a_checkpoint_of_int8_is_that_of_its_float32_bit_by_bit(tmp_path: Path, family: str) -> None:
    folder = heads_checkpoint(tmp_path, family)
    stored = quantized(load_file(folder / "model.safetensors"))
    save_file(stored, folder / "model.safetensors")
    of_int8 = load_checkpoint(folder)
    rows = {name for name, tensor in stored.items() if tensor.dtype == np.int8}
    scales = {f"{name}.scale" for name in rows}
    plain = {
        name: dequantize(tensor, stored[f"{name}.scale"]) if name in rows else tensor
        for name, tensor in stored.items()
        if name not in scales
    }
    save_file(plain, folder / "model.safetensors")
    of_float32 = load_checkpoint(folder)
    assert rows
    assert list(of_int8.weights) == list(of_float32.weights)
    for name, tensor in of_float32.weights.items():
        assert of_int8.weights[name].dtype == np.float32
        np.testing.assert_array_equal(of_int8.weights[name], tensor, err_msg=name)


def test_scales_of_shards_and_pickles(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "embed")
    stored = quantized(load_file(folder / "model.safetensors"))
    save_file(stored, folder / "model.safetensors")
    whole = load_checkpoint(folder).weights
    (folder / "model.safetensors").unlink()
    of_file = {name: f"model-{tensor.dtype}.safetensors" for name, tensor in stored.items()}
    for file in set(of_file.values()):
        save_file({name: tensor for name, tensor in stored.items() if of_file[name] == file}, folder / file)
    write_json(folder / "model.safetensors.index.json", {"weight_map": of_file})
    sharded = load_checkpoint(folder).weights
    (folder / "model.safetensors.index.json").unlink()
    torch.save({name: torch.from_numpy(tensor) for name, tensor in stored.items()}, folder / "pytorch_model.bin")
    pickled = load_checkpoint(folder).weights
    for name, tensor in whole.items():
        np.testing.assert_array_equal(sharded[name], tensor)
        np.testing.assert_array_equal(pickled[name], tensor)


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    folder = tiny_checkpoint(tmp_path, "bert", "embed")
    (folder / "smaller").mkdir()
    monkeypatch.chdir(folder)
    exec(example, {})
    sizes = [file.stat().st_size for file in (folder / "model.safetensors", folder / "smaller" / "model.safetensors")]
    assert sizes[1] < sizes[0] / 2  # tiny matrices have many scales for their size

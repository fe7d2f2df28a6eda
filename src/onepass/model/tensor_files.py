"""Tensors as files hold them: safetensors, single or sharded, mapped into memory; pickles only through torch."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onepass.errors import BadCheckpoint, UnsafeFormat
from onepass.model.config import Config
from onepass.model.int8 import SCALE, dequantize

STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor, read when asked for. `data` are its bytes, mapped or in memory; dtype as safetensors spells it.

    scale: of each row, of a tensor stored as I8.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]
    scale: StoredTensor | None = None

    def read(self) -> NDArray[np.float32]:
        """float32, C-contiguous, read-only; a view of the file where that already holds float32.

        Raises BadCheckpoint for another type of number, for I8 without fitting scales, and for NaN or infinity.
        """
        if self.dtype not in (*STORED, "I8"):
            raise BadCheckpoint(
                f"{self.file} stores tensor {self.name!r} as {self.dtype}; weights must be F32, F16, BF16 or I8"
            )
        if self.dtype == "I8":
            array = dequantize(self.data.view(np.int8).reshape(self.shape), self._scales())
        else:
            array = _as_float32(self.data, self.dtype).reshape(self.shape)
        # min and max carry a NaN along, and need no second array
        if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
            raise BadCheckpoint(f"{self.file} holds NaN or infinity in tensor {self.name!r}; the file is damaged")
        array.flags.writeable = False
        return array

    def _scales(self) -> NDArray[np.float32]:
        stores = f"{self.file} stores tensor {self.name!r} as I8"
        if self.scale is None:
            raise BadCheckpoint(f"{stores} without {self.name + SCALE!r}, the scales of its rows; save both")
        if self.scale.shape != self.shape[:1]:
            raise BadCheckpoint(
                f"{stores} of shape {list(self.shape)}, but its scales {self.scale.name!r} have shape "
                f"{list(self.scale.shape)}; there must be one for each row"
            )
        return self.scale.read()


def _as_float32(data: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    if data.ctypes.data % 4:  # headers of old writers are not padded
        data = data.copy()
    stored = data.view(STORED[dtype])
    if dtype == "BF16":
        stored = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.asarray(stored, dtype=np.float32)


def open_tensors(folder: Path, label: str = "") -> dict[str, StoredTensor]:
    """Every tensor of a folder by its name on disk, those of I8 with their scales; messages put `label` before files.

    Looks for model.safetensors, its sharded form, and then for pickles, which are read only where torch is installed
    (weights_only, so that nothing in them runs). Raises BadCheckpoint, or UnsafeFormat for pickles without torch.
    """
    for stem, opener in (("model.safetensors", _safetensors), ("pytorch_model.bin", pickled)):
        if (folder / stem).is_file():
            return _scaled(opener(folder / stem, label + stem))
        index = f"{stem}.index.json"
        if (folder / index).is_file():
            return _scaled(_sharded(folder, index, label, opener))
    raise BadCheckpoint(
        f"{folder} holds no model.safetensors and no other weights; check that the model was saved whole"
    )


def _scaled(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    scales = {name + SCALE for name, tensor in tensors.items() if tensor.dtype == "I8"}
    return {
        name: replace(tensor, scale=tensors.get(name + SCALE)) if tensor.dtype == "I8" else tensor
        for name, tensor in tensors.items()
        if name not in scales
    }


Opener = Callable[[Path, str], dict[str, StoredTensor]]


def _sharded(folder: Path, index: str, label: str, opener: Opener) -> dict[str, StoredTensor]:
    names = Config.read(folder / index, label + index).texts("weight_map")
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(names.values())):
        if Path(file).name != file or not (folder / file).is_file():
            raise BadCheckpoint(f"{label}{index} names the file {file!r}, which is not in {folder}; download it again")
        tensors |= opener(folder / file, label + file)
    return tensors


def _safetensors(path: Path, file: str) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):  # checks the header against the file's size
            pass
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(f"{file} is damaged or cut short ({error}); download it again") from error
    data: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header: Mapping[str, Any] = json.loads(data[8:start].tobytes())
    return {
        name: StoredTensor(name, file, entry["dtype"], tuple(entry["shape"]), data[start + begin : start + end])
        for name, entry in header.items()
        if name != "__metadata__"
        for begin, end in [entry["data_offsets"]]
    }


def pickled(path: Path, file: str) -> dict[str, StoredTensor]:
    """The tensors of a pickled state dict; `file` is what messages call it. As `open_tensors` raises."""
    try:
        import torch
    except ImportError:
        raise UnsafeFormat(
            f"{file} is a pickle, which could run code; convert it to model.safetensors, or install torch, which "
            "can read it safely"
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadCheckpoint(f"{file} cannot be read as plain weights ({reason})") from error
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int8: "I8"}
    tensors = {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise BadCheckpoint(f"{file} holds {name!r}, which is no tensor")
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        dtype = names.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))
        tensors[name] = StoredTensor(name, file, dtype, tuple(tensor.shape), raw)
    return tensors

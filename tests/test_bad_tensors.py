"""Weights that cannot be loaded are refused in one sentence that names the tensor or the file."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import change_json, refused, tiny_checkpoint, write_json

from onepass.errors import BadCheckpoint, LeftoverTensor, MissingTensor, UnsafeFormat

WORD = "embeddings.word_embeddings.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "model", "bert", "embed")


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_more_layers_in_the_config_than_in_the_file(folder: Path) -> None:
    change_json(folder / "config.json", num_hidden_layers=3)
    assert refused(folder, MissingTensor) == (
        "the weights lack tensor 'encoder.layer.2.attention.self.query.weight' and 15 more, which config.json promises"
    )


def test_fewer_layers_in_the_config_than_in_the_file(folder: Path) -> None:
    change_json(folder / "config.json", num_hidden_layers=1)
    assert refused(folder, LeftoverTensor) == (
        "the weights hold tensor 'encoder.layer.1.attention.output.LayerNorm.bias' and 15 more, which config.json does "
        "not mention"
    )


def test_a_missing_tensor(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.pop("encoder.layer.1.output.dense.bias"))
    assert refused(folder, MissingTensor) == (
        "the weights lack tensor 'encoder.layer.1.output.dense.bias', which config.json promises"
    )


def test_a_leftover_tensor(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({"encoder.gate.weight": torch.zeros(2)}))
    assert refused(folder, LeftoverTensor) == (
        "the weights hold tensor 'encoder.gate.weight', which config.json does not mention"
    )


def test_a_classifier_without_its_head(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "roberta", "trunk")
    change_json(folder / "config.json", architectures=["RobertaForSequenceClassification"])
    assert refused(folder, MissingTensor) == (
        "the weights lack tensor 'classifier.dense.weight' and 3 more, which config.json promises"
    )


def test_a_wrong_shape(folder: Path) -> None:
    change_json(folder / "config.json", vocab_size=1000)
    assert refused(folder, BadCheckpoint) == (
        "tensor 'embed.word' has shape [400, 32], but config.json makes it [1000, 32]"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_no_numbers(folder: Path, value: float, dtype: torch.dtype) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[WORD][7, 3] = value
        tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

    change_tensors(folder, spoil)
    assert refused(folder, BadCheckpoint) == (
        f"model.safetensors holds NaN or infinity in tensor '{WORD}'; the file is damaged"
    )


def test_weights_of_another_type(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({WORD: tensors[WORD].to(torch.int16)}))
    assert refused(folder, BadCheckpoint) == (
        f"model.safetensors stores tensor '{WORD}' as I16; weights must be F32, F16, BF16 or I8"
    )


ROWS = torch.ones(400)


@pytest.mark.parametrize(
    ("scale", "sentence"),
    [
        (None, f"stores tensor '{WORD}' as I8 without '{WORD}.scale', the scales of its rows; save both"),
        (
            ROWS[1:],
            f"stores tensor '{WORD}' as I8 of shape [400, 32], but its scales '{WORD}.scale' have shape [399]; there "
            "must be one for each row",
        ),
        (ROWS * float("nan"), f"holds NaN or infinity in tensor '{WORD}.scale'; the file is damaged"),
        (ROWS * 3e38, f"holds NaN or infinity in tensor '{WORD}'; the file is damaged"),
        (ROWS.int(), f"stores tensor '{WORD}.scale' as I32; weights must be F32, F16, BF16 or I8"),
        (ROWS.to(torch.int8), f"stores tensor '{WORD}.scale' as I8 without '{WORD}.scale.scale', the scales of its "
                              "rows; save both"),
    ],
    ids=["none", "too few", "no numbers", "too large", "of another type", "of I8"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_int8_without_fitting_scales(folder: Path, scale: torch.Tensor | None, sentence: str) -> None:
    scales = {} if scale is None else {f"{WORD}.scale": scale}
    change_tensors(folder, lambda tensors: tensors.update({WORD: torch.full((400, 32), 100).to(torch.int8), **scales}))
    assert refused(folder, BadCheckpoint) == f"model.safetensors {sentence}"


def test_scales_of_what_is_not_int8(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({f"{WORD}.scale": ROWS}))
    assert refused(folder, LeftoverTensor) == (
        f"the weights hold tensor '{WORD}.scale', which config.json does not mention"
    )


def test_one_tensor_under_two_names(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({f"bert.{WORD}": tensors[WORD].clone()}))
    assert refused(folder, BadCheckpoint) == (
        f"model.safetensors holds both 'bert.{WORD}' and '{WORD}', which mean one tensor"
    )


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_truncated_safetensors(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    sentence = refused(folder, BadCheckpoint)
    assert sentence.startswith("model.safetensors is damaged or cut short (")
    assert sentence.endswith("); download it again")


def test_a_missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {WORD: "model-00001-of-00002.safetensors", "pooler.x": "model-00002-of-00002.safetensors"}}
    write_json(folder / "model.safetensors.index.json", index)
    assert refused(folder, BadCheckpoint) == (
        "model.safetensors.index.json names the file 'model-00002-of-00002.safetensors', which is not in "
        f"{folder}; download it again"
    )


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refused(folder, BadCheckpoint) == (
        f"{folder} holds no model.safetensors and no other weights; check that the model was saved whole"
    )


def test_pickled_weights_without_torch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    monkeypatch.setitem(sys.modules, "torch", None)  # so that importing it fails, as where it is not installed
    assert refused(folder, UnsafeFormat) == (
        "pytorch_model.bin is a pickle, which could run code; convert it to model.safetensors, or install torch, which "
        "can read it safely"
    )


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_a_pickle_that_runs_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({WORD: Trap(tmp_path / "sprung")}))
    assert refused(folder, BadCheckpoint).startswith("pytorch_model.bin cannot be read as plain weights (")
    assert not (tmp_path / "sprung").exists()

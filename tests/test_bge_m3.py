"""BGE-M3's three heads over one trunk, against its formulae in torch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from running import ENGINES, encode, pack, start
from tiny import TEXT, bge_m3_checkpoint, refused
from transformers import AutoModel

from onepass.engines.batch import Read
from onepass.errors import BadCheckpoint
from onepass.model.checkpoint import load_checkpoint

TEXTS = [*TEXT[:3], "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bge_m3_checkpoint(tmp_path_factory.mktemp("models") / "bge-m3")


def states(folder: Path, ids: list[int]) -> torch.Tensor:
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        state: torch.Tensor = model(torch.tensor([ids])).last_hidden_state[0]
    return state


def linear(folder: Path, name: str, x: torch.Tensor) -> torch.Tensor:
    layer = torch.load(folder / f"{name}_linear.pt", weights_only=True)
    return x @ layer["weight"].T + layer["bias"]


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_of_tokens_and_a_vector_for_each(folder: Path, engine: str) -> None:
    checkpoint = load_checkpoint(folder)
    assert set(checkpoint.heads) == {"embed", "sparse", "multivector"}
    rows, types = encode(checkpoint, TEXTS)
    every = np.arange(len(rows), dtype=np.int32)
    batch = pack(rows, types)
    lexical, vectors = start(engine, checkpoint).run(batch, [Read("sparse", every), Read("multivector", every)])
    assert lexical.ids is not None
    assert 0 < np.count_nonzero(lexical.values) < len(lexical.values)
    for index, ids in enumerate(rows):
        state = states(folder, ids)
        weights = torch.relu(linear(folder, "sparse", state))[:, 0]
        expected = {id: max(weights[np.array(ids) == id].tolist()) for id in sorted({*ids} - {0, 1, 2, 3})}
        span = slice(lexical.offsets[index], lexical.offsets[index + 1])
        assert lexical.ids[span].tolist() == list(expected)
        assert lexical.values[span, 0].tolist() == pytest.approx(list(expected.values()), abs=1e-4)
        turned = torch.nn.functional.normalize(linear(folder, "colbert", state), dim=-1)
        assert np.allclose(vectors.row(index), turned.numpy(), atol=1e-4)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    model = bge_m3_checkpoint(tmp_path / "model")
    torch.save({"weight": torch.zeros(1, 31), "bias": torch.zeros(1)}, model / "sparse_linear.pt")
    assert "'sparse.weight' has shape [1, 31]" in refused(model, BadCheckpoint)
    (model / "sparse_linear.pt").write_bytes(b"")
    assert refused(model, BadCheckpoint).startswith("sparse_linear.pt cannot be read as plain weights")


def test_without_torch_there_are_vectors_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    checkpoint = load_checkpoint(folder)
    assert set(checkpoint.heads) == {"embed"}
    assert any(note.startswith("sparse_linear.pt is a pickle") for note in checkpoint.notes)

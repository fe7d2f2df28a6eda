"""How far is the torch engine from the truth on this device? Part of gpu.py.

`prepare` writes a tiny checkpoint with redrawn parameters for every family of tests/tiny.py and tests/own_code.py, rows
of 1, 2, 3, 17 and 64 tokens, and the hidden states of the reference engine, which tests hold to transformers' own. It
needs what the tests need; `compare` then needs onepass and torch alone, on any machine.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onepass.engines.batch import Engine, PackedBatch, Read
from onepass.engines.reference import Reference
from onepass.model.checkpoint import load_checkpoint
from onepass.model.heads import HeadSpec, Pool

STATES = HeadSpec("states", Pool(("tokens",)))
FEW = ("bert", "modernbert", "deberta-v2", "t5")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "deberta one way": ("deberta", {"pos_att_type": ["c2p"]}),
    "deberta the other way": ("deberta", {"pos_att_type": ["p2c"]}),
    "deberta-v2 apart": ("deberta-v2", {"share_att_key": False, "position_buckets": -1, "max_relative_positions": 24}),
}


def prepare(root: Path, few: bool) -> None:
    """Raises ImportError where the tests cannot be imported."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from own_code import MAKERS, NEAREST
    from test_parity import random_rows
    from test_parity_bfloat16 import SCALES
    from tiny import KINDS, tiny_checkpoint

    for name in FEW if few else [*KINDS, *MAKERS, *VARIANTS]:
        folder = root / name.replace(" ", "-")
        if (folder / "truth.npz").exists():
            continue
        shutil.rmtree(folder, ignore_errors=True)
        family, config = VARIANTS.get(name, (name, {}))
        scale = SCALES.get(family, 1.0)
        if family in MAKERS:
            folder.mkdir(parents=True)
            checkpoint = MAKERS[family](folder, "trunk", scale=scale).checkpoint
        else:
            checkpoint = load_checkpoint(tiny_checkpoint(folder, family, "trunk", scale=scale, **config))
        spec = checkpoint.spec
        rows, types = random_rows(NEAREST.get(family, family), spec.embed.vocab, spec.embed.types)
        batch = PackedBatch(
            np.concatenate(rows).astype(np.int32),
            np.concatenate(types).astype(np.int32),
            np.cumsum([0, *map(len, rows)], dtype=np.int32),
            np.array([len(row) for row in rows], np.int32),
        )
        engine = Reference(spec, {STATES.kind: STATES}, checkpoint.weights)
        np.savez(
            folder / "truth.npz",
            states=states(engine, batch),
            ids=batch.ids,
            types=batch.types,
            offsets=batch.offsets,
            visible=batch.visible,
        )


def compare(root: Path, dtypes: tuple[str, ...], device: str, few: bool, left: Any) -> Iterator[dict[str, Any]]:
    """One row per family: by dtype the worst token's relative deviation, and the worst row's cosine of its mean.

    left: () -> seconds; without any, families are named and not compared.
    """
    folders = sorted(path.parent for path in root.glob("*/truth.npz"))
    for folder in sorted(folders, key=lambda folder: folder.name not in FEW):
        if few and folder.name not in FEW:
            continue
        row: dict[str, Any] = {"family": folder.name}
        for dtype in dtypes:
            if left() <= 0:
                row[dtype] = "not compared: no time left"
                continue
            try:
                row[dtype] = compared(folder, dtype, device)
            except Exception as error:  # one family's failure is its own
                row[dtype] = f"{type(error).__name__}: {error}"[:300]
        yield row


def compared(folder: Path, dtype: str, device: str) -> dict[str, Any]:
    """Of three runs of one batch, since a GPU may launch the first one's kernels one by one and the others' at once."""
    truth = np.load(folder / "truth.npz", allow_pickle=False)
    checkpoint = load_checkpoint(folder)
    batch = PackedBatch(truth["ids"], truth["types"], truth["offsets"], truth["visible"])
    engine, theirs = start(checkpoint, dtype, device), truth["states"]
    deviation, cosine = 0.0, 1.0
    for _ in range(3):
        ours = states(engine, batch)
        if not np.isfinite(ours).all():
            raise FloatingPointError("states that are not finite numbers")
        spread = np.linalg.norm(ours.astype(np.float64) - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
        deviation = max(deviation, float(spread.max()))
        for begin, end in pairwise(batch.offsets):
            a, b = ours[begin:end].mean(0, dtype=np.float64), theirs[begin:end].mean(0, dtype=np.float64)
            cosine = min(cosine, float(a @ b / np.sqrt((a @ a) * (b @ b))))
    return {"deviation": float(f"{deviation:.2e}"), "cosine": round(cosine, 6)}


def start(checkpoint: Any, dtype: str, device: str) -> Engine:
    from onepass.engines.torch import Torch

    return Torch(checkpoint.spec, {STATES.kind: STATES}, checkpoint.weights, dtype=dtype, device=device)


def states(engine: Engine, batch: PackedBatch) -> NDArray[np.float32]:
    (output,) = engine.run(batch, [Read(STATES.kind, np.arange(batch.rows, dtype=np.int32))])
    return output.values


def worst(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By dtype: the largest deviation and the smallest cosine, whose they are, and what failed."""
    found: dict[str, Any] = {}
    for dtype in dict.fromkeys(key for row in rows for key in row if key != "family"):
        good = [row for row in rows if isinstance(row.get(dtype), dict)]
        found[dtype] = {"families": len(good), "failed": [r["family"] for r in rows if isinstance(r.get(dtype), str)]}
        if good:
            far = max(good, key=lambda row: row[dtype]["deviation"])
            turned = min(good, key=lambda row: row[dtype]["cosine"])
            found[dtype] |= {"deviation": far[dtype]["deviation"], "of": far["family"]}
            found[dtype] |= {"cosine": turned[dtype]["cosine"], "cosine_of": turned["family"]}
    return found

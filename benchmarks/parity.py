"""How far is every family from transformers? Writes docs/models.json, from which docs/models.md is made.

    python benchmarks/parity.py [FAMILY...]

For each family of tests/tiny.py and tests/own_code.py and each variant of the tests of parity a tiny checkpoint with
redrawn parameters is written, loaded from disk, and read at rows of 1, 2, 3, 17 and 64 tokens: the hidden states, and
the logits of every head that transformers has. Kept is the largest relative deviation of any token in float32, of the
reference engine and of the native engine over all instruction sets of this machine, and the smallest cosine of a row's
mean in bfloat16, variants apart, with the scales of tests/test_parity_bfloat16.py. Families named are measured again,
the others stay as they are.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from own_code import MAKERS, NEAREST, OPTIONS, Pair, read_heads, saved  # noqa: E402
from running import STATES, deviation, run  # noqa: E402
from test_parity import random_rows, trunk  # noqa: E402
from test_parity_bfloat16 import SCALES  # noqa: E402
from test_parity_decoders import VARIANTS  # noqa: E402
from test_parity_heads import UNUSUAL  # noqa: E402
from test_parity_variants import HEADS, TRUNKS  # noqa: E402
from tiny import KINDS, USABLE, tiny_checkpoint  # noqa: E402

from onepass.engines.batch import Engine  # noqa: E402
from onepass.engines.native import Native, instruction_sets  # noqa: E402
from onepass.engines.reference import Reference  # noqa: E402
from onepass.model.checkpoint import Checkpoint, load_checkpoint  # noqa: E402
from onepass.model.families import FAMILIES  # noqa: E402

FILE = ROOT / "docs" / "models.json"
ISAS = [name for name, obstacle in instruction_sets().items() if not obstacle]


@dataclass
class Worst:
    """What is kept of a family."""

    checkpoints: int = 0
    reference: float = 0.0
    native: float = 0.0
    bfloat16: float = 1.0

    def rounded(self) -> dict[str, Any]:
        return {
            "checkpoints": self.checkpoints,
            "reference": float(f"{self.reference:.1e}"),
            "native": float(f"{self.native:.1e}"),
            "bfloat16": float(f"{self.bfloat16:.5f}"),
        }


def checkpoints(family: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(head or "trunk", config) of every checkpoint that is compared."""
    yield from ((head, {}) for head in read_heads(family))
    trunks = (*TRUNKS.values(), *VARIANTS.values(), *OPTIONS.values())
    yield from (("trunk", config) for of, config in trunks if of == family)
    yield from ((head, config) for of, head, config in (*HEADS.values(), *UNUSUAL.values()) if of == family)


def measure(family: str) -> Worst:
    worst = Worst()
    for head, config in checkpoints(family):
        with tempfile.TemporaryDirectory() as folder:
            pair, rows, types = written(Path(folder), family, head, config)
        name, theirs = STATES.kind if head == "trunk" else head, pair.theirs(rows, types)
        for isa in [None, *ISAS]:
            off = deviation(run(start(pair.checkpoint, isa), name, rows, types, finish="none"), theirs)
            if isa is None:
                worst.reference = max(worst.reference, off)
            else:
                worst.native = max(worst.native, off)
        worst.checkpoints += 1
    with tempfile.TemporaryDirectory() as folder:
        pair, rows, types = written(Path(folder), family, "trunk", {"scale": SCALES.get(family, 1.0)})
    for isa in ISAS:
        states = run(start(pair.checkpoint, isa, "bfloat16"), STATES.kind, rows, types)
        worst.bfloat16 = min(worst.bfloat16, *map(cosine, states, pair.theirs(rows, types)))
    return worst


Rows = list[list[int]]


def written(folder: Path, family: str, head: Any, config: dict[str, Any]) -> tuple[Pair, Rows, Rows]:
    """A checkpoint with its model, rows and their types."""
    if family in MAKERS:
        pair = MAKERS[family](folder, head, **config)
    else:
        tiny_checkpoint(folder, family, head, **config)
        pair = Pair(load_checkpoint(folder), trunk(folder) if head == "trunk" else saved(folder, head)[0])
    embed = pair.checkpoint.spec.embed
    return pair, *random_rows(NEAREST.get(family, family), embed.vocab, embed.types)


def start(checkpoint: Checkpoint, isa: str | None, dtype: str = "float32") -> Engine:
    """isa None: the reference engine."""
    heads = {**checkpoint.heads, STATES.kind: STATES}
    if isa is None:
        return Reference(checkpoint.spec, heads, checkpoint.weights)
    return Native(checkpoint.spec, heads, checkpoint.weights, dtype, isa=isa)


def cosine(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Of the means over a row's tokens."""
    a, b = (states.mean(axis=0, dtype=np.float64) for states in (ours, theirs))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {"families": {}}
    for family in sys.argv[1:] or [*KINDS, *MAKERS]:
        found["families"][family] = measure(family).rounded()
        print(family, found["families"][family], flush=True)  # noqa: T201
    found |= {"transformers": transformers.__version__, "instruction_sets": ISAS, "longest": USABLE}
    found["families"] = {family: found["families"][family] for family in FAMILIES if family in found["families"]}
    FILE.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

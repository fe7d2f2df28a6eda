"""How far is every family from transformers? Writes docs/models.json, from which docs/models.md is made.

    python benchmarks/parity.py [FAMILY...]

For each family of tests/tiny.py and each variant of the tests of parity a tiny checkpoint with redrawn parameters is
written by transformers, loaded from disk, and read at rows of 1, 2, 3, 17 and 64 tokens: the hidden states, and the
logits of every head that transformers has. Kept is the largest relative deviation of any token in float32, of the
reference engine and of the native engine over all instruction sets of this machine, and the smallest cosine of a row's
mean in bfloat16, variants apart, with the scales of tests/test_parity_bfloat16.py. Families named are measured again,
the others stay as they are.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from running import STATES, error, run  # noqa: E402
from test_parity import random_rows, reference, trunk  # noqa: E402
from test_parity_bfloat16 import SCALES  # noqa: E402
from test_parity_decoders import VARIANTS  # noqa: E402
from test_parity_heads import logits  # noqa: E402
from test_parity_variants import HEADS, TRUNKS  # noqa: E402
from tiny import AUTO, KINDS, USABLE, tiny_checkpoint  # noqa: E402

from onepass.engines.batch import Engine  # noqa: E402
from onepass.engines.native import Native, instruction_sets  # noqa: E402
from onepass.engines.reference import Reference  # noqa: E402
from onepass.model.checkpoint import Checkpoint, load_checkpoint  # noqa: E402
from onepass.model.families import FAMILIES  # noqa: E402

FILE = ROOT / "docs" / "models.json"
ISAS = [name for name, obstacle in instruction_sets().items() if not obstacle]

Arrays = Sequence[NDArray[np.float32]]


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
    yield "trunk", {}
    for head, reader in FAMILIES[family].heads.items():
        if callable(reader):
            yield head, {}
    yield from (("trunk", config) for of, config in (*TRUNKS.values(), *VARIANTS.values()) if of == family)
    yield from ((head, config) for of, head, config in HEADS.values() if of == family)


def measure(family: str) -> Worst:
    worst = Worst()
    for head, config in checkpoints(family):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, rows, types, theirs = written(Path(folder), family, head, config)
        name = STATES.name if head == "trunk" else head
        for isa in [None, *ISAS]:
            off = deviation(run(start(checkpoint, isa), name, rows, types, finish="none"), theirs)
            if isa is None:
                worst.reference = max(worst.reference, off)
            else:
                worst.native = max(worst.native, off)
        worst.checkpoints += 1
    with tempfile.TemporaryDirectory() as folder:
        scale = {"scale": SCALES.get(family, 1.0)}
        checkpoint, rows, types, theirs = written(Path(folder), family, "trunk", scale)
    for isa in ISAS:
        states = run(start(checkpoint, isa, "bfloat16"), STATES.name, rows, types)
        worst.bfloat16 = min(worst.bfloat16, *map(cosine, states, theirs))
    return worst


Written = tuple[Checkpoint, list[list[int]], list[list[int]], list[NDArray[np.float32]]]


def written(folder: Path, family: str, head: Any, config: dict[str, Any]) -> Written:
    """A checkpoint, rows and their types, and what transformers gives for each row alone."""
    tiny_checkpoint(folder, family, head, **config)
    checkpoint = load_checkpoint(folder)
    rows, types = random_rows(family, checkpoint.spec.embed.vocab, checkpoint.spec.embed.types)
    if head == "trunk":
        model = trunk(folder)
    else:
        kind = AUTO.get(head, "AutoModelForSequenceClassification")
        model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    answers = [reference(model, ids, kinds) for ids, kinds in zip(rows, types, strict=True)]
    theirs = [answer.last_hidden_state[0].numpy() if head == "trunk" else logits(answer) for answer in answers]
    return checkpoint, rows, types, theirs


def start(checkpoint: Checkpoint, isa: str | None, dtype: str = "float32") -> Engine:
    """isa None: the reference engine."""
    heads = {**checkpoint.heads, STATES.name: STATES}
    if isa is None:
        return Reference(checkpoint.spec, heads, checkpoint.weights)
    return Native(checkpoint.spec, heads, checkpoint.weights, dtype, isa=isa)


def deviation(ours: Arrays, theirs: Arrays) -> float:
    """Of the worst token; where a token has few numbers, any of which may be near 0, of the worst column."""
    theirs = [b.reshape(a.shape) for a, b in zip(ours, theirs, strict=True)]
    if ours[0].shape[-1] < 8:
        return error(np.concatenate(ours).T, np.concatenate(theirs).T)
    return max(map(error, ours, theirs))


def cosine(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Of the means over a row's tokens."""
    a, b = (states.mean(axis=0, dtype=np.float64) for states in (ours, theirs))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {"families": {}}
    for family in sys.argv[1:] or KINDS:
        found["families"][family] = measure(family).rounded()
        print(family, found["families"][family], flush=True)  # noqa: T201
    found |= {"transformers": transformers.__version__, "instruction_sets": ISAS, "longest": USABLE}
    found["families"] = {family: found["families"][family] for family in KINDS if family in found["families"]}
    FILE.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

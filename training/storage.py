"""What storing weights smaller costs: the same weights three ways, on the samples of evaluate's --quick.

    python -m training.storage ../shared/data/permissive out/mini

A row of the model card's table for each: bytes, cosines of its vectors to float32's, mean reciprocal rank of the four
retrievals, F1 on wikigold, accuracy of toxicity. All compute in float32.
"""

# ruff: noqa: T201

import argparse
import tempfile
from pathlib import Path

from onepass import Encoder
from training.evaluate import FEW, Evaluation, teacher_path
from training.export import HEADS, export
from training.quality import few

KINDS = ("float32", "bfloat16", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder permissive/")
    parser.add_argument("folder", type=Path, help="what train.py wrote")
    parser.add_argument("--heads", nargs="+", choices=tuple(HEADS), default=tuple(HEADS), help="those that are shipped")
    options = parser.parse_args()
    teacher, exact = Encoder(teacher_path()), None
    print("| stored as | on disk | cosine, mean | least | retrieval | wikigold | toxicity |")
    for stored in KINDS:
        with tempfile.TemporaryDirectory() as out:
            export(options.folder, Path(out), stored, tuple(options.heads))
            size = (Path(out) / "model.safetensors").stat().st_size
            with Encoder(out, dtype="float32") as encoder:
                found = Evaluation(encoder, teacher, options.data, *FEW)
                vectors = found.vectors(texts(found))
                exact = vectors if exact is None else exact
                cosines = (vectors * exact).sum(1)
                near = f"{cosines.mean():.5f} | {cosines.min():.5f}"
                print(f"| {stored} | {size / 1e6:.1f} MB | {near} | {quality(found)} |", flush=True)


def texts(found: Evaluation) -> list[str]:
    return few([pair.text for pairs in found.pairs.values() for pair in pairs], 400)


def quality(found: Evaluation) -> str:
    rows = [*found.embed(), *found.entities(), *found.toxicity()]
    retrieval = [row.model or 0.0 for row in rows if (row.task, row.measure) == ("retrieval", "mrr@10")]
    figures = {(row.on, row.measure): row.model for row in rows}
    names, toxic = figures["wikigold", "f1"], figures["all", "accuracy"]
    return f"{sum(retrieval) / len(retrieval):.3f} | {names:.3f} | {toxic:.3f}"


if __name__ == "__main__":
    main()

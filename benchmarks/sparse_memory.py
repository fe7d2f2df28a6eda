"""What sparse vectors and MaxSim take in memory beyond what goes in and comes out.

A random encoder with SPLADE's head reads 1,000 texts of 256 tokens, 16 to a batch, against vocabularies of two sizes;
one query is compared with more and more documents. Each in a fresh process: `growth` is the most that was resident
during the calls less what was before them, outputs included. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from facts import machine

from onepass.engines.batch import Floats, PackedBatch, Read
from onepass.engines.native import Native, compute_threads
from onepass.model.heads import Activation, HeadSpec, Pool, Vocabulary
from onepass.model.spec import AttentionSpec, EmbedSpec, EncoderSpec, FeedForwardSpec, LayerSpec, NormSpec
from onepass.model.weights import shapes

VOCABULARIES = (30_522, 250_002)  # BERT's, XLM-RoBERTa's
DOCUMENTS = (200, 2_000, 20_000)
WIDTH, TOKENS, TOGETHER = 128, 256, 16
VECTORS, VECTOR_WIDTH = 32, 128  # of a document and of the query
RARE = 5.0  # scores have standard deviation 1 and lose this, so that about one word of a hundred comes out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--vocabulary", type=int, help="only this one, in this process")
    parser.add_argument("--documents", type=int, help="only so many, in this process")
    arguments = parser.parse_args()
    if arguments.vocabulary:
        click.echo(json.dumps(sparse(arguments.vocabulary, arguments.texts, arguments.dtype)))
    elif arguments.documents:
        click.echo(json.dumps(similarity(arguments.documents)))
    else:
        more = ["--texts", str(arguments.texts), "--dtype", arguments.dtype]
        found = [in_a_fresh_process("--vocabulary", str(vocabulary), *more) for vocabulary in VOCABULARIES]
        found += [in_a_fresh_process("--documents", str(documents)) for documents in DOCUMENTS]
        for facts in found:
            click.echo(", ".join(f"{name} {value:,}" for name, value in facts.items()))
        facts = {"benchmark": "sparse_memory", "machine": machine(compute_threads()), "dtype": arguments.dtype}
        click.echo(json.dumps(facts | {"results": found}))


def in_a_fresh_process(*options: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *options]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def sparse(vocabulary: int, texts: int, dtype: str) -> dict[str, float]:
    engine, batch = splade(vocabulary, dtype), batch_of(min(TOGETHER, texts), vocabulary)
    read = Read("splade", np.arange(batch.rows, dtype=np.int32))
    before, started = resident_mb(reset=True), time.monotonic()
    outputs = [engine.run(batch, [read], compute_threads())[0] for _ in range(0, texts, TOGETHER)]
    return {
        "vocabulary": vocabulary,
        "texts": texts,
        "words_per_text": round(sum(len(one.values) for one in outputs) / texts),
        "weights_mb": round(engine.info()["weight_bytes"] / 2**20, 1),
        "outputs_mb": round(sum(2 * one.values.nbytes for one in outputs) / 2**20, 1),
        "growth_mb": round(peak_mb() - before, 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def splade(vocabulary: int, dtype: str) -> Native:
    norm = NormSpec("layer", 1e-12)
    layer = LayerSpec(0, "post", norm, AttentionSpec(2, 64, 0.125, 2), FeedForwardSpec("plain", 4 * WIDTH, "gelu"))
    spec = EncoderSpec(WIDTH, EmbedSpec(vocabulary, WIDTH, norm), (layer,))
    rng = np.random.default_rng(0)
    weights: dict[str, Floats] = {
        name: np.ones(shape, np.float32)
        if "norm" in name
        else rng.standard_normal(shape, np.float32) / np.float32(WIDTH) ** np.float32(0.5)
        for name, shape in shapes(spec).items()
    }
    weights["splade.bias"] = np.full(vocabulary, -RARE, np.float32)
    steps = (Vocabulary(bias="splade.bias"), Activation("relu_log1p"))
    head = HeadSpec("splade", Pool(("max",)), per_token=steps, sparse=True)
    return Native(spec, {"splade": head}, weights, dtype)


def batch_of(rows: int, vocabulary: int) -> PackedBatch:
    ids = np.random.default_rng(1).integers(0, vocabulary, rows * TOKENS).astype(np.int32)
    lengths = np.full(rows, TOKENS, np.int32)
    return PackedBatch(ids, np.zeros_like(ids), np.arange(rows + 1, dtype=np.int32) * np.int32(TOKENS), lengths)


def similarity(documents: int) -> dict[str, float]:
    engine, rng = splade(100, "float32"), np.random.default_rng(0)
    query = rng.standard_normal((VECTORS, VECTOR_WIDTH), np.float32)
    vectors = rng.standard_normal((documents * VECTORS, VECTOR_WIDTH), np.float32)
    offsets = np.arange(documents + 1, dtype=np.int32) * np.int32(VECTORS)
    before, started = resident_mb(reset=True), time.monotonic()
    scores = engine.max_similarity(query, vectors, offsets, compute_threads())
    return {
        "documents": documents,
        "vectors_mb": round(vectors.nbytes / 2**20, 1),
        "outputs_mb": round(scores.nbytes / 2**20, 1),
        "growth_mb": round(peak_mb() - before, 1),
        "seconds": round(time.monotonic() - started, 3),
    }


def resident_mb(*, reset: bool = False) -> float:
    """Resident now; from here on, with `reset`, peak_mb counts anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_mb() -> float:
    return _status("VmHWM")


def _status(wanted: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{wanted}:"))


if __name__ == "__main__":
    main()

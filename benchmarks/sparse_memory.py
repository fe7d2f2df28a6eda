"""What sparse vectors and MaxSim take in memory beyond what goes in and comes out.

A random SPLADE model reads 1,000 texts of 256 tokens through `Encoder.sparse`, against vocabularies of two sizes; one
query is compared with more and more documents. Each in a fresh process: `growth` is the most that was resident
during the calls less what was before them, outputs included. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from facts import machine
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForMaskedLM

from onepass import Encoder
from onepass.engines.native import compute_threads

VOCABULARIES = (30_522, 250_002)  # BERT's, XLM-RoBERTa's
DOCUMENTS = (200, 2_000, 20_000)
WIDTH, TOKENS = 128, 256
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VECTORS, VECTOR_WIDTH = 32, 128  # of a document and of the query
RARE = 4.0  # scores have standard deviation 1 and lose this, so that about one word of a hundred comes out


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
    rng = np.random.default_rng(1)
    # two words less than tokens: special tokens stand around them
    words = rng.integers(len(SPECIAL), vocabulary, (texts, TOKENS - 2)).tolist()
    given = [" ".join(f"w{word}" for word in row) for row in words]
    with tempfile.TemporaryDirectory() as folder:
        write_splade(Path(folder), vocabulary)
        with Encoder(folder, dtype=dtype) as encoder:
            encoder.sparse(given[:1])
            before, started = resident_mb(reset=True), time.monotonic()
            vectors = encoder.sparse(given)
            return {
                "vocabulary": vocabulary,
                "texts": texts,
                "words_per_text": round(sum(map(len, vectors)) / texts),
                "weights_mb": round(encoder.engine.info()["weight_bytes"] / 2**20, 1),
                "outputs_mb": round(sum(one.ids.nbytes + one.weights.nbytes for one in vectors) / 2**20, 1),
                "growth_mb": round(peak_mb() - before, 1),
                "seconds": round(time.monotonic() - started, 1),
            }


def write_splade(folder: Path, vocabulary: int) -> None:
    """A BERT of one layer with SPLADE's head, whose tokens are "w5", "w6" and so on."""
    tokens = [*SPECIAL, *(f"w{index}" for index in range(len(SPECIAL), vocabulary))]
    tokenizer = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=TOKENS,
    )
    model = BertForMaskedLM(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, WIDTH**-0.5, generator=generator)
            elif name == "cls.predictions.bias":
                parameter.fill_(-RARE)
    model.save_pretrained(folder)


def similarity(documents: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    query = rng.standard_normal((VECTORS, VECTOR_WIDTH), np.float32)
    vectors = rng.standard_normal((documents * VECTORS, VECTOR_WIDTH), np.float32)
    offsets = np.arange(documents + 1, dtype=np.int32) * np.int32(VECTORS)
    with tempfile.TemporaryDirectory() as folder:
        write_splade(Path(folder), 100)
        with Encoder(folder, dtype="float32") as encoder:
            before, started = resident_mb(reset=True), time.monotonic()
            scores = encoder.engine.max_similarity(query, vectors, offsets, compute_threads())
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

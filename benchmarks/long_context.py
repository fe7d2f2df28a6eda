"""ModernBERT-base on one long row: time and memory at 1,024 to 8,192 tokens, and what local and global layers cost.

Three checkpoints of its shape with random weights: as published (every third layer sees all tokens, the others 64 to
each side), with local layers only, and with global layers only. Each length runs in a fresh process, after a short row,
and then reads the largest resident memory. Rounds are interleaved; medians. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from facts import machine
from memory import resident
from models import BUILD, edit, folder_of

from onepass import Encoder
from onepass.engines.native import compute_threads

LENGTHS = (1024, 2048, 4096, 8192)
LAYERS = 22
KINDS = {
    "as published": None,
    "local layers only": ["sliding_attention"] * LAYERS,
    "global layers only": ["full_attention"] * LAYERS,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "TOKENS"), help="only this, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        kind, tokens = arguments.one
        click.echo(json.dumps(one(folder(kind), int(tokens), arguments.dtype)))
        return
    turns: dict[tuple[str, int], list[dict[str, float]]] = {}
    cases = [(kind, tokens) for kind in KINDS for tokens in LENGTHS]
    for kind in KINDS:
        folder(kind)
    for number in range(arguments.rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            turns.setdefault(case, []).append(in_a_fresh_process(*case, arguments.dtype))
    results = [summary(kind, tokens, found) for (kind, tokens), found in turns.items()]
    for row in results:
        click.echo(
            f"{row['layers']:<20}{row['tokens']:>6} tokens: {row['milliseconds']:>9,.0f} ms, "
            f"{row['microseconds_per_token']:>5,.0f} us and {row['kib_per_token']:>5.1f} KiB a token"
        )
    facts = {"benchmark": "long_context", "dtype": arguments.dtype, "machine": machine(compute_threads())}
    click.echo(json.dumps(facts | {"results": results}))


def folder(kind: str) -> Path:
    """The checkpoint of this kind: the published shape's weights, with other layer_types."""
    published = folder_of("modernbert-base")
    types = KINDS[kind]
    if types is None:
        return published
    changed = BUILD / f"modernbert-base-{kind.partition(' ')[0]}"
    if not changed.exists():
        changed.mkdir()
        for path in published.iterdir():
            (changed / path.name).symlink_to(path)
        (changed / "config.json").unlink()
        (changed / "config.json").write_text((published / "config.json").read_text())
        edit(changed / "config.json", layer_types=types)
    return changed


def in_a_fresh_process(kind: str, tokens: int, dtype: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--dtype", dtype, "--one", kind, str(tokens)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return dict(answer)


def one(path: Path, tokens: int, dtype: str) -> dict[str, float]:
    encoder = Encoder(path, dtype=dtype, engine="native", max_length=tokens)
    ids = [int(token) for token in np.random.default_rng(0).integers(1000, 30000, tokens - 2)]
    encoder.embed([ids[:100]])
    Path("/proc/self/clear_refs").write_text("5")  # the largest so far was while loading
    before = resident()["VmRSS"]
    times = []
    for _ in range(2):
        start = time.perf_counter()
        encoder.embed([ids])
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "mb": resident()["VmHWM"] - before}


def summary(kind: str, tokens: int, found: list[dict[str, float]]) -> dict[str, Any]:
    seconds = [turn["seconds"] for turn in found]
    memory = statistics.median(turn["mb"] for turn in found)
    middle = statistics.median(seconds)
    return {
        "layers": kind,
        "tokens": tokens,
        "milliseconds": round(1e3 * middle, 1),
        "fastest": round(1e3 * min(seconds), 1),
        "slowest": round(1e3 * max(seconds), 1),
        "microseconds_per_token": round(1e6 * middle / tokens, 1),
        "kib_per_token": round(1024 * memory / tokens, 1),
    }


if __name__ == "__main__":
    main()

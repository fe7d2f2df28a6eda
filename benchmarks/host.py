"""The host's share of a request: with an engine that computes nothing, scheduled as on a GPU.

    python benchmarks/host.py [--rounds 15] [--profile rerank200/ids]

What is left is everything around the engine: checks, tokens to rows, the queue, packing, handing out, the answer.
`tokenizers` is the library alone, over the same texts at once. Seconds are the wall's and the process's (all threads).
Weights are random, the vocabulary is made up. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import platform
import pstats
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import made_up
import numpy as np
from tokenizers import Tokenizer
from workloads import Workload, drawn, vocabulary_words, workload

from onepass import Encoder
from onepass.engines.batch import Engine, Floats, Ints, Output, PackedBatch, Read
from onepass.engines.place import gpu
from onepass.schedule.device import Device

MICRO_BATCH = 8192  # tokens, as on a GPU for a model of BERT-base's size


class Idle:
    """Zeros, at once: float32 [rows, width] for each read."""

    name, dtype = "idle", "float32"

    def __init__(self, width: int) -> None:
        self._width = width

    def run(self, batch: PackedBatch, reads: Sequence[Read], cores: int = 1) -> list[Output]:
        return [self._output(len(read.rows)) for read in reads]

    def _output(self, rows: int) -> Output:
        return Output(np.zeros((rows, self._width), np.float32), np.arange(rows + 1, dtype=np.int32))

    def max_similarity(self, query: Floats, documents: Floats, offsets: Ints, cores: int = 1) -> Floats:
        return np.zeros(len(offsets) - 1, np.float32)

    def info(self) -> Mapping[str, Any]:
        return {}


def idle(folder: Any, width: int) -> Encoder:
    """The checkpoint's encoder on a device of its own, with nothing behind it."""
    place = replace(gpu("cpu", "asked"), least=MICRO_BATCH, most=MICRO_BATCH, sizes=((8,),), runs=1)
    encoder = Encoder(folder, engine="reference", device=Device(2, place=place))
    engine: Engine = Idle(width)
    encoder.device.register(encoder._name, engine, encoder.checkpoint.max_length)
    return encoder


def calls(works: Mapping[str, Workload], library: Tokenizer) -> dict[str, Callable[[], object]]:
    """By workload and kind."""
    embedder, reranker = idle(made_up.embedder(), made_up.WIDTH), idle(made_up.reranker(), 1)
    found: dict[str, Callable[[], object]] = {}
    for name, work in works.items():
        ids = [row[1:-1] for row in work.ids]
        found[f"{name}/ids"] = partial(embedder.embed, ids)
        found[f"{name}/texts"] = partial(embedder.embed, work.texts)
        found[f"{name}/rerank"] = partial(reranker.rerank, "a query of five words", work.texts)
        found[f"{name}/tokenizers"] = partial(library.encode_batch_fast, work.texts)
    return found


def timed(call: Callable[[], object], times: int) -> tuple[float, float]:
    """Seconds of one call: on the wall, and of all threads."""
    wall, spent = time.perf_counter(), time.process_time()
    for _ in range(times):
        call()
    return (time.perf_counter() - wall) / times, (time.process_time() - spent) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--profile", metavar="CALL", help="where one call's time goes, in the calling thread")
    arguments = parser.parse_args()
    folder = made_up.embedder()
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words: Any = np.array(vocabulary_words(folder))
    lengths = {"single": [12], "rerank200": drawn(200, median=90), "rows512": [512] * 64}
    works = {name: workload(name, sizes, words, library) for name, sizes in lengths.items()}
    every = calls(works, library)
    if arguments.profile is not None:
        profile(every[arguments.profile])
        return
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in every}
    for _ in range(arguments.rounds + 1):
        for name, call in every.items():
            runs[name].append(timed(call, 50 if name.startswith("single") else 1))
    results = []
    for name, times in runs.items():
        wall, spent = np.array(times[1:]).T * 1e6
        rows, tokens = len(works[name.split("/")[0]].ids), works[name.split("/")[0]].tokens
        row = {"call": name, "rows": rows, "tokens": tokens}
        row |= {"microseconds": round(float(np.median(wall))), "least": round(wall.min())}
        row |= {"all_threads": round(float(np.median(spent))), "per_row": round(float(np.median(wall)) / rows, 1)}
        results.append(row)
        print(f"{name:<22} {row['microseconds']:>8} us, least {row['least']:>8}, all threads {row['all_threads']:>8}")  # noqa: T201
    print(json.dumps({"benchmark": "host", "machine": platform.machine(), "results": results}))  # noqa: T201


def profile(call: Callable[[], object]) -> None:
    call()
    recorded = cProfile.Profile()
    recorded.runcall(lambda: [call() for _ in range(10)])
    pstats.Stats(recorded).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()

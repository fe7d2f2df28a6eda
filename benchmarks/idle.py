"""How idle a GPU would be that reranks back to back: with an engine that computes nothing and takes as long as one.

    python benchmarks/idle.py [--milliseconds 12.2 32] [--clients 8] [--requests 40] [--rounds 5]

milliseconds: that 200 passages take there, 9 % of them fixed. Each micro-batch makes some small calls of torch, as the
torch engine does, in which another thread may take the interpreter. Clients ask again as soon as they are answered.
Tokens are remembered from before, because here are too few cores to make them: what is left is the rest of the
pipeline.
"By turns" is the same scheduler where no request is long enough to trade its turns. Shares of the time in interleaved
rounds in both orders, medians and quartiles. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import made_up
import numpy as np
import torch
from gpu_trace import WARM, as_in_a_server, stream
from host import Idle
from tokenizers import Tokenizer
from workloads import Workload, drawn, vocabulary_words, workload

from onepass import Encoder
from onepass.engines.batch import Output, PackedBatch, Read
from onepass.engines.place import gpu
from onepass.schedule import scheduler
from onepass.schedule.device import Device

CORES = 16  # that tokenise where the GPU is
FIXED = 0.09  # of the time of 200 passages
CALLS = 20  # of torch, for each micro-batch
SHORT = {"one after another": scheduler.SHORT, "by turns": 1 << 30}


class Waits(Idle):
    """One micro-batch after another, each as long as a GPU would take. spans: when it was busy, in seconds."""

    def __init__(self, seconds: float, tokens: int) -> None:
        super().__init__(1)
        self._fixed, self._per_token = FIXED * seconds, (1 - FIXED) * seconds / tokens
        self._lock, self._free = threading.Lock(), 0.0
        self.spans: list[tuple[float, float]] = []
        self._little = torch.zeros(64)

    def run(self, batch: PackedBatch, reads: Sequence[Read], cores: int = 1) -> list[Output]:
        with self._lock:
            for _ in range(CALLS):
                self._little.add(1)
            begin = max(time.perf_counter(), self._free)
            self._free = end = begin + self._fixed + self._per_token * batch.tokens
            self.spans.append((begin, end))
        time.sleep(max(end - time.perf_counter(), 0))
        return super().run(batch, reads, cores)


class Remembers:
    """A tokenizers library that tokenises no text twice."""

    def __init__(self, library: Any) -> None:
        self._library, self._known = library, {}  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool = False) -> list[Any]:
        if new := [text for text in texts if text not in self._known]:
            self._known.update(zip(new, self._library.encode_batch_fast(new, add_special_tokens=False), strict=True))
        return [self._known[text] for text in texts]


def idle(encoder: Encoder, engine: Waits, query: str, texts: list[str], requests: int, clients: int) -> float:
    """The share of the time in which it waited for work."""
    engine.spans.clear()
    started = time.perf_counter()
    asyncio.run(stream(encoder, query, texts, 1, 1))
    apart = (time.perf_counter() - started) / clients
    engine.spans.clear()
    asyncio.run(stream(encoder, query, texts, requests, clients, apart))
    return 1 - sum(end - begin for begin, end in engine.spans) / (engine.spans[-1][1] - engine.spans[0][0])


def shares(seconds: float, work: Workload, arguments: argparse.Namespace) -> Mapping[str, list[float]]:
    encoder = Encoder(made_up.reranker(), engine="reference", device=Device(CORES, place=gpu("cpu", "asked")))
    engine = Waits(seconds, work.tokens)
    encoder.device.register(encoder._name, engine, encoder.checkpoint.max_length)
    encoder.tokenizer._library = Remembers(encoder.tokenizer._library)  # type: ignore[assignment]
    query = " ".join(work.texts[0].split()[:6])
    texts = [" ".join(text.split()[:-10]) or "a" for text in work.texts]  # with the query as long as they were
    found: dict[str, list[float]] = {name: [] for name in SHORT}
    with as_in_a_server(), encoder:
        asyncio.run(stream(encoder, query, texts, WARM * arguments.clients, arguments.clients))
        for number in range(arguments.rounds):
            for name in (SHORT, reversed(SHORT))[number % 2]:
                scheduler.SHORT = SHORT[name]
                found[name].append(idle(encoder, engine, query, texts, arguments.requests, arguments.clients))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--milliseconds", type=float, nargs="+", default=[12.2, 32.0])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder = made_up.reranker()
    words: Any = np.array(vocabulary_words(folder))
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    work = workload("rerank200", drawn(200, median=90), words, library)
    results = []
    for milliseconds in arguments.milliseconds:
        for name, own in shares(milliseconds / 1e3, work, arguments).items():
            low, median, high = (round(float(np.quantile(own, q)), 3) for q in (0.25, 0.5, 0.75))
            results.append({"milliseconds": milliseconds, "order": name, "idle": median, "quartiles": [low, high]})
            print(f"{milliseconds} ms, {name}: idle {median:.1%} ({low:.1%}..{high:.1%})")  # noqa: T201
    print(json.dumps({"benchmark": "idle", "machine": platform.machine(), "results": results}))  # noqa: T201


if __name__ == "__main__":
    main()

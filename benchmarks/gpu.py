"""The torch engine on one GPU beside what one could run instead, in bfloat16, one process, interleaved rounds.

    make bench-gpu                          minutes on a GPU; DEVICE=cpu SHAPE=tiny tries the same code anywhere
    python benchmarks/gpu.py --smoke        the least that says whether all is well, and where the time goes
    python benchmarks/gpu.py --prepare      what a machine with a GPU cannot make: build/gpu, to be copied there

Needs torch, transformers, sentence-transformers and onepass's own dependencies, nothing compiled. Every part stands by
itself: one that fails is named with its error and the others run; what is found is written after each part. Weights are
random, shapes are published ones. Operations are counted on real tokens only (workloads.py), and a share is of what
this device reached in one product of two bfloat16 matrices in the same run. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gpu_parity
import gpu_trace
import numpy as np
import torch
import transformers
from gpu_models import LONGEST, model_folder, tokenizer_folder
from gpu_rivals import Compiled, Engine, Onepass, SentenceTransformers, Transformers
from gpu_rounds import Runs, measured, result
from tokenizers import Tokenizer
from workloads import Workload, drawn, vocabulary_words, workload

from onepass import Encoder

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "triton", "transformers", "sentence-transformers", "tokenizers", "numpy")
ORDER = ("bert-base", "bert-large", "deberta-v3-base", "minilm-l6", "modernbert-base")
TRACED = ("bert-base", "bert-large")
PARTS = ("models", "traces", "parity", "compiled")
COMPILED = (("bert-base", "single", 1), ("bert-base", "rows512", 64), ("bert-large", "rows512", 64))
GOALS = {
    "bert-large rows512, share of the bfloat16 peak": 0.55,
    "stream512, times sentence-transformers": 3.0,
    "deberta-v3-base rerank200, times transformers": 2.5,
    "bert-base single, milliseconds": 1.0,
    "idle share of the device": 0.10,
}
EXPECTED = {"model": 14.0, "trace": 12.0, "parity": 10.0, "compiled": 35.0}
"""Seconds that a part takes; one that does not fit any more is left out and named."""


@dataclass
class Bench:
    """What all parts share. seconds: for all of them together.  out: for gpu.json and pictures."""

    device: str
    tiny: bool
    seconds: float
    out: Path
    scratch: Path
    given_tokenizer: Path | None
    found: dict[str, Any] = field(default_factory=lambda: {"failed": {}, "left_out": [], "seconds": {}, "results": []})
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.started)

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)  # noqa: T201

    def part(self, name: str, run: Callable[[], None], expected: float = 0.0) -> None:
        """Run it, or say why not; then write all that is found."""
        if self.left < expected:
            self.say(f"{name}: left out, {max(self.left, 0):.0f} s are left and it takes {expected:.0f}")
            self.found["left_out"].append(name)
            return
        begun = time.monotonic()
        self.say(name)
        try:
            run()
        except Exception as error:
            traceback.print_exc(limit=-6, file=sys.stdout)
            self.found["failed"][name] = f"{type(error).__name__}: {error}"[:500]
        self.found["seconds"][name] = round(time.monotonic() - begun, 1)
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
        self.write()

    # What parts share.

    @cached_property
    def tokenizer(self) -> Path:
        folder, self.found["vocabulary"] = tokenizer_folder(self.scratch, self.given_tokenizer)
        return folder

    @cached_property
    def works(self) -> dict[str, Workload]:
        """As workloads.py draws them, and 64 rows of 512 tokens."""
        library = Tokenizer.from_file(str(self.tokenizer / "tokenizer.json"))
        words: Any = np.array(vocabulary_words(self.tokenizer))
        lengths = {
            "single": [12],
            "rerank200": drawn(200, median=90),
            "stream512": drawn(512, median=60),
            "rows512": [LONGEST] * 64,
        }
        if self.tiny:
            lengths = {name: [min(size, 40) for size in sizes[:5]] for name, sizes in lengths.items()}
        return {name: workload(name, sizes, words, library) for name, sizes in lengths.items()}

    def folder(self, name: str, *, reranker: bool = False) -> Path:
        return model_folder(
            self.scratch, name, tiny=self.tiny, tokenizer=self.tokenizer, device=self.device, reranker=reranker
        )

    def encoder(self, folder: Path) -> Encoder:
        return Encoder(folder, engine="torch", device=self.device, dtype="bfloat16", max_length=LONGEST)

    @property
    def peak(self) -> float | None:
        """Operations per second."""
        teraflops = self.found.get("bfloat16_peak_teraflops")
        return None if teraflops is None else teraflops * 1e12

    @property
    def cuda(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "gpu.json").write_text(json.dumps(self.found) + "\n")


# Parts.


def facts(bench: Bench) -> None:
    found: dict[str, Any] = {"python": platform.python_version(), "versions": {}, "device": bench.device}
    for name in PACKAGES:
        try:
            found["versions"][name] = version(name)
        except PackageNotFoundError:
            found["versions"][name] = None
    if bench.cuda:
        properties = torch.cuda.get_device_properties(bench.device)
        found |= {
            "gpu": properties.name,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    bench.found["machine"] = found
    bench.say(json.dumps(found))


def peak(bench: Bench) -> None:
    """The median of products of two random bfloat16 matrices, once the device has its working temperature and clock."""
    size, warm, times = (8192, 300, 100) if bench.cuda else (256, 3, 3)
    a, b = torch.randn(2, size, size, device=bench.device).bfloat16()
    seconds = []
    for number in range(warm + times):
        if bench.cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            a @ b
            end.record()
            end.synchronize()
            taken = begin.elapsed_time(end) / 1e3
        else:
            started = time.perf_counter()
            a @ b
            taken = time.perf_counter() - started
        if number >= warm:
            seconds.append(taken)
    teraflops = 2 * size**3 / float(np.median(seconds)) / 1e12
    bench.found["bfloat16_peak_teraflops"] = round(teraflops, 3)
    bench.say(f"bfloat16 peak: {teraflops:.1f} TFLOP/s in products of {size} x {size}")


def model(bench: Bench, name: str, *, seconds: float, rounds: int) -> None:
    """One shape, all workloads: from ids beside transformers, from texts beside sentence-transformers."""
    folder = bench.folder(name)
    bench.say(f"{name}: written")
    encoder = bench.encoder(folder)
    bench.found.setdefault("onepass", {})[name] = plain(encoder.info(), "engine", "choices", "micro_batch_tokens")
    bench.say(f"{name}: onepass loaded in {encoder.load_seconds:.1f} s")
    rivals = [
        Transformers(folder, bench.device),
        Onepass(encoder),
        Engine(encoder),
        SentenceTransformers(folder, bench.device),
    ]
    bench.found.setdefault("transformers_attention", {})[name] = rivals[0].attention
    bench.say(f"{name}: all loaded")
    for work in bench.works.values():
        for kind in ("ids",) if work.name == "rows512" else ("ids", "texts"):
            record(bench, name, work, measured(rivals, work, kind, seconds=seconds, rounds=rounds), encoder)
    encoder.close()


def record(bench: Bench, name: str, work: Workload, runs: list[Runs], encoder: Encoder) -> None:
    operations = work.operations(encoder.checkpoint.spec)
    for run in runs:
        row = result(run, name, work, operations, bench.peak)
        bench.found["results"].append(row)
        times = row["milliseconds"]
        share = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:6.1%}"
        bench.say(
            f"{name:<16} {work.name:<10} {run.input:<6} {run.engine:<22} {times['median']:>10.3f} ms "
            f"({times['quarter']:.3f}..{times['three_quarters']:.3f}) {row['tokens_per_second']:>10,} tokens/s {share} "
            f"batch {run.size}, 1 - cosine {1 - run.cosine:.1e}{'' if row['agrees'] else ' DISAGREES'}"
        )
    bench.write()


def compiled(bench: Bench, name: str, workload_name: str, size: int, *, seconds: float, rounds: int) -> None:
    """transformers through torch.compile beside the same without and onepass; how long compiling took is said."""
    folder, work = bench.folder(name), bench.works[workload_name]
    encoder = bench.encoder(folder)
    ours = [Onepass(encoder), Engine(encoder)]
    begun = time.monotonic()
    theirs = Compiled(folder, bench.device, min(size, len(work.ids)))
    theirs.ids(work.ids, theirs.sizes[0])
    taken = round(time.monotonic() - begun, 1)
    bench.found.setdefault("compile_seconds", {})[f"{name} {workload_name}"] = taken
    bench.say(f"{name} {workload_name}: compiled in {taken} s")
    rivals = [Transformers(folder, bench.device), theirs, *ours]
    record(bench, name, work, measured(rivals, work, "ids", seconds=seconds, rounds=rounds), encoder)
    encoder.close()


def trace(bench: Bench, name: str) -> None:
    """Requests to rerank 200 documents, as texts, back to back; a picture of when the device was busy."""
    encoder = bench.encoder(bench.folder(name, reranker=True))
    words = vocabulary_words(bench.tokenizer)
    query = " ".join(words[:6])
    documents = [text.split() for text in bench.works["rerank200"].texts]
    texts = [" ".join(words[: max(1, len(words) - 12)]) for words in documents]  # with the query as long as rerank200
    requests, at_once = (3, 2) if bench.tiny else (40, 8)
    found, spans = gpu_trace.traced(encoder, query, texts, bench.out, requests=requests, at_once=at_once)
    bench.found.setdefault("trace", {})[name] = found
    bench.say(f"{name}: {json.dumps(found)}")
    title = f"{name}, {requests} requests of {len(texts)} documents: the device is idle {found['idle_share']:.1%} of it"
    gpu_trace.picture(spans, title, bench.out / f"gpu-trace-{name}.svg")
    encoder.close()


def parity(bench: Bench, folder: Path, *, few: bool, dtypes: tuple[str, ...]) -> None:
    try:
        gpu_parity.prepare(folder, few)
    except ImportError as error:
        bench.say(f"checkpoints that are there already are compared, no others are made: {error}")
    rows = []
    for row in gpu_parity.compare(folder, dtypes, bench.device, few, lambda: bench.left - 5):
        rows.append(row)
        bench.say(json.dumps(row))
    if not rows:
        raise FileNotFoundError(f"no checkpoints in {folder}; make them where the tests run, with --prepare")
    bench.found["parity"] = {"worst": gpu_parity.worst(rows), "families": rows}
    bench.say(json.dumps(bench.found["parity"]["worst"]))


def busiest(bench: Bench, name: str, workload_name: str) -> None:
    """The engine's own call: how long, what share of the peak, and which kernels take it."""
    encoder = bench.encoder(bench.folder(name))
    engine, work = Engine(encoder), bench.works[workload_name]
    for run in measured([engine, Onepass(encoder)], work, "ids", seconds=1.5, rounds=7):
        record(bench, name, work, [run], encoder)
    rows = gpu_trace.kernels(lambda: engine.ids(work.ids, 1 << 16), bench.out)
    bench.found.setdefault("kernels", {})[f"{name} {workload_name}"] = rows
    for row in rows:
        bench.say(f"{row['share']:6.1%} {row['calls']:>5} calls {row['microseconds']:>8} us  {row['kernel']}")
    bench.say(f"from the first kernel to the end of the last: {rows[0]['span']} us")
    encoder.close()


def tiles(bench: Bench) -> None:
    """DeBERTa's kernel: right, and how fast in which tiles, at rerank200 in DeBERTa-v3's shape."""
    from gpu_tiles import compare, timings

    bench.found["disentangled"] = {"deviation": compare(bench.device)}
    bench.say(f"from the plain loop: {json.dumps(bench.found['disentangled']['deviation'])}")
    if bench.cuda:
        for row in timings([len(ids) for ids in bench.works["rerank200"].ids]):
            bench.found["disentangled"].setdefault("timings", []).append(row)
            bench.say(json.dumps(row))


# What is judged.


def goals(results: list[dict[str, Any]], traces: dict[str, Any]) -> list[dict[str, Any]]:
    """What was wanted beside what was found, None where it was not measured."""

    def row(model: str, work: str, kind: str, *engines: str) -> dict[str, Any] | None:
        """The fastest of these that agrees."""
        mine = [
            row
            for row in results
            if (row["model"], row["workload"], row["input"]) == (model, work, kind)
            and row["engine"] in engines
            and row["agrees"]
        ]
        return min(mine, key=lambda row: row["milliseconds"]["median"], default=None)

    def times(model: str, work: str, kind: str, ours: str, theirs: str) -> float | None:
        mine, other = row(model, work, kind, ours), row(model, work, kind, theirs)
        if mine is None or other is None:
            return None
        return round(other["milliseconds"]["median"] / mine["milliseconds"]["median"], 3)

    found: dict[str, dict[str, Any]] = {name: {} for name in GOALS}
    large, single = (
        {engine: row(model, work, "ids", engine) for engine in ("onepass", "onepass engine")}
        for model, work in (("bert-large", "rows512"), ("bert-base", "single"))
    )
    names = iter(GOALS)
    found[next(names)] = {engine: None if row is None else row["share_of_peak"] for engine, row in large.items()}
    found[next(names)] = {
        f"{model}, from texts": times(model, "stream512", "texts", "onepass", "sentence-transformers")
        for model in ORDER
    }
    found[next(names)] = {
        engine: times("deberta-v3-base", "rerank200", "ids", engine, "transformers")
        for engine in ("onepass", "onepass engine")
    }
    found[next(names)] = {
        engine: None if row is None else row["milliseconds"]["median"] for engine, row in single.items()
    }
    found[next(names)] = {model: facts["idle_share"] for model, facts in traces.items()}
    return [{"what": name, "wanted": wanted, "found": found[name]} for name, wanted in GOALS.items()]


def plain(facts: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: facts[name] for name in names if name in facts}


def main() -> None:
    arguments = parsed()
    tiny = arguments.shape == "tiny"
    bench = Bench(
        device=arguments.device,
        tiny=tiny,
        seconds=arguments.seconds,
        out=arguments.out,
        scratch=arguments.scratch,
        given_tokenizer=arguments.tokenizer,
    )
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    bench.found |= {"benchmark": "gpu", "shape": arguments.shape, "smoke": arguments.smoke}
    if arguments.prepare:
        gpu_parity.prepare(arguments.parity, few=False)
        bench.say(f"{arguments.parity} and {bench.tokenizer} are there, to be taken to a machine with a GPU")
        return
    bench.part("facts", lambda: facts(bench))
    bench.part("peak", lambda: peak(bench))
    if arguments.smoke:
        smoke(bench, arguments)
    else:
        whole(bench, arguments)
    bench.found["goals"] = goals(bench.found["results"], bench.found.get("trace", {}))
    for goal in bench.found["goals"]:
        bench.say(f"{goal['what']}: wanted {goal['wanted']}, found {json.dumps(goal['found'])}")
    bench.found["total_seconds"] = round(time.monotonic() - bench.started, 1)
    bench.write()
    print(json.dumps(bench.found))  # noqa: T201


def whole(bench: Bench, arguments: argparse.Namespace) -> None:
    timing: dict[str, Any] = {"seconds": 0.0, "rounds": 1} if bench.tiny else {"seconds": 0.5, "rounds": 9}
    expected = dict.fromkeys(EXPECTED, 0.0) if bench.tiny else EXPECTED
    parts = arguments.parts
    for name in arguments.models if "models" in parts else ():
        bench.part(f"model {name}", partial(model, bench, name, **timing), expected["model"])
        if name in TRACED and "traces" in parts:
            bench.part(f"trace {name}", partial(trace, bench, name), expected["trace"])
    if "parity" in parts:
        dtypes = ("bfloat16", "float16", "float32")
        bench.part("parity", lambda: parity(bench, arguments.parity, few=bench.tiny, dtypes=dtypes), expected["parity"])
    for name, work, size in COMPILED if "compiled" in parts else ():
        run = partial(compiled, bench, name, work, size, **timing)
        bench.part(f"compiled {name} {work}", run, expected["compiled"])


def smoke(bench: Bench, arguments: argparse.Namespace) -> None:
    bench.part("disentangled", lambda: tiles(bench))
    bench.part("parity", lambda: parity(bench, arguments.parity, few=True, dtypes=("bfloat16", "float32")))
    for name, work in (("bert-base", "single"), ("bert-large", "rows512"), ("deberta-v3-base", "rerank200")):
        bench.part(f"{name} {work}", partial(busiest, bench, name, work))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", choices=("full", "tiny"), default="full")
    parser.add_argument("--smoke", action="store_true", help="a minute that says whether all is well")
    parser.add_argument("--prepare", action="store_true", help="only make what needs the tests' packages")
    parser.add_argument("--seconds", type=float, default=225.0, help="for everything, imports apart")
    parser.add_argument("--models", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="traces come with their models")
    parser.add_argument("--tokenizer", type=Path, help="folder with a WordPiece tokenizer.json")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="folder of gpu.json and pictures")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build" / "gpu", help="folder of models made here")
    parser.add_argument("--parity", type=Path, default=ROOT / "build" / "gpu" / "parity", help="see gpu_parity.py")
    return parser.parse_args()


if __name__ == "__main__":
    main()

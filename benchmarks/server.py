"""What HTTP costs: requests per second and latency of `onepass serve`, beside what it is made of, and beside peers.

Two workloads: one short text to an embedding model (all-MiniLM-L6-v2), and a query with 200 documents to a reranker
of the same shape (random weights). Contestants:

- onepass: `onepass serve`, in its own process;
- bare: the same HTTP library with an application that reads the body and answers the same bytes, without an engine;
- in process: the engine called from Python, as many requests at once as there are clients;
- fastapi: sentence-transformers behind FastAPI, as people write it; infinity: infinity-emb, where --infinity names the
  Python it is installed in (its dependencies do not go with the others). With rerank200 these and the engine in process
  meet few clients only, because no more of them make it faster and a turn would take minutes.

At saturation a request should cost what the bare application and the engine take together, so the predicted rate is
1 / (1 / bare + 1 / in process). At half of saturation requests arrive at random times. All servers run at once and
idle but for the one whose turn it is; every second round is in reverse order. Stops by itself; the last line is JSON.

Servers, engine and clients share all cores unless --server-cores and --client-cores part them. On two cores
`--workloads single --clients 1 64 --rounds 1 --seconds 4` takes a minute. A turn of rerank200 sends a request for each
client at least, of about a second each on two cores: some 6 minutes at 256 clients.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import httpx
import made_up
import numpy as np
from cores import Cores, add_cores, busy_seconds, keep_to, starting_on
from facts import machine
from live import Live, serving
from load import Plan, plan_as_json
from models import folder_of, reranker_folder
from quiet import QUIET
from workloads import SPECIAL, drawn, vocabulary_words

from onepass import Encoder

CLIENTS = (1, 16, 64, 256)
PEER_CLIENTS = {"single": 64, "rerank200": 2}
ENGINE_CLIENTS = {"single": 256, "rerank200": 16}  # at most
QUERY_WORDS = 8
DOCUMENTS = 200
START_SECONDS = 180
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Work:
    """bodies: by dialect, of the same requests.  ask: the same of an encoder in this process, by number."""

    name: str
    model: str
    folder: Path
    path: dict[str, str]
    bodies: dict[str, list[str]]
    ask: Callable[[Encoder, int], Awaitable[Any]]


@dataclass(slots=True)
class Measured:
    """What one contestant did at one load, a turn each."""

    turns: list[dict[str, Any]] = field(default_factory=list)

    def middle(self, name: str) -> float:
        quiet = [turn[name] for turn in self.turns if turn["others"] <= QUIET]
        return statistics.median(quiet or [turn[name] for turn in self.turns])

    def facts(self) -> dict[str, Any]:
        rates = [turn["per_second"] for turn in self.turns]
        return {
            "per_second": round(self.middle("per_second"), 2),
            "spread": [round(min(rates), 2), round(max(rates), 2)],
            "median_ms": round(self.middle("median_ms"), 2),
            "p99_ms": round(self.middle("p99_ms"), 2),
            "others": round(self.middle("others"), 3),
            "refused": sum((sum(turn["refused"].values()) for turn in self.turns), 0),
        }


def main() -> None:
    arguments = parsed()
    keep_to(arguments.server_cores)
    made = {"single": singles, "rerank200": reranks}
    results = {name: bench(made[name](arguments.random), arguments) for name in arguments.workloads}
    click.echo(json.dumps({"benchmark": "server", "machine": machine(len(arguments.server_cores)), **results}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", nargs="+", choices=("single", "rerank200"), default=["single", "rerank200"])
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS))
    parser.add_argument("--seconds", type=float, default=8, help="of each turn")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no-peers", action="store_true", help="only onepass and what it is made of")
    parser.add_argument("--infinity", type=Path, help="the python of an environment that has infinity-emb")
    parser.add_argument("--random", action="store_true", help="random weights and a made-up vocabulary")
    add_cores(parser)
    return parser.parse_args()


def singles(made_up_model: bool) -> Work:
    """Texts of 12 tokens."""
    folder = made_up.embedder() if made_up_model else folder_of("minilm-l6")
    words, random = vocabulary_words(folder), np.random.default_rng(1)
    texts = [" ".join(random.choice(words, 12 - SPECIAL)) for _ in range(512)]
    model = folder.name if made_up_model else "all-MiniLM-L6-v2"
    return Work(
        "single",
        model,
        folder,
        {"onepass": "/v1/embeddings", "fastapi": "/embed", "infinity": "/embeddings"},
        {
            "onepass": [json.dumps({"input": text, "model": model, "encoding_format": "base64"}) for text in texts],
            "fastapi": [json.dumps({"texts": [text]}) for text in texts],
            "infinity": [json.dumps({"input": text, "model": model, "encoding_format": "base64"}) for text in texts],
        },
        lambda encoder, number: encoder.aembed(texts[number % len(texts)]),
    )


def reranks(made_up_model: bool) -> Work:
    """A query of 8 words and 200 documents, so that the pairs have the lengths of the workload rerank200."""
    folder = made_up.reranker() if made_up_model else reranker_folder()
    words, random = vocabulary_words(folder), np.random.default_rng(2)
    query = " ".join(random.choice(words, QUERY_WORDS))
    around = QUERY_WORDS + SPECIAL + 1
    sizes = [max(size - around, 2) for size in drawn(DOCUMENTS, median=90)]
    documents = [" ".join(random.choice(words, size)) for size in sizes]
    body = {"query": query, "documents": documents, "model": "reranker"}
    return Work(
        "rerank200",
        "reranker",
        folder,
        {"onepass": "/v1/rerank", "fastapi": "/rerank", "infinity": "/rerank"},
        {
            "onepass": [json.dumps(body | {"return_documents": False})],
            "fastapi": [json.dumps({"query": query, "documents": documents})],
            "infinity": [json.dumps(body)],
        },
        lambda encoder, number: encoder.arerank(query, documents),
    )


def bench(work: Work, arguments: argparse.Namespace) -> dict[str, Any]:
    found: dict[tuple[str, int], Measured] = {}
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(serving("--queue-tokens", "67108864", model=f"{work.model}={work.folder}"))
        recorded = post(live.address + work.path["onepass"], work.bodies["onepass"][0].encode())
        urls = {
            "onepass": live.address + work.path["onepass"],
            "bare": stack.enter_context(bare(work.path["onepass"], recorded.content)),
        }
        for peer, command in {} if arguments.no_peers else peers(work, arguments.infinity).items():
            urls[peer] = stack.enter_context(started(peer, command, work))
        encoder = stack.enter_context(Encoder(work.folder))
        turns = plans(work, urls, arguments)
        for number in range(arguments.rounds):
            for contestant, plan in turns if number % 2 == 0 else turns[::-1]:
                if contestant == "in process":
                    one = in_process(work, encoder, plan)
                else:
                    one = loaded(plan, arguments.client_cores)
                found.setdefault((contestant, plan.clients), Measured()).turns.append(one)
                say(work, contestant, plan, one)
        return summary(work, found, live, urls["onepass"], arguments)


def plans(work: Work, urls: dict[str, str], arguments: argparse.Namespace) -> list[tuple[str, Plan]]:
    found = []
    for contestant, url in [*urls.items(), ("in process", "")]:
        peer = contestant not in ("onepass", "bare", "in process")
        bodies = work.bodies[contestant if peer else "onepass"]
        for clients in [PEER_CLIENTS[work.name]] if peer else arguments.clients:
            if contestant == "in process" and clients > ENGINE_CLIENTS[work.name]:
                continue
            found.append((contestant, Plan(url, bodies, clients, arguments.seconds, least=clients)))
    return found


def summary(
    work: Work, found: dict[tuple[str, int], Measured], live: Live, url: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    def best(contestant: str) -> float:
        return max(one.middle("per_second") for (name, _), one in found.items() if name == contestant)

    saturated = best("onepass")
    together = 1 / (1 / best("bare") + 1 / best("in process"))
    seconds = max(3 * arguments.seconds, 60 / saturated if work.name == "rerank200" else 0)
    before = lag(live)
    half = loaded(Plan(url, work.bodies["onepass"], 16, seconds, rate=saturated / 2), arguments.client_cores)
    facts = {
        "contestants": [
            {"contestant": name, "clients": clients, **one.facts()} for (name, clients), one in found.items()
        ],
        "saturated_per_second": round(saturated, 2),
        "predicted_per_second": round(together, 2),
        "share_of_predicted": round(saturated / together, 3),
        "half_of_saturation": {
            "median_ms": round(half["median_ms"], 2),
            "p99_ms": round(half["p99_ms"], 2),
            "p99_over_median": round(half["p99_ms"] / half["median_ms"], 2),
            "answers": half["answers"],
            "stages_ms": half["stages"],
            "others": round(half["others"], 3),
            "loop_lag_ms": lag_between(before, lag(live)),
        },
        "over_peers": {
            name: round(saturated / best(name), 2)
            for name in dict.fromkeys(name for name, _ in found)
            if name not in ("onepass", "bare", "in process")
        },
    }
    click.echo(f"{work.name}: {json.dumps({name: fact for name, fact in facts.items() if name != 'contestants'})}")
    return facts


def say(work: Work, contestant: str, plan: Plan, one: dict[str, Any]) -> None:
    click.echo(
        f"{work.name:<10} {contestant:<11} {plan.clients:>4} clients {one['per_second']:>9.1f}/s   "
        f"median {one['median_ms']:>9.2f} ms   p99 {one['p99_ms']:>9.2f} ms   others {one['others']:.0%}"
    )


def loaded(plan: Plan, cores: Cores) -> dict[str, Any]:
    """One turn of clients in another process. others: share of the machine used by neither them nor the server."""
    command = [sys.executable, str(HERE / "load.py")]
    outside, begun = strangers_seconds(cores), time.perf_counter()
    with starting_on(cores):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    result, _ = process.communicate(plan_as_json(plan))
    if process.returncode:
        sys.exit(f"the clients ended with {process.returncode}")
    return json.loads(result) | {"others": share(strangers_seconds(cores) - outside, begun, cores)}


def in_process(work: Work, encoder: Encoder, plan: Plan) -> dict[str, Any]:
    latencies: list[float] = []

    async def client(until: float, first: int) -> None:
        number = first
        while time.perf_counter() < until or number < plan.least:
            begun = time.perf_counter()
            await work.ask(encoder, number)
            latencies.append((time.perf_counter() - begun) * 1e3)
            number += plan.clients

    async def all_clients() -> None:
        until = time.perf_counter() + plan.seconds
        await asyncio.gather(*(client(until, number) for number in range(plan.clients)))

    cores: Cores = frozenset()
    outside, begun = strangers_seconds(cores), time.perf_counter()
    asyncio.run(all_clients())
    middle, most = np.percentile(latencies, [50, 99]).tolist()
    return {
        "per_second": len(latencies) / (time.perf_counter() - begun),
        "median_ms": middle,
        "p99_ms": most,
        "refused": {},
        "others": share(strangers_seconds(cores) - outside, begun, cores),
    }


def share(seconds: float, begun: float, cores: Cores) -> float:
    """Of what the cores of servers and clients could have done since."""
    return max(0.0, seconds) / ((time.perf_counter() - begun) * len(used(cores)))


def strangers_seconds(cores: Cores) -> float:
    """Processor seconds, on the cores of servers and clients, of everything but this process and its children."""
    children = {pid for pid, parent in parents() if parent == os.getpid()}
    mine = os.times()
    own = mine.user + mine.system + mine.children_user + mine.children_system
    return busy_seconds(used(cores)) - own - sum(map(processor_seconds, children))


def used(cores: Cores) -> Cores:
    """Those of clients, and those that this process and its servers are kept to."""
    return cores | frozenset(os.sched_getaffinity(0))


def parents() -> Iterator[tuple[int, int]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])


def processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


BARE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
body = bytes.fromhex(sys.stdin.read())
async def answer(request):
    await request.body()
    return Response(body, media_type="application/json")
app = Starlette(routes=[Route(sys.argv[1], answer, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False, http="httptools", ws="none")
"""


@contextlib.contextmanager
def bare(path: str, body: bytes) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-c", BARE, path, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(body.hex().encode())
        process.stdin.close()
        try:
            yield answering(f"http://127.0.0.1:{port}{path}", b"{}", process)
        finally:
            process.terminate()


FASTAPI = """
import sys, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder, SentenceTransformer
app = FastAPI()
class Embed(BaseModel):
    texts: list[str]
class Rerank(BaseModel):
    query: str
    documents: list[str]
if sys.argv[2] == "reranker":
    ranker = CrossEncoder(sys.argv[1])
    @app.post("/rerank")
    def rerank(body: Rerank):
        ranks = ranker.rank(body.query, body.documents)
        return [{"index": int(one["corpus_id"]), "score": float(one["score"])} for one in ranks]
else:
    model = SentenceTransformer(sys.argv[1])
    @app.post("/embed")
    def embed(body: Embed):
        return {"embeddings": model.encode(body.texts).tolist()}
uvicorn.run(app, port=int(sys.argv[3]), log_level="warning", access_log=False)
"""


def peers(work: Work, infinity: Path | None) -> dict[str, Callable[[int], list[str]]]:
    """By name, the command that serves the folder on a port."""
    found: dict[str, Callable[[int], list[str]]] = {}
    if importlib.util.find_spec("fastapi"):
        found["fastapi"] = lambda port: [sys.executable, "-c", FASTAPI, str(work.folder), work.model, str(port)]
    if infinity is not None:
        named = ["--model-id", str(work.folder), "--served-model-name", work.model]
        options = ["--device", "cpu", "--no-bettertransformer", "--log-level", "warning"]
        command = [str(infinity.with_name("infinity_emb")), "v2", *named, *options]
        found["infinity"] = lambda port: [*command, "--port", str(port)]
    return found


@contextlib.contextmanager
def started(peer: str, command: Callable[[int], list[str]], work: Work) -> Iterator[str]:
    port = free_port()
    quiet = {"TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    environment = os.environ | quiet
    with subprocess.Popen(command(port), env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}{work.path[peer]}"
            yield answering(url, work.bodies[peer][0].encode(), process)
        finally:
            process.terminate()


def answering(url: str, body: bytes, process: subprocess.Popen[bytes]) -> str:
    """The url, once it answers with 200."""
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            post(url, body)
            return url
        time.sleep(0.2)
    sys.exit(f"{url} does not answer")


def post(url: str, body: bytes) -> httpx.Response:
    answer = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=60)
    if answer.status_code != 200:
        sys.exit(f"{url} answered {answer.status_code}: {answer.text[:200]}")
    return answer


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def lag(live: Live) -> dict[float, float]:
    """The event loop's lag as the server counts it: observations up to so many seconds."""
    return live.histogram("onepass_event_loop_lag_seconds")


def lag_between(before: dict[float, float], after: dict[float, float]) -> dict[str, float | None]:
    """Milliseconds that half and 99 % of the observations stayed under, as the histogram's buckets tell."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    most = max(counts.values(), default=0.0)

    def under(part: float) -> float | None:
        bound = next((bound for bound, count in counts.items() if most and count >= part * most), None)
        return None if bound is None else round(bound * 1e3, 3)

    return {"median_below": under(0.5), "p99_below": under(0.99), "largest_below": under(1.0)}


if __name__ == "__main__":
    main()

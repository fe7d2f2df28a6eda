"""Logging, counters and timings: what an operator sees of a running server."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import re
import sys
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Protocol

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector

SECONDS = tuple(1e-5 * 1.5**k for k in range(1, 36))
SIZES = tuple(float(1 << k) for k in range(21))
TIMES = ("duration", "tokenization_duration", "queue_duration", "inference_duration")

# prometheus_client writes counters as *_total; the te_ names are TEI's, which have no suffix.
SUFFIX = re.compile(rb"^((?:# (?:HELP|TYPE) )?te_\w+?)_total\b", re.MULTILINE)

logger = logging.getLogger("onepass")


def set_up_logging(level: str, form: str) -> None:
    """Log lines of onepass and uvicorn to stderr, as text or as one JSON object each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    for name in ("onepass", "uvicorn"):
        log = logging.getLogger(name)
        log.handlers = [handler]
        log.propagate = False
        log.setLevel(level.upper())
    # uvicorn's own words ("Started server process") say nothing that ours do not.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))


class TextLines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")


class JsonLines(logging.Formatter):
    """`extra={"fields": {...}}` of a log call becomes keys of the line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class Queue(Protocol):
    @property
    def queued_rows(self) -> int: ...

    @property
    def queued_tokens(self) -> int: ...


class Distribution(Collector):
    """A histogram by model. prometheus_client's own walks all buckets at every observation."""

    def __init__(self, name: str, words: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self.name, self.words, self.buckets = name, words, list(buckets)
        self._counts: dict[str, list[int]] = defaultdict(lambda: [0] * (len(buckets) + 1))
        self._sums: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, model: str, value: float) -> None:
        with self._lock:
            self._counts[model][bisect_left(self.buckets, value)] += 1
            self._sums[model] += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        with self._lock:
            seen = [(model, counts.copy(), self._sums[model]) for model, counts in self._counts.items()]
        family = HistogramMetricFamily(self.name, self.words, labels=["model"])
        bounds = [*map(str, self.buckets), "+Inf"]
        for model, counts, total in seen:
            family.add_metric([model], list(zip(bounds, itertools.accumulate(counts), strict=True)), total)
        yield family


class Metrics:
    """TEI's metric names with a model label, and a few of our own.

    Durations are in seconds and stand for whole requests: te_embed_* and te_predict_* times are those of the request
    that carried the inputs, once per request, while their counters count inputs.
    """

    def __init__(self) -> None:
        # Creation times would double the page for nothing that Prometheus uses.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.child = functools.cache(_child)
        counter, histogram = self.counter, self.histogram
        self.requests = counter("te_request_count", "Requests for inference.", "method")
        self.successes = counter("te_request_success", "Requests answered with a result.", "method")
        self.failures = counter("te_request_failure", "Requests answered with an error, by kind.", "err")
        self.inputs = {kind: counter(f"te_{kind}_count", f"Inputs to {kind}.") for kind in ("embed", "predict")}
        self.answered = {kind: counter(f"te_{kind}_success", f"Inputs answered by {kind}.") for kind in self.inputs}
        self.times = {
            (kind, time): histogram(f"te_{kind}_{time}", f"Seconds of a request: {time}.", SECONDS)
            for kind in ("request", "embed", "predict")
            for time in TIMES
        }
        self.lengths = histogram("te_request_input_length", "Tokens of an input.", SIZES)
        self.batch_rows = histogram("te_batch_next_size", "Rows of a micro-batch.", SIZES)
        self.batch_tokens = histogram("te_batch_next_tokens", "Tokens of a micro-batch.", SIZES)
        self.batches = counter("onepass_micro_batches", "Micro-batches run, by the number of cores each had.", "cores")
        self.engine_seconds = counter("onepass_engine_seconds", "Seconds that lanes spent on micro-batches.")
        self.queue = Gauge("te_queue_size", "Rows waiting to be computed.", ["model"], registry=self.registry)
        self.queued_tokens = Gauge("onepass_queued_tokens", "Tokens admitted.", ["model"], registry=self.registry)
        self.truncated = counter("onepass_truncated_rows", "Inputs that were cut to the model's length.")
        self.responses = Counter(
            "onepass_http_responses", "Answers, by route and status.", ["route", "status"], registry=self.registry
        )
        self.running = Gauge("onepass_running_requests", "Requests being worked on.", registry=self.registry)
        self.lag = Histogram(
            "onepass_event_loop_lag_seconds",
            "How late the event loop woke up.",
            buckets=SECONDS,
            registry=self.registry,
        )

    def counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(name, words, [*labels, "model"], registry=self.registry)

    def histogram(self, name: str, words: str, buckets: Sequence[float]) -> Distribution:
        return Distribution(name, words, buckets, self.registry)

    def watch(self, models: str, queue: Queue) -> None:
        """Read it at every scrape. models: those that wait in this queue, joined by commas."""
        self.queue.labels(models).set_function(lambda: queue.queued_rows)
        self.queued_tokens.labels(models).set_function(lambda: queue.queued_tokens)

    def batch(self, model: str, rows: int, tokens: int, cores: int, seconds: float) -> None:
        """One micro-batch that ran; may be called from any thread."""
        self.batch_rows.observe(model, rows)
        self.batch_tokens.observe(model, tokens)
        self.child(self.batches, str(cores), model).inc()
        self.child(self.engine_seconds, model).inc(seconds)

    def request(self, model: str, kind: str, inputs: int, *, batch: bool, answered: bool) -> None:
        """One request and its inputs, and whether it was answered with a result."""
        method = "batch" if batch else "single"
        self.child(self.requests, method, model).inc()
        if kind in self.inputs:
            self.child(self.inputs[kind], model).inc(inputs)
        if answered:
            self.child(self.successes, method, model).inc()
            if kind in self.inputs:
                self.child(self.answered[kind], model).inc(inputs)

    def spent(self, model: str, kind: str, seconds: Iterable[float | None]) -> None:
        """seconds: in the order of TIMES; None where it is not known."""
        for time, value in zip(TIMES, seconds, strict=True):
            if value is not None:
                self.times["request", time].observe(model, value)
                if kind in self.inputs:
                    self.times[kind, time].observe(model, value)

    async def sizes(self, model: str, lengths: Sequence[int], truncated: int) -> None:
        """Tokens of each row of a request, counted some at a time."""
        self.child(self.truncated, model).inc(truncated)
        for start in range(0, len(lengths), 1_024):
            if start:
                await asyncio.sleep(0)
            for length in lengths[start : start + 1_024]:
                self.lengths.observe(model, length)

    def render(self) -> bytes:
        """The text exposition format."""
        return SUFFIX.sub(rb"\1", generate_latest(self.registry))


def _child(metric: Counter, *labels: str) -> Counter:
    """The counter of these labels; looked up once, since prometheus_client checks them every time."""
    return metric.labels(*labels)

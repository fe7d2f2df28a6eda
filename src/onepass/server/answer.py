"""Results as bytes, made some rows at a time so that none holds the event loop, and the headers that go with them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from onepass.server.service import Call
from onepass.tasks.heads import reranker_of
from onepass.tasks.rerank import Ranking

JSON = "application/json"


@dataclass(slots=True)
class Answer:
    """body: all of it, or its pieces in order. status: of the response line."""

    body: bytes | AsyncIterator[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    media: str = JSON


def dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """For small values; long lists go through `listing`."""
    return Answer(dumps(value), status, headers or {})


def listing(
    count: int, rows: Callable[[int, int], Any], *, step: int, before: bytes = b"[", after: bytes = b"]"
) -> Answer:
    """A JSON array between `before` and `after`; `rows(start, stop)` gives its elements as a list or array.

    step: elements per piece, chosen so that making one takes about a millisecond.
    """
    if count <= step:
        return Answer(before + dumps(rows(0, count))[1:-1] + after)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, count, step):
            piece = dumps(rows(start, min(start + step, count)))[1:-1]
            yield (b"," if start else before) + piece
        yield after

    return Answer(pieces())


def joined(*parts: bytes | Answer) -> Answer:
    """The bodies one after another."""
    bodies = [part.body if isinstance(part, Answer) else part for part in parts]

    async def pieces() -> AsyncIterator[bytes]:
        for body in bodies:
            if isinstance(body, bytes):
                yield body
            else:
                async for piece in body:
                    yield piece

    whole = [body for body in bodies if isinstance(body, bytes)]
    return Answer(b"".join(whole) if len(whole) == len(bodies) else pieces())


def nested(answers: Iterable[Answer], before: bytes = b"[", after: bytes = b"]") -> Answer:
    """A JSON array of other answers' bodies, each made when its turn comes."""

    async def pieces() -> AsyncIterator[bytes]:
        begin = before
        for answer in answers:
            if isinstance(answer.body, bytes):
                yield begin + answer.body
            else:
                yield begin
                async for piece in answer.body:
                    yield piece
            begin = b","
        yield after if begin == b"," else before + after

    return Answer(pieces())


def unit_scores(call: Call, ranks: Ranking) -> Ranking:
    """Scores between 0 and 1, as these formats promise: the sigmoid of logits, and -1 to 1 of cosines as 0 to 1."""
    assert call.job is not None
    _, head = reranker_of(call.job)
    if head.kind != "classify":
        return [replace(one, score=min(max((1 + one.score) / 2, 0.0), 1.0)) for one in ranks]
    if head.finish != "none":
        return ranks
    return [replace(one, score=1 / (1 + math.exp(-max(min(one.score, 500.0), -500.0)))) for one in ranks]


def timings(call: Call, total: float) -> dict[str, str]:
    """TEI's headers in whole milliseconds, Server-Timing in fractions, and what was cut; only what is known."""
    headers = {"x-compute-time": milliseconds(total), "x-total-time": milliseconds(total)}
    spans = [f"total;dur={total * 1000:.3f}"]
    if call.encoder is not None:
        headers["x-compute-type"] = f"{call.encoder.engine.name}+{call.encoder.engine.dtype}"
        headers["x-onepass-engine"] = call.encoder.engine.name
        headers["x-onepass-dtype"] = call.encoder.engine.dtype
    if call.job is not None:
        usage = call.job.usage
        headers["x-compute-characters"] = str(usage.characters)
        headers["x-compute-tokens"] = str(usage.tokens)
        for name, seconds in zip(("tokenization", "queue", "inference"), stages(call), strict=True):
            if seconds is not None:
                headers[f"x-{name}-time"] = milliseconds(seconds)
                spans.append(f"{name};dur={seconds * 1000:.3f}")
        if usage.truncated:
            headers["x-onepass-truncated"] = str(usage.truncated)
        if usage.windows:
            headers["x-onepass-windows"] = str(usage.windows)
    headers["server-timing"] = ", ".join(spans)
    return headers


def stages(call: Call) -> tuple[float | None, float | None, float | None]:
    """Seconds of tokenising, queueing and inference."""
    if call.job is None:
        return None, None, None
    usage = call.job.usage
    return usage.tokenize, usage.queue, usage.inference


def milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))

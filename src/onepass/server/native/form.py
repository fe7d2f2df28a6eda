"""What the requests and answers of all tasks have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

import msgspec
from numpy.typing import NDArray

from onepass.errors import OnepassError
from onepass.schedule.pieces import Truncate
from onepass.server.answer import Answer, dumps, listing
from onepass.server.operation import Dialect, Operation
from onepass.server.service import Call

ROOT = "/onepass/v1/"

Result = TypeVar("Result")
Side = Literal["right", "left"] | None | msgspec.UnsetType
"""`truncate`: the side on which over-long inputs are cut; null refuses them; left out, the server decides."""


class Asked(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`model`: may be left out where one is served."""

    model: str | None = None


class OfHead(Asked, kw_only=True):
    """`head`: name of the head to read, of a model that has several for the task."""

    head: str | None = None


class Used(msgspec.Struct):
    """`tokens`: computed.  `truncated`: inputs that were cut.  `windows`: rows beyond one per input, of long inputs."""

    tokens: int
    truncated: int
    windows: int


class Results(msgspec.Struct, Generic[Result]):
    """`results`: one per input, in order; of a reranker the documents, best first."""

    model: str
    results: list[Result]
    usage: Used


class Problem(msgspec.Struct):
    code: str
    message: str


class Failure(msgspec.Struct):
    error: Problem


def results(
    call: Call, rows: Sequence[Any] | NDArray[Any], *, step: int = 256, shown: Callable[[Any], Any] | None = None
) -> Answer:
    """step: rows per piece, as for `listing`.  shown: what is written of a row."""
    assert call.job is not None
    usage = call.job.usage
    used = Used(usage.tokens, usage.truncated, usage.windows)
    return listing(
        len(rows),
        lambda start, stop: rows[start:stop] if shown is None else list(map(shown, rows[start:stop])),
        step=step,
        before=b'{"model":' + dumps(call.model) + b',"results":[',
        after=b'],"usage":' + msgspec.json.encode(used) + b"}",
    )


def many(texts: str | list[Any]) -> list[Any]:
    """A str counts as one text."""
    return [texts] if isinstance(texts, str) else texts


def truncation(call: Call, side: Side) -> Truncate:
    return call.cut(None) if isinstance(side, msgspec.UnsetType) else side


def error_body(error: OnepassError, status: int) -> Failure:
    return Failure(Problem(error.code, str(error)))


NATIVE = Dialect("onepass", lambda error, status: msgspec.to_builtins(error_body(error, status)), Failure)


def operation(
    task: str, kind: str, request: type[Asked], result: Any, handle: Callable[[Call, Any], Awaitable[Answer]], does: str
) -> Operation:
    """The route of a task. result: the type of each result."""
    return Operation(ROOT + task, kind, NATIVE, request, Results[result], handle, does)

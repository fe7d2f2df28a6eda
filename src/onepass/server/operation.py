"""A route that answers JSON with JSON, as data: app.py serves it and openapi.py describes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from onepass.errors import OnepassError
from onepass.server.answer import Answer
from onepass.server.service import Call


@dataclass(frozen=True, slots=True)
class Dialect:
    """name: of the wire format.  error: an error and its status as that format's body.  failure: that body's schema.

    statuses: by error code, where its servers answer with another status than app.py's table.
    """

    name: str
    error: Callable[[OnepassError, int], Any]
    failure: type[msgspec.Struct]
    statuses: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """path: may name the model, as in "/models/{model:path}".  request: what the body must decode to.
    response: the type of the answer, for the OpenAPI document only.

    kind: "embed", "predict" or another word; te_embed_* and te_predict_* count the first two.
    marks: fields of the body by which it is known among the operations of a path that several dialects share; the first
    operation with such a field in the body answers, and one without marks, the last of its path, all other bodies.
    raw: the request may ask for bytes instead of JSON.
    """

    path: str
    kind: str
    dialect: Dialect
    request: Any
    response: Any
    handle: Callable[[Call, Any], Awaitable[Answer]]
    summary: str
    marks: frozenset[str] = frozenset()
    raw: bool = False

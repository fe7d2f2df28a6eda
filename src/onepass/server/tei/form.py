"""What requests and errors of all its routes have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from onepass.errors import EmptyInput, InputTooLong, OnepassError
from onepass.schedule.pieces import Truncate
from onepass.schedule.tokenizer import Text
from onepass.server.operation import Dialect
from onepass.server.service import Call

Side = Literal["Right", "Left", "right", "left"]

# Words of the wire for our error codes; what is missing here is Validation.
ERROR_TYPES = {
    "empty_input": "Empty",
    "wrong_task": "Backend",
    "engine_failure": "Backend",
    "internal": "Backend",
    "overloaded": "Overloaded",
    "unavailable": "Unhealthy",
    "cancelled": "Unhealthy",
    "unauthorized": "Unauthorized",
    "not_found": "NotFound",
    "method_not_allowed": "MethodNotAllowed",
    "unsupported_media": "UnsupportedMediaType",
    "bad_json": "BadJson",
    "body_too_large": "PayloadTooLarge",
}


class Asked(msgspec.Struct, kw_only=True):
    model: str | None = None


class Cut(Asked, kw_only=True):
    """`truncate`: over-long inputs; left out, as the server is set."""

    truncate: bool | None = None
    truncation_direction: Side = "Right"

    def side(self, call: Call) -> Truncate:
        return call.cut(self.truncate, "left" if self.truncation_direction in ("Left", "left") else "right")


class Failure(msgspec.Struct):
    error: str
    error_type: str


def refuse_empty(inputs: Sequence[Text]) -> None:
    if not all(inputs):
        raise EmptyInput("`inputs` cannot be empty")


def error_body(error: OnepassError, status: int) -> dict[str, str]:
    """`{"error": ..., "error_type": ...}`, in the words that TEI's clients look for."""
    message = str(error)
    if isinstance(error, InputTooLong):
        message = f"`inputs` must have less than {error.limit} {error.unit}. Given: {error.size}"
    if error.code in ("empty_input", "input_too_long", "invalid_input", "token_out_of_range"):
        message = f"Input validation error: {message}"
    return {"error": message, "error_type": ERROR_TYPES.get(error.code, "Validation")}


# Batches of more inputs than allowed are 422 since version 1.9.
TEI = Dialect("tei", error_body, Failure, {"too_large": 422, "wrong_task": 424, "engine_failure": 424})

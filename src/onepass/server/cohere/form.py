"""What Cohere's routes have in common: errors, and what an answer says about itself."""

from __future__ import annotations

from typing import Any

import msgspec

from onepass.errors import OnepassError
from onepass.server.operation import Dialect
from onepass.server.service import Call


class Failure(msgspec.Struct):
    message: str


class Version(msgspec.Struct):
    version: str


class Billed(msgspec.Struct, omit_defaults=True):
    """`input_tokens`: of texts to embed, all that were computed.  `search_units`: hundreds of documents, begun."""

    input_tokens: int | None = None
    search_units: int | None = None


class Tokens(msgspec.Struct):
    input_tokens: int


class Meta(msgspec.Struct, omit_defaults=True):
    """`warnings`: of texts that were cut or read in windows."""

    api_version: Version
    billed_units: Billed
    tokens: Tokens
    warnings: list[str] | None = None


def meta(call: Call, version: str, billed: Billed) -> dict[str, Any]:
    assert call.job is not None
    usage = call.job.usage
    warnings = []
    if usage.truncated:
        warnings.append(f"{usage.truncated} of the texts were cut because they are longer than allowed")
    if usage.windows:
        warnings.append(f"long texts were read in windows, {usage.windows} more than there are texts")
    known = Meta(Version(version), billed, Tokens(usage.tokens), warnings or None)
    made: dict[str, Any] = msgspec.to_builtins(known)
    return made


def error_body(error: OnepassError, status: int) -> dict[str, str]:
    return {"message": str(error)}


COHERE = Dialect("cohere", error_body, Failure)

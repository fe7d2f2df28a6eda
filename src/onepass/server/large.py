"""Decoding a large body some elements at a time, in a thread.

msgspec keeps the interpreter for as long as one call takes: 30 MB of token ids are most of a second, in which the event
loop stands still whichever thread makes the call. So the one long list of a request is cut at its commas first, and its
pieces are decoded one by one; between two calls the event loop gets its turn.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

PIECE = 32_768
MARK = re.compile(rb'["\[\]{}]')
KEY = re.compile(rb'"([^"\\]{1,64})"\s*:\s*$')
COMMA = re.compile(rb"\s*,")

Spans = list[tuple[int, int]]


def decode_in_pieces(form: type[T], body: bytes) -> T | None:
    """The value, or None where this body has to be decoded as a whole, be it to say what is wrong with it."""
    found = long_list(body)
    if found is None:
        return None
    name, spans = found
    field = next((field for field in msgspec.structs.fields(form) if field.encode_name == name), None)
    if field is None:
        return None
    try:
        value = msgspec.json.decode(without(spans, body), type=form)
        if getattr(value, field.name) != []:
            return None
        decoder: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(field.type)
        pieces = [decoder.decode(b"[%b]" % body[start:stop]) for start, stop in spans]
    except (ValueError, RecursionError):
        return None
    if not all(pieces):  # nothing after a last comma is an error, which the piece alone does not show
        return None
    setattr(value, field.name, list(chain.from_iterable(pieces)))
    return value


def without_long_list(body: bytes) -> bytes:
    """The body with its long list empty, if it has one."""
    found = long_list(body)
    return body if found is None else without(found[1], body)


def without(spans: Spans, body: bytes) -> bytes:
    return body[: spans[0][0]] + body[spans[-1][1] :]


def long_list(body: bytes) -> tuple[str, Spans] | None:
    """The first field of the body that is a list of more than one piece: its name and its spans."""
    position, depth = 0, 0
    while (mark := MARK.search(body, position)) is not None:
        position = mark.end()
        match mark[0]:
            case b'"':
                position = string_end(body, position)
            case b"[" if depth == 1:
                spans = element_spans(body, position)
                key = KEY.search(body, max(0, position - 80), position - 1)
                if not spans or key is None:
                    return None
                if len(spans) > 1:
                    return key[1].decode("utf-8", "replace"), spans
                position = spans[0][1] + 1
            case b"{" | b"[":
                depth += 1
            case _:
                depth -= 1
    return None


def element_spans(body: bytes, start: int) -> Spans:
    """Spans of whole elements, about PIECE bytes each, of the list that begins at `start`; none if it does not end."""
    spans: Spans = []
    begin = position = start
    depth = 0
    while position < len(body):
        window = position + PIECE
        mark = MARK.search(body, position, window)
        if mark is None:
            comma = body.rfind(b",", position, window) if depth == 0 else -1
            position = min(window, len(body)) if comma < 0 else comma
        elif mark[0] == b'"':
            position = string_end(body, mark.end())
        else:
            position = mark.end()
            depth += 1 if mark[0] in b"[{" else -1
            if depth < 0:
                return [*spans, (begin, mark.start())]
        if depth == 0 and position - begin > PIECE and (comma_after := COMMA.match(body, position)):
            spans.append((begin, position))
            begin = position = comma_after.end()
    return []


def string_end(body: bytes, position: int) -> int:
    """Just after the quote that closes the string which `position` is in."""
    while (quote := body.find(b'"', position)) >= 0:
        before = quote
        while body[before - 1] == 0x5C:
            before -= 1
        if (quote - before) % 2 == 0:
            return quote + 1
        position = quote + 1
    return len(body)

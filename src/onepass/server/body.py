"""From the bytes of a request to one typed value: content type, size limit, JSON, schema."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from onepass.errors import InvalidInput
from onepass.server.large import decode_in_pieces, without_long_list
from onepass.server.refusals import BadJson, BodyTooLarge, UnsupportedMedia

T = TypeVar("T")

LARGE = 262_144
FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])

# A high half that no low half follows, or a low half that follows no high one, as JSON escapes spell them.
LONE_SURROGATE = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]..")


async def read_body(headers: Mapping[str, str], receive: Receive, limit: int) -> bytes:
    """The whole body. Raises UnsupportedMedia, BodyTooLarge while reading, ClientDisconnect if the client left."""
    check_media(headers)
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large(f"{int(announced):,} bytes", limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(f"more than {limit:,} bytes", limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def too_large(size: str, limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has {size} and this server reads at most {limit:,}; send less per request, or raise --max-body"
    )


def check_media(headers: Mapping[str, str]) -> None:
    given = headers.get("content-type", "")
    media = given.partition(";")[0].strip().lower()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise UnsupportedMedia(f"the content type is {given[:100]!r}; send JSON with Content-Type: application/json")
    encoding = headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise UnsupportedMedia(f"the content encoding is {encoding[:100]!r}; send the body uncompressed")


async def parse(form: type[T], decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as a value of that form. Raises BadJson for what is no JSON, InvalidInput for JSON of another shape."""
    if len(body) > LARGE and isinstance(form, type) and issubclass(form, msgspec.Struct):
        value = await asyncio.to_thread(decode_in_pieces, form, body)
        if value is not None:
            return value
    return decode(decoder, body)


async def parse_as(form: type[T], body: bytes | msgspec.Raw) -> T:
    return await parse(form, msgspec.json.Decoder(form), bytes(body))


async def field_names(body: bytes) -> Collection[str]:
    """Of the object that a body is; none where it is no object."""
    if len(body) > LARGE:
        body = await asyncio.to_thread(without_long_list, body)
    try:
        return FIELDS.decode(body).keys()
    except (ValueError, RecursionError):
        return ()


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the body does not have the expected form: {error}") from None
    except msgspec.DecodeError as error:
        raise BadJson(f"the body is not valid JSON: {lone_surrogate(body) or error}") from None
    except UnicodeDecodeError as error:
        raise BadJson(f"the body is not valid UTF-8: {error.reason}") from None
    except RecursionError:
        raise BadJson("the body is not valid JSON for this server: it is nested too deeply") from None


def lone_surrogate(body: bytes) -> str | None:
    # msgspec reports some of these as truncated data, which would send people looking in the wrong place.
    found = LONE_SURROGATE.search(body, 0, 1_000_000)
    if found is None:
        return None
    escape = found[0][:6].decode("ascii", "replace")
    return f"{escape} at byte {found.start()} is half of a surrogate pair, not a character"

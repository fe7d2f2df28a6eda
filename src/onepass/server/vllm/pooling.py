"""/pooling: vectors or scores, of texts or of tokens, as numbers alone."""

from __future__ import annotations

import base64
import json
from itertools import accumulate, pairwise
from typing import Any, Literal

import msgspec

from onepass.engines.batch import Floats
from onepass.errors import InvalidInput
from onepass.server.answer import Answer, dumps, listing
from onepass.server.operation import Operation
from onepass.server.service import Call
from onepass.server.vllm.form import VLLM, AskedOfTexts, Usage, given, heading, usage
from onepass.tasks.pool import Pooled, pool

SIZES = {"float32": "f4", "float16": "f2"}
ORDERS = {"native": "=", "little": "<", "big": ">"}


class PoolingRequest(AskedOfTexts, kw_only=True):
    """`task`: left out, what the model is for.  `embed_dtype`, `endianness`: of numbers in base64 and in bytes."""

    task: Pooled | None = None
    dimensions: int | None = None
    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] = "float"
    embed_dtype: Literal["float32", "float16"] = "float32"
    endianness: Literal["native", "little", "big"] = "native"


class PooledData(msgspec.Struct):
    index: int
    object: Literal["pooling"]
    data: list[float | list[float]] | str


class PoolingResponse(msgspec.Struct):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[PooledData]
    usage: Usage


async def answer_pooling(call: Call, body: PoolingRequest) -> Answer:
    if body.dimensions is not None:
        raise InvalidInput("`dimensions` cannot be chosen on this route; ask /v1/embeddings")
    job, inputs, options = await given(call, body)
    found = await pool(job, inputs, body.task, raw=body.use_activation is False, options=options)
    head = heading(call, "pooling", body.request_id)

    def binary(values: Floats) -> bytes:
        return values.astype(ORDERS[body.endianness] + SIZES[body.embed_dtype]).tobytes()

    if body.encoding_format in ("bytes", "bytes_only"):
        pieces = [binary(values) for values in found]
        if body.encoding_format == "bytes_only":
            return Answer(b"".join(pieces), media="application/octet-stream")
        places = pairwise(accumulate(map(len, pieces), initial=0))
        data = [
            {
                "index": index,
                "embed_dtype": body.embed_dtype,
                "endianness": body.endianness,
                "start": start,
                "end": end,
                "shape": values.shape,
            }
            for index, (values, (start, end)) in enumerate(zip(found, places, strict=True))
        ]
        tokens = job.usage.tokens
        known = {"id": head["id"], "created": head["created"], "model": call.model, "data": data}
        known["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Answer(b"".join(pieces), headers={"metadata": json.dumps(known)}, media="application/octet-stream")

    def rows(start: int, stop: int) -> list[dict[str, Any]]:
        return [
            {
                "index": start + place,
                "object": "pooling",
                "data": values if body.encoding_format == "float" else base64.b64encode(binary(values)).decode("ascii"),
            }
            for place, values in enumerate(found[start:stop])
        ]

    return listing(
        len(found),
        rows,
        step=max(1, 32_768 // max(values.size for values in found)),
        before=dumps(head)[:-1] + b',"data":[',
        after=b'],"usage":' + dumps(usage(job)) + b"}",
    )


OPERATIONS = (
    Operation(
        "/pooling",
        "embed",
        VLLM,
        PoolingRequest,
        PoolingResponse,
        answer_pooling,
        "Vectors or scores, of texts or of tokens.",
        raw=True,
    ),
)

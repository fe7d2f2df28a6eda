"""/onepass/v1/embed_chunks"""

from __future__ import annotations

import msgspec

from onepass.server.answer import Answer
from onepass.server.native.form import OfHead, operation, results
from onepass.server.service import Call
from onepass.tasks.embed_chunks import Document, embed_chunks
from onepass.tasks.prompts import InputType
from onepass.tasks.vectors import Precision


class Spanned(msgspec.Struct, forbid_unknown_fields=True):
    """`chunks`: first character of each and the one after its last."""

    text: str
    chunks: list[tuple[int, int]]


class EmbedChunks(OfHead, kw_only=True):
    """`documents`: each a list of its chunks, or its text and where they stand.

    `overlap`: tokens before a chunk where a document is longer than a row.
    """

    documents: list[list[str] | Spanned]
    prompt: str | None = None
    input_type: InputType | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    precision: Precision = "float32"
    ranges: tuple[list[float], list[float]] | None = None
    overlap: int | None = None


async def answer(call: Call, body: EmbedChunks) -> Answer:
    documents = [
        document if isinstance(document, list) else (document.text, document.chunks) for document in body.documents
    ]
    vectors = await embed_chunks(
        call.open(body.model, sum(map(count, documents))),
        documents,
        prompt=body.prompt,
        input_type=body.input_type,
        dimensions=body.dimensions,
        normalize=body.normalize,
        precision=body.precision,
        ranges=body.ranges,
        overlap=body.overlap,
        head=body.head,
    )
    return results(call, vectors, step=max(1, 32_768 // max(document.size for document in vectors)))


def count(document: Document) -> int:
    return len(document[1] if isinstance(document, tuple) else document)


OPERATION = operation(
    "embed_chunks", "embed", EmbedChunks, list[list[float]], answer, "A vector for each chunk of each document."
)

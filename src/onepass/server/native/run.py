"""/onepass/v1/run"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from onepass.server.answer import Answer
from onepass.server.native.form import Asked, Side, many, operation, results, truncation
from onepass.server.service import Call
from onepass.tasks.run import plain, run


class Run(Asked, kw_only=True):
    """`texts`: a text, or a list of them.  `heads`: names of heads, see `heads` in the model's description.

    `prompt`: read by all heads.
    """

    texts: str | list[str]
    heads: list[str]
    prompt: str | None = None
    truncate: Side = UNSET


async def answer(call: Call, body: Run) -> Answer:
    texts = many(body.texts)
    job = call.open(body.model, len(texts))
    found = await run(job, texts, body.heads, prompt=body.prompt, truncate=truncation(call, body.truncate))
    heads = job.served.checkpoint.heads
    return results(call, [plain(answers, heads) for answers in found], step=16)


OPERATION = operation(
    "run", "run", Run, dict[str, Any], answer, "What several heads of one model say of each text, from one pass."
)

"""/onepass/v1/log_probs"""

from __future__ import annotations

from msgspec import UNSET

from onepass.server.answer import Answer
from onepass.server.native.form import OfHead, Side, many, operation, results, truncation
from onepass.server.service import Call
from onepass.tasks.log_probs import LogProb, log_probs


class LogProbs(OfHead, kw_only=True):
    """`texts`: a text, or a list of them.  `truncate`: "right", or null to refuse."""

    texts: str | list[str]
    truncate: Side = UNSET


async def answer(call: Call, body: LogProbs) -> Answer:
    texts = many(body.texts)
    tokens = await log_probs(
        call.open(body.model, len(texts)), texts, truncate=truncation(call, body.truncate), head=body.head
    )
    return results(call, tokens, step=32)


OPERATION = operation(
    "log_probs", "log_probs", LogProbs, list[LogProb], answer, "The log-probability of each token of each text."
)

"""/onepass/v1/answer"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from onepass.server.answer import Answer as Response
from onepass.server.native.form import OfHead, operation, results
from onepass.server.service import Call
from onepass.tasks.answer import Answer, answer, paired


class AnswerQuestion(OfHead, kw_only=True):
    """`question` and `context`: a text, or a list; a text goes with each of a list, two lists go side by side."""

    question: str | list[str]
    context: str | list[str]
    top_k: Annotated[int, Meta(le=1_000)] = 1
    no_answer: bool = False
    answer_tokens: int = 15
    align_to_words: bool = True
    window: int | None = None
    overlap: int | None = None


async def respond(call: Call, body: AnswerQuestion) -> Response:
    pairs = paired(body.question, body.context)
    answers = await answer(
        call.open(body.model, len(pairs)),
        pairs,
        top_k=body.top_k,
        no_answer=body.no_answer,
        answer_tokens=body.answer_tokens,
        align_to_words=body.align_to_words,
        window=body.window,
        overlap=body.overlap,
        head=body.head,
    )
    return results(call, answers)


OPERATION = operation(
    "answer", "answer", AnswerQuestion, list[Answer], respond, "Answers to a question out of each context, best first."
)

"""An answer out of a context, as the question-answering pipeline gave it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from onepass.server.answer import Answer, dumps
from onepass.server.hugging_face.form import Asked, TopK
from onepass.server.inputs import leading
from onepass.server.service import Call
from onepass.tasks.answer import answer


class Question(msgspec.Struct):
    question: str
    context: str


class AnswerParameters(msgspec.Struct, kw_only=True):
    top_k: TopK = 1
    doc_stride: int | None = None
    max_answer_len: int = 15
    max_seq_len: int | None = None
    max_question_len: Annotated[int, Meta(ge=1)] | None = None
    handle_impossible_answer: bool = False
    align_to_words: bool = True


class QuestionAnswering(Asked, kw_only=True):
    """`max_seq_len`, `doc_stride`: tokens of a window with the question, and how many it shares with the last."""

    inputs: Question
    parameters: AnswerParameters = msgspec.field(default_factory=AnswerParameters)


async def answer_question(call: Call, body: QuestionAnswering) -> Answer:
    """One answer, or a list of them where more than one was asked for."""
    wanted, job = body.parameters, call.open(body.model, 1, batch=False)
    question = body.inputs.question
    if wanted.max_question_len is not None:
        question = await leading(call, question, wanted.max_question_len)
    (found,) = await answer(
        job,
        [(question, body.inputs.context)],
        top_k=wanted.top_k,
        no_answer=wanted.handle_impossible_answer,
        answer_tokens=wanted.max_answer_len,
        align_to_words=wanted.align_to_words,
        window=wanted.max_seq_len,
        overlap=wanted.doc_stride,
    )
    shown = [{"answer": one.text, "score": one.score, "start": one.start, "end": one.stop} for one in found]
    if wanted.top_k > 1:
        return Answer(dumps(shown))
    return Answer(dumps(shown[0] if shown else {"answer": "", "score": 0.0, "start": 0, "end": 0}))

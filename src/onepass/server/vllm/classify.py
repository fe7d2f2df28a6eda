"""/classify"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from onepass.server.answer import Answer, dumps, listing
from onepass.server.operation import Operation
from onepass.server.service import Call
from onepass.server.vllm.form import VLLM, AskedOfTexts, Usage, given, heading, usage
from onepass.tasks.heads import head_of
from onepass.tasks.pool import pool


class ClassifyRequest(AskedOfTexts, kw_only=True):
    pass


class Classification(msgspec.Struct):
    """`label`: the likeliest.  `probs`: of every label, in the model's order."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class ClassifyResponse(msgspec.Struct):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classification]
    usage: Usage


async def answer_classify(call: Call, body: ClassifyRequest) -> Answer:
    job, inputs, options = await given(call, body)
    _, head = head_of(job, "classify", "classify")
    scores = await pool(job, inputs, "classify", raw=body.use_activation is False, options=options)

    def rows(start: int, stop: int) -> list[dict[str, Any]]:
        return [
            {
                "index": start + place,
                "label": head.labels[int(probs.argmax())],
                "probs": probs,
                "num_classes": len(probs),
            }
            for place, probs in enumerate(scores[start:stop])
        ]

    return listing(
        len(scores),
        rows,
        step=256,
        before=dumps(heading(call, "classify", body.request_id))[:-1] + b',"data":[',
        after=b'],"usage":' + dumps(usage(job)) + b"}",
    )


OPERATIONS = (
    Operation(
        "/classify", "predict", VLLM, ClassifyRequest, ClassifyResponse, answer_classify, "Scores of all labels."
    ),
)

"""/vertex: what text-embeddings-inference answers on Google's Vertex AI, several requests in one body."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from onepass.server.answer import Answer, nested
from onepass.server.hugging_face.tasks import answer_task
from onepass.server.operation import Operation
from onepass.server.service import Call
from onepass.server.tei.form import TEI


class Instances(msgspec.Struct):
    """`instances`: bodies as / takes them."""

    instances: list[msgspec.Raw]


class Predictions(msgspec.Struct):
    predictions: list[Any]


async def answer_instances(call: Call, body: Instances) -> Answer:
    """What / answers each of them; they are worked on together."""
    call.check_count(len(body.instances))
    calls = [call.part() for _ in body.instances]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(answer_task(own, instance))
                for own, instance in zip(calls, body.instances, strict=True)
            ]
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    call.add(calls)
    return nested([task.result() for task in tasks], b'{"predictions":[', b"]}")


OPERATIONS = (
    Operation(
        "/vertex",
        "embed",
        TEI,
        Instances,
        Predictions,
        answer_instances,
        "Several bodies of / at once, as Vertex AI sends them.",
    ),
)

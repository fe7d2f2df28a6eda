"""text-embeddings-inference over gRPC (tei.proto), with health checks and reflection; needs the extra `grpc`.

A model is named by the metadata `model` where several are served. What a request cost is in its answer, and in the
metadata before it, which are the headers of HTTP.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
import numpy as np
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from onepass.errors import BadSetting, EmptyInput, OnepassError, Overloaded
from onepass.schedule.pieces import Truncate
from onepass.server import probes, tei_pb2
from onepass.server.answer import timings, unit_scores
from onepass.server.app import report, status_of, typed
from onepass.server.inputs import check_sizes, text_or_pair
from onepass.server.service import Call, Service
from onepass.server.tei.form import TEI, error_body, refuse_empty
from onepass.tasks.classify import classify
from onepass.tasks.embed import embed
from onepass.tasks.rerank import rerank
from onepass.tasks.sparse import sparse
from onepass.tasks.token_states import token_states

pb: Any = tei_pb2  # its classes are made when it is imported

# What is missing here is INVALID_ARGUMENT.
CODES = {
    "wrong_task": grpc.StatusCode.FAILED_PRECONDITION,
    "engine_failure": grpc.StatusCode.FAILED_PRECONDITION,
    "overloaded": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "cancelled": grpc.StatusCode.UNAVAILABLE,
    "unauthorized": grpc.StatusCode.UNAUTHENTICATED,
    "unknown_model": grpc.StatusCode.NOT_FOUND,
    "internal": grpc.StatusCode.INTERNAL,
}
TOGETHER = 64  # messages of a stream worked on at once
HEALTH_SECONDS = 5.0
TASKS = {"Embed": {"embed", "sparse"}, "Predict": {"classify"}, "Rerank": {"rerank"}}
"""A service can be used where a model does one of these."""


def metadata(call: Call) -> Any:
    assert call.job is not None
    usage = call.job.usage
    return pb.Metadata(
        compute_chars=usage.characters,
        compute_tokens=usage.tokens,
        total_time_ns=nanoseconds(time.perf_counter() - call.started),
        tokenization_time_ns=nanoseconds(usage.tokenize),
        queue_time_ns=nanoseconds(usage.queue),
        inference_time_ns=nanoseconds(usage.inference),
    )


def nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def cut(call: Call, request: Any) -> Truncate:
    left = request.truncation_direction == pb.TRUNCATION_DIRECTION_LEFT
    return call.cut(request.truncate, "left" if left else "right")


def prompt(call: Call, request: Any) -> str | None:
    return call.prompt(request.prompt_name if request.HasField("prompt_name") else None)


async def answer_info(call: Call, request: Any) -> Any:
    known = probes.info(call.service, call.named.get("model"))
    kind = next(iter(known["model_type"]))
    values = {name: known[name] for name in pb.InfoResponse.DESCRIPTOR.fields_by_name if known[name] is not None}
    values["model_type"] = {"classifier": 1, "reranker": 2}.get(kind, 0)
    return pb.InfoResponse(**values)


async def answer_embed(call: Call, request: Any) -> Any:
    job = call.open(None, 1, batch=False)
    refuse_empty([request.inputs])
    (vector,) = await embed(
        job,
        [request.inputs],
        prompt=prompt(call, request),
        dimensions=request.dimensions if request.HasField("dimensions") else None,
        normalize=request.normalize if request.HasField("normalize") else True,
        truncate=cut(call, request),
    )
    return pb.EmbedResponse(embeddings=vector, metadata=metadata(call))


async def answer_embed_sparse(call: Call, request: Any) -> Any:
    job = call.open(None, 1, batch=False)
    refuse_empty([request.inputs])
    (vector,) = await sparse(job, [request.inputs], prompt=prompt(call, request), truncate=cut(call, request))
    order = np.argsort(vector.ids)
    pairs = zip(vector.ids[order].tolist(), vector.weights[order].tolist(), strict=True)
    values = [pb.SparseValue(index=index, value=value) for index, value in pairs]
    return pb.EmbedSparseResponse(sparse_embeddings=values, metadata=metadata(call))


async def answer_embed_all(call: Call, request: Any) -> Any:
    job = call.open(None, 1, batch=False)
    refuse_empty([request.inputs])
    (states,) = await token_states(job, [request.inputs], prompt=prompt(call, request), truncate=cut(call, request))
    rows = [pb.TokenEmbedding(embeddings=row) for row in states]
    return pb.EmbedAllResponse(token_embeddings=rows, metadata=metadata(call))


async def answer_predict(call: Call, request: Any) -> Any:
    """Of a text, or of a pair."""
    job = call.open(None, 1, batch=False)
    texts = [request.inputs] if isinstance(request.inputs, str) else [*request.inputs]
    item = text_or_pair("inputs", texts) if texts else ""
    refuse_empty(["".join(item)])
    (labels,) = await classify(job, [item], raw_scores=request.raw_scores, truncate=cut(call, request))
    predictions = [pb.Prediction(score=score, label=label) for label, score in labels]
    return pb.PredictResponse(predictions=predictions, metadata=metadata(call))


async def answer_rerank(call: Call, request: Any) -> Any:
    job = call.open(None, len(request.texts))
    if not request.texts:
        raise EmptyInput("`texts` cannot be empty")
    texts = [*request.texts]
    ranks = await rerank(job, request.query, texts, raw_scores=request.raw_scores, truncate=cut(call, request))
    if not request.raw_scores:
        ranks = unit_scores(call, ranks)
    shown = [
        pb.Rank(index=one.index, score=one.score, text=texts[one.index] if request.return_text else None)
        for one in ranks
    ]
    return pb.RerankResponse(ranks=shown, metadata=metadata(call))


async def answer_tokenize(call: Call, request: Any) -> Any:
    encoder = call.choose(None)
    refuse_empty([request.inputs])
    name = prompt(call, request) or encoder.checkpoint.default_prompt
    before = encoder.checkpoint.prompts[name] if name is not None else ""
    check_sizes(call, "inputs", [request.inputs])
    tokens = await asyncio.to_thread(
        encoder.tokenizer.tokens, before + request.inputs, special=request.add_special_tokens
    )
    return pb.EncodeResponse(
        tokens=[
            pb.SimpleToken(id=one.id, text=one.text, special=one.special, start=one.start, stop=one.stop)
            for one in tokens
        ]
    )


async def answer_decode(call: Call, request: Any) -> Any:
    encoder = call.choose(None)
    if not request.ids:
        raise EmptyInput("`ids` cannot be empty")
    ids = [*request.ids]
    return pb.DecodeResponse(text=encoder.tokenizer.decode(ids, skip_special=request.skip_special_tokens))


Handle = Callable[[Call, Any], Awaitable[Any]]
METHODS: dict[str, tuple[str, Handle]] = {
    "Info": ("tokenize", answer_info),
    "Embed": ("embed", answer_embed),
    "EmbedSparse": ("embed", answer_embed_sparse),
    "EmbedAll": ("embed", answer_embed_all),
    "Predict": ("predict", answer_predict),
    "PredictPair": ("predict", answer_predict),
    "Rerank": ("predict", answer_rerank),
    "Tokenize": ("tokenize", answer_tokenize),
    "Decode": ("tokenize", answer_decode),
}
"""Each method's kind of operation and what answers it, also for every message of its stream."""


class Method:
    """One method of a service: authorise, work, answer or refuse."""

    def __init__(self, service: Service, path: str, kind: str, handle: Handle) -> None:
        self.service = service
        self.path = path
        self.kind = kind
        self.handle = handle

    async def one(self, request: Any, context: Any) -> Any:
        try:
            call, answer = await self.answered(request, context)
        except OnepassError as error:
            return await refuse(error, context)
        if call.job is not None:
            headers = timings(call, time.perf_counter() - call.started)
            await context.send_initial_metadata(tuple(headers.items()))
        return answer

    async def each(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Answers in the order of the messages, of which the next ones are worked on meanwhile."""
        running: deque[asyncio.Task[tuple[Call, Any]]] = deque()
        try:
            async for request in requests:
                running.append(asyncio.create_task(self.answered(request, context, wait=True)))
                while running and (len(running) == TOGETHER or running[0].done()):
                    yield (await running.popleft())[1]
            while running:
                yield (await running.popleft())[1]
        except OnepassError as error:
            await refuse(error, context)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def together(self, requests: AsyncIterator[Any], context: Any) -> Any:
        """Rerank's stream: a text in each message."""
        messages = [request async for request in requests]
        first = messages[0] if messages else pb.RerankStreamRequest()
        fields = ("query", "truncate", "raw_scores", "return_text", "truncation_direction")
        known = {name: getattr(first, name) for name in fields}
        return await self.one(pb.RerankRequest(texts=[message.text for message in messages], **known), context)

    async def answered(self, request: Any, context: Any, *, wait: bool = False) -> tuple[Call, Any]:
        """wait: for room in the queue, instead of refusing what does not fit now. Raises OnepassError."""
        given: Mapping[str, str] = dict(context.invocation_metadata() or ())
        call = Call(self.service, self.kind, given)
        call.wait = wait
        self.service.calls.add(call)
        self.service.metrics.running.inc()
        error: OnepassError | None = None
        status: int | None = None  # where the client leaves
        try:
            self.service.check_key(given.get("authorization", ""))
            self.service.check_ready()
            answer = await self.handle(call, request)
            status = 200
            return call, answer
        except BaseException as raised:
            error = typed(raised, call)
            status = status_of(TEI, error.code)
            raise error from None
        finally:
            self.service.calls.discard(call)
            self.service.metrics.running.dec()
            await report(call, self.path, status, error)


async def refuse(error: OnepassError, context: Any) -> None:
    if isinstance(error, Overloaded):
        context.set_trailing_metadata((("retry-after", str(math.ceil(error.retry_after))),))
    await context.abort(CODES.get(error.code, grpc.StatusCode.INVALID_ARGUMENT), error_body(error, 0)["error"])


def handlers(service: Service) -> list[grpc.GenericRpcHandler]:
    """All that tei.proto names."""
    found = []
    for described in pb.DESCRIPTOR.services_by_name.values():
        methods = {}
        for method in described.methods:
            kind, handle = METHODS[method.name.removesuffix("Stream")]
            own = Method(service, f"/{described.full_name}/{method.name}", kind, handle)
            forms = {
                "request_deserializer": GetMessageClass(method.input_type).FromString,
                "response_serializer": GetMessageClass(method.output_type).SerializeToString,
            }
            if method.server_streaming:
                methods[method.name] = grpc.stream_stream_rpc_method_handler(own.each, **forms)
            elif method.client_streaming:
                methods[method.name] = grpc.stream_unary_rpc_method_handler(own.together, **forms)
            else:
                methods[method.name] = grpc.unary_unary_rpc_method_handler(own.one, **forms)
        found.append(grpc.method_handlers_generic_handler(described.full_name, methods))
    return found


class Listener:
    """A gRPC server beside the HTTP server, in its event loop and over the same models."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self.service = service
        self.server = grpc.aio.server(
            options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", settings.max_body))
        )
        self.server.add_generic_rpc_handlers(handlers(service))
        self.health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        names = [described.full_name for described in pb.DESCRIPTOR.services_by_name.values()]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self.server)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            self.port = self.server.add_insecure_port(f"{host}:{settings.grpc_port}")
        except RuntimeError:
            raise BadSetting(
                f"cannot listen for gRPC on {host} port {settings.grpc_port}; choose another with --grpc-port "
                "(port 0 takes a free one)"
            ) from None
        self.watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.server.start()
        self.watch = asyncio.create_task(self.look())

    async def stop(self, seconds: float) -> None:
        """Running calls have so long to finish."""
        if self.watch is not None:
            self.watch.cancel()
        await self.server.stop(seconds)

    async def look(self) -> None:
        """Say over and over which services can be used."""
        while True:
            well = (await probes.health(self.service)).status == 200
            can = {task for encoder in self.service.encoders.values() for task in encoder.tasks}
            for name, described in pb.DESCRIPTOR.services_by_name.items():
                await self.say(described.full_name, well and (name not in TASKS or bool(TASKS[name] & can)))
            await self.say("", well)
            await asyncio.sleep(HEALTH_SECONDS if well else 0.2)

    async def say(self, name: str, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse.ServingStatus
        await self.health.set(name, states.Value("SERVING" if serving else "NOT_SERVING"))

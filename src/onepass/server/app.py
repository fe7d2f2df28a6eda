"""The application: routes, the life of one HTTP request, and the one table from error codes to statuses."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from onepass.encoder import Encoder
from onepass.errors import OnepassError, Overloaded, Unavailable
from onepass.server import bei, cohere, hugging_face, jina, native, ollama, openai, tei, vertex, vllm
from onepass.server.answer import Answer, dumps, stages, timings
from onepass.server.body import field_names, parse, read_body
from onepass.server.openapi import document, page
from onepass.server.operation import Dialect, Operation
from onepass.server.probes import health, info, live, metrics, ready
from onepass.server.refusals import InternalError, MethodNotAllowed, NotFound
from onepass.server.service import Call, Service
from onepass.settings import ServerSettings

STATUS = {
    "bad_json": 400,
    "empty_input": 400,
    "unauthorized": 401,
    "not_found": 404,
    "unknown_model": 404,
    "method_not_allowed": 405,
    "body_too_large": 413,
    "too_large": 413,
    "unsupported_media": 415,
    "invalid_input": 422,
    "input_too_long": 422,
    "token_out_of_range": 422,
    "wrong_task": 422,
    "overloaded": 429,
    "engine_failure": 500,
    "internal": 500,
    "unavailable": 503,
    "cancelled": 503,
}

# TEI's words for te_request_failure; other errors of the input are "validation".
FAILURES = {
    "too_large": "batch_size",
    "cancelled": "dropped",
    "engine_failure": "inference",
    "internal": "inference",
    "wrong_task": "model_type",
    "overloaded": "overloaded",
    "unavailable": "unhealthy",
}

LAG_EVERY = 0.1
PATIENCE = 0.1  # seconds after which a call looks whether its client is still there; most are answered by then
OPERATIONS = (
    *tei.OPERATIONS,
    *jina.OPERATIONS,
    *openai.OPERATIONS,
    *cohere.OPERATIONS,
    *ollama.OPERATIONS,
    *vllm.OPERATIONS,
    *bei.OPERATIONS,
    *hugging_face.OPERATIONS,
    *vertex.OPERATIONS,
    *native.OPERATIONS,
)

log = logging.getLogger("onepass.http")


def create_app(encoders: Mapping[str, Encoder], settings: ServerSettings) -> ASGIApp:
    """An ASGI application that serves these models by name, ready at once."""
    service = Service(settings)
    service.open(encoders)
    return app_for(service)


def app_for(service: Service) -> ASGIApp:
    """The application around a service, which may still be loading.

    An operation is found by its path at once; pages, and what is no route at all, are found by Starlette.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(watch_lag(service))
        yield
        watch.cancel()

    endpoints = {path: Endpoint(service, operations) for path, operations in by_path(OPERATIONS).items()}
    posted_to = [Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()]
    pages = Starlette(
        routes=routes(service) + posted_to, lifespan=lifespan, exception_handlers={HTTPException: no_such_route}
    )
    pages.router.redirect_slashes = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        posted = scope["type"] == "http" and scope["method"] == "POST"
        await (endpoints.get(scope["path"], pages) if posted else pages)(scope, receive, send)

    return app


def routes(service: Service) -> list[Route]:
    """The pages."""
    described = document(OPERATIONS, STATUS)
    paper, html = dumps(described), page(described)
    get = functools.partial(page_route, service)
    return [
        *(get(path, lambda request: health(service)) for path in ("/", "/health", "/ping")),
        get("/livez", lambda request: live(service)),
        get("/readyz", lambda request: ready(service)),
        get("/metrics", lambda request: metrics(service)),
        *(get(path, lambda request: Answer(paper)) for path in ("/openapi.json", "/api-doc/openapi.json")),
        get("/docs", lambda request: Answer(html, media="text/html; charset=utf-8")),
        get("/info", lambda request: info(service, request.query_params.get("model")), guarded=True),
        get("/models/{model:path}/info", lambda request: info(service, request.path_params["model"]), guarded=True),
        get("/models/{model:path}/health", lambda request: health(service)),
        get("/v1/models", lambda request: openai.models(service), guarded=True, dialect=openai.OPENAI),
        get("/api/tags", lambda request: ollama.tags(service), guarded=True, dialect=ollama.OLLAMA),
        get("/api/ps", lambda request: ollama.running(service), guarded=True, dialect=ollama.OLLAMA),
        get("/api/version", lambda request: ollama.version(service), dialect=ollama.OLLAMA),
    ]


class Endpoint:
    """A path over HTTP: authorise, read, decode, work, answer; whatever goes wrong becomes one typed answer."""

    def __init__(self, service: Service, operations: Sequence[Operation]) -> None:
        """operations: those of the path, of which each body is meant for one."""
        self.service = service
        self.operations = operations
        self.decoders = [msgspec.json.Decoder(operation.request) for operation in operations]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self.operations[-1]
        call = Call(self.service, operation.kind, scope.get("path_params", {}))
        self.service.calls.add(call)
        self.service.metrics.running.inc()
        error: OnepassError | None = None
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            self.service.check_key(headers.get("authorization", ""))
            self.service.check_ready()
            body = await read_body(headers, receive, self.service.settings.max_body)
            call.watch = asyncio.get_running_loop().call_later(PATIENCE, watch, receive, call)
            index = await meant(self.operations, body)
            operation = self.operations[index]
            call.kind = operation.kind
            request = await parse(operation.request, self.decoders[index], body)
            answer = await operation.handle(call, request)
            answer.headers |= timings(call, time.perf_counter() - call.started)
            await respond(call, answer, send)
        except ClientDisconnect:
            call.stopped = "left"
        except BaseException as raised:
            error = typed(raised, call)
            if call.answering and call.stopped != "left":
                raise  # half an answer is out; uvicorn cuts the connection, which is how the client learns of it
            answer = refusal(error, operation.dialect)
            if call.stopped != "left":
                await respond(call, answer, send)
        finally:
            call.end()
            self.service.calls.discard(call)
            self.service.metrics.running.dec()
        await report(call, operation.path, None if call.stopped == "left" else answer.status, error)


def by_path(operations: Sequence[Operation]) -> dict[str, list[Operation]]:
    paths: dict[str, list[Operation]] = {}
    for operation in operations:
        paths.setdefault(operation.path, []).append(operation)
    return {path: sorted(found, key=lambda operation: not operation.marks) for path, found in paths.items()}


async def meant(operations: Sequence[Operation], body: bytes) -> int:
    """Which of the operations of one path a body is for."""
    last = len(operations) - 1
    fields = await field_names(body) if last else ()
    return next((index for index, one in enumerate(operations) if one.marks.intersection(fields)), last)


def typed(raised: BaseException, call: Call) -> OnepassError:
    """What to tell the client. Raises what is none of its business: cancelled by somebody else, interrupted."""
    if isinstance(raised, OnepassError):
        return raised
    if isinstance(raised, asyncio.CancelledError) and call.stopped is not None:
        if call.task is not None:
            call.task.uncancel()
        return Unavailable("this server is shutting down and the request could not be finished; send it to another one")
    if isinstance(raised, Exception):
        log.error("request failed", exc_info=raised)
        return InternalError("something went wrong inside the server; its log has the details")
    raise raised


def watch(receive: Receive, call: Call) -> None:
    call.watch = asyncio.create_task(stop_when_left(receive, call))


async def stop_when_left(receive: Receive, call: Call) -> None:
    """Wait for the client to close its side, which says that nobody waits for the answer."""
    while (await receive())["type"] != "http.disconnect":
        pass
    call.stop("left")


def status_of(dialect: Dialect, code: str) -> int:
    return dialect.statuses.get(code, STATUS[code])


def refusal(error: OnepassError, dialect: Dialect) -> Answer:
    status = status_of(dialect, error.code)
    headers = {}
    if isinstance(error, Overloaded):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    elif status == 503:
        headers["retry-after"] = "5"
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status == 413:
        # The rest of the body may still be on its way; nobody is going to read it.
        headers["connection"] = "close"
    return Answer(dumps(dialect.error(error, status)), status, headers)


async def respond(call: Call, answer: Answer, send: Send) -> None:
    call.answering = True
    await write(answer, send)


async def write(answer: Answer, send: Send) -> None:
    headers = [(b"content-type", answer.media.encode())]
    headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.items()]
    if isinstance(answer.body, bytes):
        headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if isinstance(answer.body, bytes):
        await send({"type": "http.response.body", "body": answer.body})
        return
    async for piece in answer.body:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


async def report(call: Call, path: str, status: int | None, error: OnepassError | None) -> None:
    """Count and log one request. status: None where the client left before the answer."""
    metrics, seconds = call.service.metrics, time.perf_counter() - call.started
    words = str(status or "left")
    metrics.child(metrics.responses, path, words).inc()
    if call.kind != "tokenize":
        answered = status == 200 and call.job is not None
        metrics.request(call.model, call.kind, call.inputs, batch=call.batch, answered=answered)
        if answered and call.job is not None:
            metrics.spent(call.model, call.kind, (seconds, *stages(call)))
            await metrics.sizes(call.model, call.job.usage.lengths, call.job.usage.truncated)
        else:
            why = "dropped" if status is None or error is None else FAILURES.get(error.code, "validation")
            metrics.failures.labels(why, call.model).inc()
    if log.isEnabledFor(logging.INFO):
        fields = {
            "path": path,
            "status": words,
            "model": call.model,
            "inputs": call.inputs,
            "seconds": round(seconds, 6),
        }
        log.info("%s %s %s %.1f ms", path, words, call.model or "-", seconds * 1000, extra={"fields": fields})


def page_route(
    service: Service, path: str, make: Callable[[Request], Any], *, guarded: bool = False, dialect: Dialect = tei.TEI
) -> Route:
    return Route(path, Page(service, dialect, guarded, make), methods=["GET"])


class Page:
    """A GET route: no body, nothing to wait for but a probe."""

    def __init__(self, service: Service, dialect: Dialect, guarded: bool, make: Callable[[Request], Any]) -> None:
        self.service = service
        self.dialect = dialect
        self.guarded = guarded
        self.make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            if self.guarded:
                self.service.check_key(request.headers.get("authorization", ""))
            made = self.make(request)
            made = await made if asyncio.iscoroutine(made) else made
            answer = made if isinstance(made, Answer) else Answer(dumps(made))
        except OnepassError as error:
            answer = refusal(error, self.dialect)
        await write(answer, send)


async def no_such_route(request: Request, error: Exception) -> Response:
    """404 and 405 in the words of the other errors."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:200]}"
    problem: OnepassError = NotFound(f"{what} is no route of this server; GET /docs lists them")
    if error.status_code == 405:
        problem = MethodNotAllowed(f"{what} is not possible, that route takes {(error.headers or {}).get('Allow')}")
    answer = refusal(problem, tei.TEI)
    assert isinstance(answer.body, bytes)
    return Response(answer.body, answer.status, {**(error.headers or {}), **answer.headers}, answer.media)


async def watch_lag(service: Service) -> None:
    """How much later than asked the event loop comes round, over and over."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_EVERY
        await asyncio.sleep(LAG_EVERY)
        service.metrics.lag.observe(max(0.0, loop.time() - due))

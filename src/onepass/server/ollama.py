"""Ollama's routes for embeddings, and what its clients ask about models."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from onepass import __version__
from onepass.encoder import Encoder
from onepass.errors import OnepassError
from onepass.server.answer import Answer, dumps, json_answer, listing
from onepass.server.operation import Dialect, Operation
from onepass.server.service import Call, Service
from onepass.tasks.embed import embed

NEVER = "9999-12-31T23:59:59Z"


class Failure(msgspec.Struct):
    error: str


class EmbedRequest(msgspec.Struct, kw_only=True):
    """`dimensions`: 0 means all.  `keep_alive`, `options`: read and left alone; models stay loaded."""

    input: str | list[str] | None = None
    model: str | None = None
    truncate: bool | None = None
    dimensions: int | None = None
    keep_alive: int | float | str | None = None
    options: dict[str, Any] | None = None


class EmbedResponse(msgspec.Struct):
    """Durations are nanoseconds; where nothing was asked, nothing was measured."""

    model: str
    embeddings: list[list[float]]
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    prompt: str | None = None
    model: str | None = None
    keep_alive: int | float | str | None = None
    options: dict[str, Any] | None = None


class EmbeddingsResponse(msgspec.Struct):
    embedding: list[float]


class ShowRequest(msgspec.Struct, kw_only=True):
    """`name`: what `model` was called before."""

    model: str | None = None
    name: str | None = None


class Details(msgspec.Struct):
    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ShowResponse(msgspec.Struct):
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


async def answer_embed(call: Call, body: EmbedRequest) -> Answer:
    texts = [body.input] if isinstance(body.input, str) else body.input or []
    model = untagged(call.service, body.model)
    if texts in ([], [""]):  # which loads a model and does nothing else
        call.choose(model)
        return json_answer({"model": body.model or call.model, "embeddings": []})
    job = call.open(model, len(texts), batch=not isinstance(body.input, str))
    vectors = await embed(
        job, texts, dimensions=body.dimensions or None, normalize=True, truncate=call.cut(body.truncate)
    )
    spent = {
        "total_duration": round((time.perf_counter() - call.started) * 1e9),
        "load_duration": 0,
        "prompt_eval_count": job.usage.tokens,
    }
    return listing(
        len(vectors),
        lambda start, stop: vectors[start:stop],
        step=max(1, 32_768 // vectors.shape[1]),
        before=b'{"model":' + dumps(body.model or call.model) + b',"embeddings":[',
        after=b"]," + dumps(spent)[1:],
    )


async def answer_embeddings(call: Call, body: EmbeddingsRequest) -> Answer:
    """The vector as the model leaves it, not scaled to length 1."""
    model = untagged(call.service, body.model)
    if not body.prompt:
        call.choose(model)
        return json_answer({"embedding": []})
    job = call.open(model, 1, batch=False)
    vectors = await embed(job, [body.prompt], normalize=False, truncate=call.cut(None))
    return json_answer({"embedding": vectors[0]})


async def answer_show(call: Call, body: ShowRequest) -> Answer:
    encoder = call.choose(untagged(call.service, body.model or body.name))
    checkpoint = encoder.checkpoint
    known = {
        "general.architecture": checkpoint.family,
        f"{checkpoint.family}.block_count": len(checkpoint.spec.layers),
        f"{checkpoint.family}.context_length": checkpoint.max_length,
        f"{checkpoint.family}.embedding_length": checkpoint.dimensions or checkpoint.spec.width,
    }
    return json_answer(
        {
            "details": details(encoder),
            "model_info": known,
            "capabilities": capabilities(encoder),
            "modified_at": modified(encoder),
        }
    )


def untagged(service: Service, model: str | None) -> str | None:
    """ "all-minilm:latest" is "all-minilm" where nothing is served by the longer name."""
    return model if model in service.encoders else (model or "").removesuffix(":latest") or None


def tags(service: Service) -> dict[str, Any]:
    """What GET /api/tags answers: the served models."""
    service.check_ready()
    return {
        "models": [
            entry(name, encoder) | {"modified_at": modified(encoder), "capabilities": capabilities(encoder)}
            for name, encoder in service.encoders.items()
        ]
    }


def running(service: Service) -> dict[str, Any]:
    """What GET /api/ps answers: all of them are loaded, for good."""
    service.check_ready()
    return {
        "models": [
            entry(name, encoder)
            | {"expires_at": NEVER, "size_vram": 0, "context_length": encoder.checkpoint.max_length}
            for name, encoder in service.encoders.items()
        ]
    }


def version(service: Service) -> dict[str, str]:
    return {"version": __version__}


def entry(name: str, encoder: Encoder) -> dict[str, Any]:
    """`size`: bytes of the weights' files."""
    return {
        "name": name,
        "model": name,
        "size": sum(file.stat().st_size for file in encoder.checkpoint.path.rglob("*.safetensors")),
        "digest": encoder.checkpoint.revision or "",
        "details": details(encoder),
    }


def details(encoder: Encoder) -> dict[str, Any]:
    family = encoder.checkpoint.family
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": {"float32": "F32", "bfloat16": "BF16"}.get(encoder.engine.dtype, encoder.engine.dtype),
    }


def capabilities(encoder: Encoder) -> list[str]:
    return ["embedding"] if "embed" in encoder.tasks else []


def modified(encoder: Encoder) -> str:
    return datetime.fromtimestamp(encoder.checkpoint.path.stat().st_mtime, UTC).isoformat()


def error_body(error: OnepassError, status: int) -> dict[str, str]:
    return {"error": str(error)}


# Whatever is wrong with a request is a 400, and a full queue is a 503.
WRONG = ("invalid_input", "input_too_long", "wrong_task", "too_large")
OLLAMA = Dialect("ollama", error_body, Failure, dict.fromkeys(WRONG, 400) | {"overloaded": 503})

OPERATIONS = (
    Operation("/api/embed", "embed", OLLAMA, EmbedRequest, EmbedResponse, answer_embed, "One vector per input."),
    Operation(
        "/api/embeddings", "embed", OLLAMA, EmbeddingsRequest, EmbeddingsResponse, answer_embeddings, "One vector."
    ),
    Operation("/api/show", "tokenize", OLLAMA, ShowRequest, ShowResponse, answer_show, "What is known of a model."),
)

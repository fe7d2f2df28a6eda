"""What orchestrators and dashboards ask: alive, ready, healthy, metrics, and what is served."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Any

from onepass import __version__
from onepass.encoder import Encoder
from onepass.errors import OnepassError
from onepass.server.answer import Answer, json_answer
from onepass.server.service import Service

FRESH_SECONDS = 5.0
PROBE_SECONDS = 10.0

log = logging.getLogger("onepass.http")


def live(service: Service) -> Answer:
    """The process answers, whatever state it is in."""
    return json_answer({"status": "alive"})


def ready(service: Service) -> Answer:
    """Raises Unavailable while loading and draining."""
    service.check_ready()
    return json_answer({"status": "ready", "models": list(service.encoders)})


async def health(service: Service) -> Answer:
    """Empty 200, or TEI's 503: every model has just computed something, or computes one token now."""
    try:
        service.check_ready()
        for name, encoder in service.encoders.items():
            # A busy model proves itself; its queue may be too full to let a probe in.
            if time.monotonic() - service.last_batch.get(name, -math.inf) > FRESH_SECONDS:
                async with asyncio.timeout(PROBE_SECONDS):
                    await encoder.probe()
    except (OnepassError, TimeoutError) as error:
        log.warning("unhealthy: %s", error or f"no answer within {PROBE_SECONDS} s")
        return json_answer({"error": "unhealthy", "error_type": "Unhealthy"}, 503, {"retry-after": "5"})
    return Answer(b"")


def metrics(service: Service) -> Answer:
    return Answer(service.metrics.render(), media="text/plain; version=0.0.4; charset=utf-8")


def info(service: Service, model: str | None) -> dict[str, Any]:
    """TEI's fields, as far as they are known here, and `heads`, for one model. Raises UnknownModel, Unavailable."""
    name, encoder = service.choose(model)
    checkpoint, settings = encoder.checkpoint, service.settings
    return {
        "model_id": checkpoint.name,
        "model_sha": checkpoint.revision,
        "model_dtype": encoder.engine.dtype,
        "served_model_name": name,
        "model_type": model_type(encoder),
        "heads": encoder.heads,
        # Requests are admitted by tokens; this is how many of the smallest could be inside at once.
        "max_concurrent_requests": encoder.device.admission.capacity,
        "max_input_length": checkpoint.max_length,
        "max_batch_tokens": encoder.device.cost(encoder.job().served.model).budget,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_inputs,
        "auto_truncate": settings.auto_truncate,
        "tokenization_workers": encoder.device.cores,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def model_type(encoder: Encoder) -> dict[str, Any]:
    """As TEI says it, of a model that embeds or else classifies; of others the kinds of their heads."""
    heads = {head.kind: head for head in reversed([*encoder.checkpoint.heads.values()])}  # the first of each kind
    if "embed" in heads:
        pooling = {"first": "cls", "last_not_pad": "last_token", "last": "last_token"}
        return {"embedding": {"pooling": "+".join(pooling.get(kind, kind) for kind in heads["embed"].pool.kinds)}}
    if "classify" not in heads:
        return {kind: {} for kind in heads}
    labels = heads["classify"].labels
    names = {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    return {"reranker" if len(labels) == 1 else "classifier": names}

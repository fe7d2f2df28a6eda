"""The OpenAPI document and a page that shows it, both derived from the operations and their msgspec types."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import groupby
from typing import Any

import msgspec

from onepass import __version__
from onepass.server.operation import Operation

PAGES = {
    "/health": "200 while every model answers a one-token probe, else 503.",
    "/livez": "200 as long as the process answers.",
    "/readyz": "200 when requests are taken; 503 while loading or draining.",
    "/metrics": "Prometheus metrics.",
    "/info": "What is served; `?model=` chooses where there are several.",
    "/v1/models": "The served models, as OpenAI lists them.",
    "/api/tags": "The served models, as Ollama lists them.",
    "/api/ps": "The same: all of them are loaded.",
    "/api/version": "onepass's version.",
}
REFUSED = {"/health": (503,), "/readyz": (503,), "/info": (401, 404, 503), "/v1/models": (401,)}
REFUSED |= {"/api/tags": (401,), "/api/ps": (401,)}
NAMED = re.compile(r"{(\w+)(?::path)?}")
REFERENCE = re.compile(r'\{"\$ref":"#/components/schemas/([^"]+)"\}')
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
code, pre { font-family: ui-monospace, monospace; font-size: 14px }
pre { background: #f4f4f4; padding: .8rem; overflow: auto }
h2 { margin-top: 2rem; font-size: 1.1rem } summary { cursor: pointer }
"""


def document(operations: Sequence[Operation], statuses: Mapping[str, int]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    types = [type for operation in operations for type in forms(operation)]
    found, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_form = dict(zip(map(repr, types), found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for path, same in groupby(sorted(operations, key=lambda one: one.path), key=lambda one: one.path):
        shared = list(same)
        request, response, failure = (
            any_of([by_form[repr(form)] for form in alike]) for alike in zip(*map(forms, shared), strict=True)
        )
        possible = {status for one in shared for status in {**statuses, **one.dialect.statuses}.values()}
        named = NAMED.findall(path)
        refusals = {str(status): described(status, failure) for status in sorted(possible - {405})}
        paths.setdefault(NAMED.sub(r"{\1}", path), {})["post"] = {
            "summary": " ".join(operation.summary for operation in shared),
            "operationId": "_".join(re.findall(r"\w+", NAMED.sub(r"\1", path))) or "root",
            "tags": [operation.dialect.name for operation in shared],
            "security": [{}, {"key": []}],
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in named
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
            "responses": {"200": described(200, response), **refusals},
        }
        if any(operation.raw for operation in shared):
            paths[NAMED.sub(r"{\1}", path)]["post"]["responses"]["200"]["content"]["application/octet-stream"] = {}
    for path, summary in PAGES.items():
        answers = {str(code): {"description": HTTPStatus(code).phrase} for code in (200, *REFUSED.get(path, ()))}
        paths.setdefault(path, {})["get"] = {"summary": summary, "responses": answers}
    return {
        "openapi": "3.1.0",
        "info": {"title": "onepass", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def forms(operation: Operation) -> tuple[Any, Any, Any]:
    """The types of its request, its answer and its errors."""
    return operation.request, operation.response, operation.dialect.failure


def any_of(schemas: list[Any]) -> Any:
    different = [schema for index, schema in enumerate(schemas) if schema not in schemas[:index]]
    return different[0] if len(different) == 1 else {"anyOf": different}


def described(status: int, schema: Any) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": {"application/json": {"schema": schema}}}


def page(paper: Mapping[str, Any]) -> bytes:
    """The document as one page of HTML, without scripts and without anything from elsewhere."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>onepass</title>",
        f"<style>{STYLE}</style><h1>onepass {html.escape(paper['info']['version'])}</h1>",
        "<p>The same as <a href=openapi.json>OpenAPI document</a>.</p>",
    ]
    for path, methods in paper["paths"].items():
        for method, operation in methods.items():
            parts.append(
                f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(operation['summary'])}"
            )
            if "requestBody" in operation:
                parts.append(
                    f"<pre>{shown(operation['requestBody'])}</pre><p>answers<pre>{shown(operation['responses']['200'])}</pre>"
                )
    parts.append("<h1>Schemas</h1>")
    for name, schema in paper["components"]["schemas"].items():
        text = html.escape(msgspec.json.format(msgspec.json.encode(schema), indent=2).decode())
        title = html.escape(name)
        parts.append(f'<details id="{title}"><summary><code>{title}</code></summary><pre>{text}</pre></details>')
    return "\n".join(parts).encode()


def shown(content: Mapping[str, Any]) -> str:
    """A schema on one line, its references as links into the page."""
    text = html.escape(msgspec.json.encode(content["content"]["application/json"]["schema"]).decode(), quote=False)
    return REFERENCE.sub(r'<a href="#\1">\1</a>', text)

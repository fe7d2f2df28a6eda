"""schemathesis draws requests from our own OpenAPI document: every answer is one that the document describes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from live import Live, listening, load
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from onepass.server.app import OPERATIONS, STATUS
from onepass.server.openapi import document

API = schemathesis.openapi.from_dict(document(OPERATIONS, STATUS))
ROUTES: dict[str, Any] = {
    f"{operation.method.upper()} {operation.path}": operation
    for operation in (cast(Any, found).ok() for found in API.get_all_operations())
}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODELS = ["embedder", "classifier", "reranker", "tagger", "filler", "answerer", "entailer", "decoder", "bge_m3"]
EXAMPLES = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 20
"""Of a route; the deep profile makes it more than 5,000 in all."""


@pytest.fixture(scope="module")
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    paths: list[Path] = [request.getfixturevalue(f"tiny_{name}") for name in MODELS]
    encoders = load(*zip(MODELS, paths, strict=True))
    with listening(lambda: encoders) as live:
        yield live


@pytest.mark.parametrize("route", ROUTES)
def test_every_answer_is_one_that_the_document_describes(live: Live, route: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=ROUTES[route].as_strategy(), model=st.none() | st.sampled_from(MODELS))
    def answered(case: Any, model: str | None) -> None:
        # a drawn name is never one of these
        if model is not None and isinstance(case.body, dict) and "model" not in case.path_parameters:
            case.body["model"] = model
        if model is not None and "model" in case.path_parameters:
            case.path_parameters["model"] = model
        response = case.call(base_url=live.url)
        event(f"{response.status_code}")
        case.validate_response(response, checks=CHECKS)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answered()

"""gRPC: a client generated from tei.proto against the running server, beside what HTTP answers."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc
from live import Live, listening, load, until

from onepass import server
from onepass.encoder import Encoder
from onepass.errors import BadSetting, MissingExtra
from onepass.server.serve import grpc_listener
from onepass.server.service import Service
from onepass.settings import ServerSettings

PROTO = Path(server.__file__).with_name("tei.proto")
MODELS = ["embedder", "classifier", "reranker", "splade"]
TEXTS = ["A cat sits on the mat.", "the stock market fell", "one"]


def generated(folder: Path) -> None:
    done = protoc.main(["", f"-I{PROTO.parent}", f"--python_out={folder}", f"--grpc_python_out={folder}", PROTO.name])
    assert done == 0


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The modules that grpc's own tool makes of the file: messages and stubs."""
    folder = tmp_path_factory.mktemp("client")
    generated(folder)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("tei_pb2"), importlib.import_module("tei_pb2_grpc")
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def encoders(request: pytest.FixtureRequest) -> dict[str, Encoder]:
    return load(*((name, request.getfixturevalue(f"tiny_{name}")) for name in MODELS), dtype="float32")


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: encoders, ServerSettings(grpc_port=0, api_key="secret", max_inputs=8)) as live:
        live.http.headers["authorization"] = "Bearer secret"
        yield live


@pytest.fixture(scope="module")
def channel(live: Live) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{live.server.grpc.port}") as channel:
        yield channel


def to(model: str) -> dict[str, Any]:
    return {"metadata": (("model", model), ("authorization", "Bearer secret")), "timeout": 30}


def test_the_generated_code_is_that_of_the_file(tmp_path: Path) -> None:
    generated(tmp_path)
    assert (tmp_path / "tei_pb2.py").read_text() == PROTO.with_name("tei_pb2.py").read_text()


def test_vectors(client: Any, channel: grpc.Channel, live: Live, encoders: dict[str, Encoder]) -> None:
    pb, stubs = client
    stub = stubs.EmbedStub(channel)
    one, call = stub.Embed.with_call(pb.EmbedRequest(inputs=TEXTS[0], truncate=True), **to("embedder"))
    assert np.allclose(one.embeddings, encoders["embedder"].embed(TEXTS[0]), atol=1e-6)
    tokens = len(encoders["embedder"].tokenizer.tokens(TEXTS[0]))
    assert (one.metadata.compute_tokens, one.metadata.compute_chars) == (tokens, len(TEXTS[0]))
    assert one.metadata.total_time_ns > one.metadata.inference_time_ns > 0
    assert dict(call.initial_metadata())["x-compute-tokens"] == str(tokens)
    raw = stub.Embed(pb.EmbedRequest(inputs=TEXTS[0], normalize=False, dimensions=8), **to("embedder"))
    assert np.allclose(raw.embeddings, encoders["embedder"].embed(TEXTS[0], normalize=False, dimensions=8), atol=1e-6)
    states = stub.EmbedAll(pb.EmbedAllRequest(inputs=TEXTS[0]), **to("embedder"))
    expected = live.http.post("/embed_all", json={"inputs": TEXTS[0], "model": "embedder"}).json()[0]
    assert np.allclose([row.embeddings for row in states.token_embeddings], expected, atol=1e-6)
    weights = stub.EmbedSparse(pb.EmbedSparseRequest(inputs=TEXTS[0]), **to("splade"))
    expected = live.http.post("/embed_sparse", json={"inputs": TEXTS[0], "model": "splade"}).json()[0]
    assert [one.index for one in weights.sparse_embeddings] == [one["index"] for one in expected]
    assert np.allclose([one.value for one in weights.sparse_embeddings], [one["value"] for one in expected], atol=1e-6)


def test_streams_answer_in_order(client: Any, channel: grpc.Channel, encoders: dict[str, Encoder]) -> None:
    pb, stubs = client
    texts = [f"{text} {number}" for number in range(100) for text in TEXTS]
    requests = (pb.EmbedRequest(inputs=text) for text in texts)
    found = [one.embeddings for one in stubs.EmbedStub(channel).EmbedStream(requests, **to("embedder"))]
    assert np.allclose(found, encoders["embedder"].embed(texts), atol=1e-6)


def test_labels_and_ranks(client: Any, channel: grpc.Channel, encoders: dict[str, Encoder]) -> None:
    pb, stubs = client
    predict, rerank = stubs.PredictStub(channel), stubs.RerankStub(channel)
    single, pair = encoders["classifier"].classify(["good", ("good", "bad")])
    one = predict.Predict(pb.PredictRequest(inputs="good"), **to("classifier"))
    assert [row.label for row in one.predictions] == [label for label, _ in single]
    assert np.allclose([row.score for row in one.predictions], [score for _, score in single], atol=1e-6)
    two = predict.PredictPair(pb.PredictPairRequest(inputs=["good", "bad"]), **to("classifier"))
    assert np.allclose([row.score for row in two.predictions], [score for _, score in pair], atol=1e-6)
    ranked = encoders["reranker"].rerank("cat", TEXTS)
    whole = rerank.Rerank(pb.RerankRequest(query="cat", texts=TEXTS, return_text=True), **to("reranker"))
    assert [row.index for row in whole.ranks] == [row.index for row in ranked]
    assert [row.text for row in whole.ranks] == [TEXTS[row.index] for row in ranked]
    messages = (pb.RerankStreamRequest(query="cat", text=text) for text in TEXTS)
    parts = rerank.RerankStream(messages, **to("reranker"))
    assert [(row.index, row.score, row.HasField("text")) for row in parts.ranks] == [
        (row.index, row.score, False) for row in whole.ranks
    ]


def test_tokens_and_info(client: Any, channel: grpc.Channel, encoders: dict[str, Encoder]) -> None:
    pb, stubs = client
    stub = stubs.TokenizeStub(channel)
    expected = encoders["embedder"].tokenizer.tokens("héllo you")
    found = stub.Tokenize(pb.EncodeRequest(inputs="héllo you", add_special_tokens=True), **to("embedder")).tokens
    assert [(one.id, one.text, one.special) for one in found] == [(one.id, one.text, one.special) for one in expected]
    assert [one.start if one.HasField("start") else None for one in found] == [one.start for one in expected]
    ids = [one.id for one in expected]
    texts = stub.DecodeStream(
        (pb.DecodeRequest(ids=ids, skip_special_tokens=skip) for skip in (True, False)), **to("embedder")
    )
    assert [one.text for one in texts] == [
        encoders["embedder"].tokenizer.decode(ids, skip_special=skip) for skip in (True, False)
    ]
    info = stubs.InfoStub(channel).Info(pb.InfoRequest(), **to("reranker"))
    assert (info.model_type, info.max_input_length) == (
        pb.MODEL_TYPE_RERANKER,
        encoders["reranker"].checkpoint.max_length,
    )


@pytest.mark.parametrize(
    ("model", "fields", "code", "said"),
    [
        ("embedder", {"inputs": ""}, "INVALID_ARGUMENT", "Input validation error: `inputs` cannot be empty"),
        ("embedder", {"inputs": "cat " * 300}, "INVALID_ARGUMENT", "`inputs` must have less than 64 tokens. Given: "),
        ("embedder", {"inputs": "a", "dimensions": 0}, "INVALID_ARGUMENT", "dimensions is 0"),
        ("embedder", {"inputs": "a", "prompt_name": "x"}, "INVALID_ARGUMENT", "the prompt 'x' is not this model's"),
        ("classifier", {"inputs": "a"}, "FAILED_PRECONDITION", "cannot embed"),
        ("other", {"inputs": "a"}, "NOT_FOUND", "the model 'other' is not served here"),
    ],
)
def test_errors(client: Any, channel: grpc.Channel, model: str, fields: Any, code: str, said: str) -> None:
    pb, stubs = client
    stub = stubs.EmbedStub(channel)
    with pytest.raises(grpc.RpcError) as one:
        stub.Embed(pb.EmbedRequest(**fields), **to(model))
    with pytest.raises(grpc.RpcError) as stream:
        list(stub.EmbedStream(iter([pb.EmbedRequest(**fields)]), **to(model)))
    for raised in (one.value, stream.value):
        error: Any = raised
        assert (error.code().name, said in error.details()) == (code, True), error.details()
    assert stub.Embed(pb.EmbedRequest(inputs="next"), **to("embedder")).embeddings


def test_a_key_is_wanted(client: Any, channel: grpc.Channel) -> None:
    pb, stubs = client
    with pytest.raises(grpc.RpcError) as raised:
        stubs.EmbedStub(channel).Embed(pb.EmbedRequest(inputs="a"), metadata=(("model", "embedder"),), timeout=30)
    error: Any = raised.value
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_client_that_leaves_is_forgotten(client: Any, channel: grpc.Channel, live: Live) -> None:
    pb, stubs = client
    endless = (pb.EmbedRequest(inputs=f"cat {number}") for number in itertools.count())
    stream = stubs.EmbedStub(channel).EmbedStream(endless, **to("embedder"))
    assert next(stream).embeddings
    stream.cancel()
    until(lambda: not live.service.calls)
    assert stubs.EmbedStub(channel).Embed(pb.EmbedRequest(inputs="next"), **to("embedder")).embeddings


def test_health_and_reflection(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", "tei.v1.Embed", "tei.v1.Predict", "tei.v1.Rerank", "tei.v1.Info", "tei.v1.Tokenize"):
        until(lambda name=name: stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=30).status == serving)  # type: ignore[misc]
    named = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"tei.v1.Embed", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= set(named)


async def test_a_port_that_is_taken_and_a_package_that_is_missing(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    port = live.server.grpc.port
    with pytest.raises(
        BadSetting, match=f"^cannot listen for gRPC on 127.0.0.1 port {port}; choose another with --grpc"
    ):
        grpc_listener(Service(ServerSettings(grpc_port=port)))
    monkeypatch.delitem(sys.modules, "onepass.server.grpc")
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingExtra, match=r"pip install 'onepass\[grpc\]'"):
        grpc_listener(Service(ServerSettings(grpc_port=0)))

"""The server at its limits: keys, full queues, clients that leave, loading, draining, and what it counts."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from live import Live, listening, load, until

from onepass.encoder import Encoder
from onepass.errors import BadCheckpoint, BadSetting
from onepass.server.serve import bind, run
from onepass.server.service import Service
from onepass.settings import ServerSettings

SERVE = """
import sys
from onepass.server.serve import serve
from onepass.settings import ModelSettings, ServerSettings
settings = ServerSettings(port=0, drain_seconds=float(sys.argv[2]))
serve({"tiny": sys.argv[1]}, ModelSettings(), settings)
"""


@pytest.fixture(scope="module")
def encoders(tiny_embedder: Path) -> dict[str, Encoder]:
    return load(("tiny", tiny_embedder), queue_tokens=1_000)


@pytest.fixture
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: encoders) as live:
        yield live


def request(body: bytes, *, length: int | None = None) -> bytes:
    """A POST /embed as it goes over the wire."""
    head = "POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {length or len(body)}\r\n\r\n".encode() + body


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        yield client


def read_answer(client: socket.socket) -> tuple[int, str]:
    """Status and body of a response that ends with its connection or its content-length."""
    data = b""
    while chunk := client.recv(65_536):
        data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if length and len(body) >= int(length[1]):
            break
    return int(data.split()[1]), data.partition(b"\r\n\r\n")[2].decode()


# Keys.


@pytest.mark.parametrize("keys", ["", ",", " , "])
def test_a_list_without_a_key_does_not_open_the_server(keys: str) -> None:
    with pytest.raises(BadSetting, match="^api_key holds no key; give at least one, or leave it out to serve without$"):
        Service(ServerSettings(api_key=keys))


def test_every_key_opens_and_no_other(encoders: dict[str, Encoder]) -> None:
    with listening(lambda: encoders, ServerSettings(api_key="first, second")) as live:
        said = "this server wants a key: send the header Authorization: Bearer <key> with a valid one"
        for authorization in ("", "Bearer", "Bearer third", "Bearer first,second", "Basic first", "Bearer ünlaut"):
            headers = {b"authorization": authorization.encode()}
            response = live.http.post("/embed", json={"inputs": "a"}, headers=headers)
            assert (response.status_code, response.json()) == (401, {"error": said, "error_type": "Unauthorized"})
            assert response.headers["www-authenticate"] == "Bearer"
        for key in ("first", "second"):
            response = live.http.post("/embed", json={"inputs": "a"}, headers={"authorization": f"Bearer {key}"})
            assert response.status_code == 200
        openai = live.http.post("/v1/embeddings", json={"input": "a"})
        assert openai.json()["error"]["type"] == "authentication_error"
        assert live.http.get("/v1/models").status_code == live.http.get("/info").status_code == 401
        for path in ("/health", "/metrics", "/readyz", "/livez", "/ping", "/", "/docs", "/openapi.json"):
            assert live.http.get(path).status_code == 200


# Room.


def test_a_full_queue_is_429_with_a_time_to_come_back(live: Live, encoders: dict[str, Encoder]) -> None:
    room = encoders["tiny"].device.admission
    room.reserve(990, 0)
    try:
        response = live.http.post("/embed", json={"inputs": "a cat sits on the mat"})
        assert response.status_code == 429
        assert response.json()["error_type"] == "Overloaded"
        assert response.json()["error"].startswith(
            "the queue has room for 10 of its 1000 tokens, the request may need "
        )
        assert int(response.headers["retry-after"]) >= 1
        limited = live.http.post("/v1/embeddings", json={"input": "a cat sits on the mat"})
        assert (limited.status_code, limited.json()["error"]["type"]) == (429, "rate_limit_error")
        assert live.metric('te_request_failure{err="overloaded",model="tiny"}') == 2
        assert live.http.get("/readyz").status_code == 200
    finally:
        room.release(990)
    assert live.http.post("/embed", json={"inputs": "a cat sits on the mat"}).status_code == 200
    assert room.reserved == 0


def test_what_could_never_fit_is_told_so(live: Live) -> None:
    response = live.http.post("/embed", json={"inputs": ["word " * 60] * 40})
    assert response.status_code == 422
    said = "more than the 1000 this queue ever admits at once; split it into smaller requests"
    assert response.json()["error"].endswith(said)


# Clients that leave.


def test_a_half_closed_client_is_gone(minilm: Path) -> None:
    encoders = load(("minilm", minilm))
    device = encoders["minilm"].device
    with listening(lambda: encoders) as live:
        with connected(live.port) as client:
            client.sendall(request(json.dumps({"inputs": ["word " * 200] * 300}).encode()))
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        until(lambda: live.metric('onepass_http_responses_total{route="/embed",status="left"}') == 1)
        until(lambda: (device.queued_rows, device.admission.reserved) == (0, 0))
        assert live.metric("onepass_running_requests") == 0
        assert live.http.post("/embed", json={"inputs": "next"}).status_code == 200


def test_a_client_that_leaves_takes_its_rows_along(minilm: Path) -> None:
    encoders = load(("minilm", minilm))
    device = encoders["minilm"].device
    with listening(lambda: encoders) as live:
        with connected(live.port) as client:
            client.sendall(request(json.dumps({"inputs": ["word " * 200] * 300}).encode()))
            until(lambda: device.queued_rows > 0)
        until(lambda: (device.queued_rows, device.admission.reserved) == (0, 0))
        until(lambda: live.metric("onepass_running_requests") == 0)
        assert live.metric('te_request_failure{err="dropped",model="minilm"}') == 1
        assert live.http.post("/embed", json={"inputs": "next"}).status_code == 200


def test_a_client_that_leaves_in_the_middle_of_its_body(live: Live) -> None:
    with connected(live.port) as client:
        client.sendall(request(b'{"inputs":', length=1_000))
        until(lambda: live.metric("onepass_running_requests") == 1)
    until(lambda: live.metric("onepass_running_requests") == 0)
    assert live.http.post("/embed", json={"inputs": "next"}).status_code == 200


# Loading.


def test_while_loading_everything_but_the_probe_of_life_is_503(encoders: dict[str, Encoder]) -> None:
    go = threading.Event()

    def slowly() -> Mapping[str, Encoder]:
        go.wait(20)
        return encoders

    with listening(slowly, ready=False) as live:
        said = "the models are still loading; try again in a few seconds"
        response = live.http.post("/embed", json={"inputs": "a"})
        assert (response.status_code, response.json()) == (503, {"error": said, "error_type": "Unhealthy"})
        assert response.headers["retry-after"] == "5"
        for path in ("/readyz", "/health", "/info", "/v1/models"):
            assert live.http.get(path).status_code == 503
        assert live.http.get("/livez").status_code == live.http.get("/metrics").status_code == 200
        go.set()
        until(lambda: live.http.get("/readyz").status_code == 200)
        assert live.http.post("/embed", json={"inputs": "a"}).status_code == 200


def test_a_failed_load_ends_the_server_with_its_sentence() -> None:
    def fail() -> Mapping[str, Encoder]:
        raise BadCheckpoint("no config.json in 'x'")

    with pytest.raises(BadCheckpoint, match=r"^no config\.json in 'x'$"):
        run(Service(ServerSettings(port=0)), fail)


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadSetting) as caught:
            bind("127.0.0.1", port)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1 port {port}: address already in use; "
        "choose another with --host and --port (port 0 takes a free one)"
    )


def test_an_address_that_is_no_address() -> None:
    with pytest.raises(BadSetting, match=r"^cannot listen on 203\.0\.113\.1 port 80: "):
        bind("203.0.113.1", 80)


# Draining.


@contextlib.contextmanager
def serving_process(model: Path, drain_seconds: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`serve` in a process of its own, ready, and its port."""
    command = [sys.executable, "-c", SERVE, str(model), str(drain_seconds)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            port = next(int(found[1]) for line in lines if (found := re.search(r"listening on http://\S+:(\d+)", line)))
            assert any("ready: tiny" in line for line in lines)
            yield process, port
        finally:
            process.kill()


def test_sigterm_finishes_what_runs_and_refuses_what_comes(tiny_embedder: Path) -> None:
    body = b'{"inputs":"a cat"}'
    with serving_process(tiny_embedder, 30) as (process, port), connected(port) as running:
        running.sendall(request(body[:5], length=len(body)))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            until(lambda: "onepass_running_requests 1.0" in http.get("/metrics").text)
            process.send_signal(signal.SIGTERM)
            until(lambda: http.get("/readyz").status_code == 503)
            refused = http.post("/embed", json={"inputs": "a"})
            said = "this server is shutting down and takes no new requests; try another one"
            assert (refused.status_code, refused.json()) == (503, {"error": said, "error_type": "Unhealthy"})
            assert refused.headers["retry-after"] == "5"
            assert http.get("/livez").status_code == 200
        running.sendall(body[5:])
        status, answer = read_answer(running)
        assert (status, len(json.loads(answer))) == (200, 1)
        assert process.wait(20) == 0


def test_what_does_not_finish_in_time_is_told_so(tiny_embedder: Path) -> None:
    with serving_process(tiny_embedder, 0.2) as (process, port), connected(port) as running:
        running.sendall(request(b'{"inp', length=1_000))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            until(lambda: "onepass_running_requests 1.0" in http.get("/metrics").text)
        process.send_signal(signal.SIGTERM)
        status, answer = read_answer(running)
        said = "this server is shutting down and the request could not be finished; send it to another one"
        assert (status, json.loads(answer)["error"]) == (503, said)
        assert process.wait(20) == 0


def test_an_idle_server_ends_at_once(tiny_embedder: Path) -> None:
    with serving_process(tiny_embedder, 30) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


# Counting.


def test_metrics_count_what_happened(live: Live) -> None:
    assert live.http.post("/embed", json={"inputs": "a cat"}).status_code == 200
    assert live.http.post("/embed", json={"inputs": ["a cat", "word " * 100]}).status_code == 200
    assert live.http.post("/embed", json={"inputs": ""}).status_code == 400
    single, batch = '{method="single",model="tiny"}', '{method="batch",model="tiny"}'
    assert (live.metric(f"te_request_count{single}"), live.metric(f"te_request_count{batch}")) == (2, 1)
    assert (live.metric(f"te_request_success{single}"), live.metric(f"te_request_success{batch}")) == (1, 1)
    assert live.metric('te_request_failure{err="validation",model="tiny"}') == 1
    model = '{model="tiny"}'
    assert (live.metric(f"te_embed_count{model}"), live.metric(f"te_embed_success{model}")) == (4, 3)
    for name in ("request", "embed"):
        for time in ("duration", "tokenization_duration", "queue_duration", "inference_duration"):
            assert live.metric(f"te_{name}_{time}_count{model}") == 2
            assert live.metric(f"te_{name}_{time}_sum{model}") > 0
    until(lambda: live.metric(f"te_request_input_length_count{model}") == 3)
    tokens = live.metric(f"te_request_input_length_sum{model}")
    assert live.metric(f"te_batch_next_size_sum{model}") == 3
    cores = [live.metric(f'onepass_micro_batches_total{{cores="{count}",model="tiny"}}') for count in (1, 2)]
    assert sum(cores) == live.metric(f"te_batch_next_size_count{model}")
    assert live.metric(f"onepass_engine_seconds_total{model}") > 0
    assert live.metric(f"te_batch_next_tokens_sum{model}") == tokens > 64
    assert live.metric(f"onepass_truncated_rows_total{model}") == 1
    assert live.metric(f"te_queue_size{model}") == live.metric(f"onepass_queued_tokens{model}") == 0
    assert live.metric('onepass_http_responses_total{route="/embed",status="200"}') == 2
    until(lambda: live.metric("onepass_event_loop_lag_seconds_count") > 0)


def test_the_queue_is_measured_while_it_is_full(minilm: Path) -> None:
    encoders = load(("minilm", minilm))
    with listening(lambda: encoders) as live, connected(live.port) as client:
        client.sendall(request(json.dumps({"inputs": ["word " * 200] * 100}).encode()))
        until(lambda: live.metric('te_queue_size{model="minilm"}') > 0)
        assert live.metric("onepass_running_requests") == 1
        assert live.http.get("/health").status_code == 200


def test_metrics_have_the_names_of_tei(live: Live) -> None:
    live.http.post("/embed", json={"inputs": "a cat"})
    text = live.http.get("/metrics").text
    kinds = dict(re.findall(r"^# TYPE (te_\w+) (\w+)$", text, re.MULTILINE))
    counters = {"te_request_count", "te_request_success", "te_request_failure", "te_embed_count", "te_embed_success"}
    counters |= {"te_predict_count", "te_predict_success"}
    durations = ("duration", "tokenization_duration", "queue_duration", "inference_duration")
    histograms = {f"te_{kind}_{time}" for kind in ("request", "embed", "predict") for time in durations}
    histograms |= {"te_request_input_length", "te_batch_next_size", "te_batch_next_tokens"}
    expected = dict.fromkeys(counters, "counter") | dict.fromkeys(histograms, "histogram") | {"te_queue_size": "gauge"}
    assert kinds == expected
    assert "_created" not in text

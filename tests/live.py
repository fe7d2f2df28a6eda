"""A real server on a free port of the loopback, in a thread of the test process."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from onepass.encoder import Encoder
from onepass.schedule.device import Device
from onepass.server.serve import Server, bind
from onepass.server.service import Service
from onepass.settings import ServerSettings


@dataclass(frozen=True)
class Live:
    """http: a client whose base is `url`."""

    url: str
    port: int
    http: httpx.Client
    service: Service
    server: Server

    def metric(self, line: str) -> float:
        """The value of a line of /metrics, 0 where it is absent."""
        for found in self.http.get("/metrics").text.splitlines():
            if found.startswith(line + " "):
                return float(found.rpartition(" ")[2])
        return 0.0


@functools.cache
def load(*models: tuple[str, Path], queue_tokens: int = 8_388_608, dtype: str = "auto") -> dict[str, Encoder]:
    """(name, path) pairs as encoders on a device of their own, loaded once per session."""
    device = Device(2, queue_tokens)
    return {name: Encoder(path, device=device, dtype=dtype) for name, path in models}


@contextlib.contextmanager
def listening(
    load: Callable[[], Mapping[str, Encoder]], settings: ServerSettings | None = None, *, ready: bool = True
) -> Iterator[Live]:
    """Start `onepass.server.serve.Server` as `serve` does; `ready` waits until it takes requests."""
    service = Service(settings or ServerSettings())
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = Server(service, load)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=60) as http:
        while ready and service.state == "loading" and thread.is_alive():
            time.sleep(0.01)
        yield Live(url, port, http, service, server)
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


def until(happened: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that must come; fail if it does not."""
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)

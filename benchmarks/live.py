"""A real `onepass serve` process for a benchmark, with what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from models import published

START_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Live:
    address: str
    process: int

    def memory(self) -> float:
        """Resident memory of the server in MB."""
        status = Path(f"/proc/{self.process}/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    def metric(self, name: str) -> float:
        """The sum over all labels of one metric, 0 where it is absent."""
        lines = httpx.get(self.address + "/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0] == name)

    def histogram(self, name: str) -> dict[float, float]:
        """How many observations were at most so large, by upper bound, over all labels."""
        found: dict[float, float] = {}
        for line in httpx.get(self.address + "/metrics").text.splitlines():
            if line.partition("{")[0] == f"{name}_bucket":
                bound = float(line.partition('le="')[2].partition('"')[0])
                found[bound] = found.get(bound, 0.0) + float(line.rpartition(" ")[2])
        return found


@contextlib.contextmanager
def serving(*options: str, model: str | None = None) -> Iterator[Live]:
    """`model`, or all-MiniLM-L6-v2, on a free port; SIGTERM at the end, which must be answered with exit code 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = model or f"all-MiniLM-L6-v2={published()}"
    onepass = [sys.executable, "-c", "from onepass.cli import main; main()"]  # its script may not be beside python
    command = [*onepass, "serve", model, "--port", str(port), *options]
    with subprocess.Popen([*command, "--log-level", "warning"]) as process:
        live = Live(f"http://127.0.0.1:{port}", process.pid)
        try:
            wait_until_ready(live, process)
            yield live
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=60)
    if code != 0:
        sys.exit(f"the server ended with {code}")


def wait_until_ready(live: Live, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(live.address + "/readyz").status_code == 200:
                return
        time.sleep(0.05)
    sys.exit("the server did not become ready")

"""Run the server in this process: listen, load meanwhile, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from onepass.encoder import Encoder
from onepass.engines.place import find_place
from onepass.engines.threads import compute_threads
from onepass.errors import BadSetting, EngineFailure, MissingExtra, OnepassError
from onepass.observe import set_up_logging
from onepass.schedule.device import Device
from onepass.server.app import app_for
from onepass.server.service import Service
from onepass.settings import ModelSettings, ServerSettings

# How long a thread keeps the interpreter while others wait; Python's own 5 ms is what the event loop may take in all.
SWITCH_SECONDS = 0.001
# Python looks for cycles after so many new objects, and through older ones after so many looks; there are hardly any.
COLLECT_AFTER = (20_000, 20, 20)
LAST_WORDS_SECONDS = 2

log = logging.getLogger("onepass")


def serve(models: Mapping[str, str | Path], model_settings: ModelSettings, settings: ServerSettings) -> None:
    """Serve these models by name until SIGTERM or SIGINT.

    Raises BadSetting if the address cannot be had, and whatever loading a model raises.
    """
    set_up_logging(settings.log_level, settings.log_format)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        run(Service(settings), lambda: spared(load(models, model_settings, settings)))
    finally:
        gc.unfreeze()


def load(
    models: Mapping[str, str | Path], model_settings: ModelSettings, settings: ServerSettings
) -> dict[str, Encoder]:
    """The encoders by name, all on one device."""
    place = find_place(model_settings.device, model_settings.engine)
    # The tokenizers library starts threads of its own: on the cores beside ours, which are free where a GPU computes.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false" if place.calls is None else "true")
    device = Device(model_settings.cores or compute_threads(), settings.queue_tokens, place)
    adapters = of_each(models, "adapter", model_settings.adapter)
    rerankers = of_each(models, "reranker", model_settings.reranker)
    moderations = moderation_of(models, model_settings.moderation)
    encoders = {}
    for name, model in models.items():
        encoders[name] = Encoder(
            model,
            revision=model_settings.revision,
            device=device,
            dtype=model_settings.dtype,
            engine=model_settings.engine,
            adapter=adapters[name],
            reranker=rerankers[name],
            max_length=model_settings.max_length,
            moderation=moderations[name],
        )
        log.info("loaded %s in %.1f s", name, encoders[name].load_seconds)
    return encoders


def moderation_of(names: Iterable[str], table: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any] | None]:
    """Each model's table of categories: the only model's is the whole table. Raises BadSetting."""
    tables: dict[str, Mapping[str, Any] | None] = dict.fromkeys(names)
    if table is None or len(tables) == 1:
        return dict.fromkeys(tables, table)
    for name, own in table.items():
        if name not in tables or not isinstance(own, Mapping):
            known = ", ".join(f"[moderation.{known}]" for known in tables)
            raise BadSetting(f"moderation has the key {name!r}; with several models it holds a table for each: {known}")
        tables[name] = own
    return tables


def of_each(names: Iterable[str], option: str, setting: str | None) -> dict[str, str | None]:
    """Each model's value of an option, from "VALUE" for all of them or "NAME=VALUE,NAME=VALUE". Raises BadSetting."""
    values: dict[str, str | None] = dict.fromkeys(names)
    if setting is None or "=" not in setting:
        return dict.fromkeys(values, setting)
    for part in setting.split(","):
        name, _, value = part.strip().rpartition("=")
        if name not in values or not value:
            known = ", ".join(values)
            raise BadSetting(f"{option} is {setting!r}, of which {part.strip()!r} is not NAME=VALUE for one of {known}")
        values[name] = value
    return values


def run(service: Service, load: Callable[[], Mapping[str, Encoder]]) -> None:
    """Listen, load in a thread meanwhile, and serve until told to stop. Raises what `load` raises."""
    settings = service.settings
    listener = bind(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    log.info("listening on http://%s:%d, loading", f"[{host}]" if ":" in host else host, port)
    server = Server(service, load)
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
        for encoder in service.encoders.values():
            encoder.close()
        for device in {encoder.device for encoder in service.encoders.values()}:
            device.close()
    if server.failure is not None:
        raise server.failure


def spared(encoders: dict[str, Encoder]) -> dict[str, Encoder]:
    """Left out of Python's search for cycles, with all else that was loaded: each would stop everything for 40 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    return encoders


def bind(host: str, port: int) -> socket.socket:
    """A bound socket. Raises BadSetting where the address is taken, forbidden or none of this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadSetting(
            f"cannot listen on {host} port {port}: {reason.lower()}; "
            "choose another with --host and --port (port 0 takes a free one)"
        ) from None
    listener.listen(2048)
    return listener


def grpc_listener(service: Service) -> Any:
    """Raises MissingExtra, BadSetting."""
    try:
        from onepass.server.grpc import Listener
    except ImportError:
        raise MissingExtra("gRPC needs grpcio; run: pip install 'onepass[grpc]', or leave grpc_port out") from None
    return Listener(service)


class Server(uvicorn.Server):
    """uvicorn, but on the first SIGTERM or SIGINT it finishes what runs, still answering 503 to what comes."""

    def __init__(self, service: Service, load: Callable[[], Mapping[str, Encoder]]) -> None:
        super().__init__(
            uvicorn.Config(
                app_for(service),
                log_config=None,
                access_log=False,
                http="httptools",
                ws="none",
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=LAST_WORDS_SECONDS,
            )
        )
        self.service = service
        self.load = load
        self.failure: OnepassError | None = None
        self.draining: asyncio.Task[None] | None = None
        self.grpc: Any = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.service.settings.grpc_port is not None:
            try:
                self.grpc = grpc_listener(self.service)
            except OnepassError as error:
                self.failure, self.should_exit = error, True
                return
            await self.grpc.start()
            log.info("listening for gRPC on port %d", self.grpc.port)
        loop = asyncio.get_running_loop()
        # A daemon, so that a signal while loading ends the process without waiting for it.
        threading.Thread(target=self.load_all, args=[loop], name="onepass-load", daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.grpc is not None:
            await self.grpc.stop(LAST_WORDS_SECONDS)
        await super().shutdown(sockets)

    def load_all(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            encoders = self.load()
        except Exception as error:
            known = isinstance(error, OnepassError)
            if not known:
                log.error("loading failed", exc_info=error)
            self.failure = error if isinstance(error, OnepassError) else EngineFailure(f"loading failed: {error}")
            self.should_exit = True
            return
        loop.call_soon_threadsafe(self.opened, encoders)

    def opened(self, encoders: Mapping[str, Encoder]) -> None:
        self.service.open(encoders)
        log.info("ready: %s", ", ".join(encoders))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.service.state == "draining":
            super().handle_exit(sig, frame)  # asked twice: now
            return
        self.service.state = "draining"
        asyncio.get_running_loop().call_soon_threadsafe(self.start_draining)

    def start_draining(self) -> None:
        self.draining = asyncio.create_task(self.drain())

    async def drain(self) -> None:
        """Wait until all calls are done or the time is over; what then still runs is answered with 503."""
        calls, seconds = self.service.calls, self.service.settings.drain_seconds
        log.info("draining %d running requests, for at most %g s", len(calls), seconds)
        waiting = {call.task for call in calls if call.task is not None}
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
        for call in list(calls):
            call.stop("expired")
        self.should_exit = True

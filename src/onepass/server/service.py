"""What the server serves and in which state it is: models by name, loading, ready, draining, and the running calls."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from onepass.encoder import Encoder
from onepass.errors import BadSetting, InvalidInput, TooLarge, Unavailable, UnknownModel
from onepass.observe import Metrics
from onepass.schedule.device import MicroBatch
from onepass.schedule.job import Job
from onepass.server.refusals import Unauthorized
from onepass.settings import ServerSettings

State = Literal["loading", "ready", "draining"]
LISTED = 20


class Service:
    """Shared by all requests of one app; touched by the event loop only."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.encoders: Mapping[str, Encoder] = {}
        self.state: State = "loading"
        self.metrics = Metrics()
        self.calls: set[Call] = set()
        self.keys = [key.strip().encode() for key in (settings.api_key or "").split(",") if key.strip()]
        if settings.api_key is not None and not self.keys:
            raise BadSetting("api_key holds no key; give at least one, or leave it out to serve without")
        self.ready_since = 0
        self.last_batch: dict[str, float] = {}

    def open(self, encoders: Mapping[str, Encoder]) -> None:
        """Serve these from now on."""
        self.encoders = dict(encoders)
        self.ready_since = int(time.time())
        self.measure()
        if self.state == "loading":
            self.state = "ready"

    def measure(self) -> None:
        """Count what the devices do: their queues at every scrape, their micro-batches as they run."""
        names = {encoder.job().served.model: name for name, encoder in self.encoders.items()}
        for device in {encoder.device for encoder in self.encoders.values()}:
            shared_by = ",".join(name for name, encoder in self.encoders.items() if encoder.device is device)
            self.metrics.watch(shared_by, device)
            device.observers.append(lambda batch: self.ran(names.get(batch.model), batch))

    def ran(self, model: str | None, batch: MicroBatch) -> None:
        """Note a micro-batch; called from the thread that ran it, also for models of others on a shared device."""
        if model is not None:
            self.last_batch[model] = time.monotonic()
            self.metrics.batch(model, batch.rows, batch.tokens, batch.cores, batch.seconds)

    def check_key(self, authorization: str) -> None:
        """Raises Unauthorized unless the header carries one of the keys; every key is compared, in constant time."""
        if not self.keys:
            return
        scheme, _, given = authorization.partition(" ")
        known = [hmac.compare_digest(given.strip().encode("latin-1", "replace"), key) for key in self.keys]
        if scheme.lower() != "bearer" or not any(known):
            raise Unauthorized("this server wants a key: send the header Authorization: Bearer <key> with a valid one")

    def check_ready(self) -> None:
        if self.state == "loading":
            raise Unavailable("the models are still loading; try again in a few seconds")
        if self.state == "draining":
            raise Unavailable("this server is shutting down and takes no new requests; try another one")

    def choose(self, name: str | None) -> tuple[str, Encoder]:
        """The encoder of that name; no name means the only one. Raises UnknownModel, Unavailable.

        A request that was let in before draining began still finds its model.
        """
        if self.state == "loading":
            self.check_ready()
        served = list(self.encoders)
        if not name:
            if len(served) == 1:
                return served[0], self.encoders[served[0]]
            raise UnknownModel(f"several models are served and `model` names none of them; it may be {listed(served)}")
        if name not in self.encoders:
            raise UnknownModel(f"the model {shortened(name)!r} is not served here; `model` may be {listed(served)}")
        return name, self.encoders[name]


class Call:
    """One request on its way: whom it asks, since when, and the task that works on it."""

    def __init__(self, service: Service, kind: str, named: Mapping[str, str]) -> None:
        """named: what the path names, "model" or "task"."""
        self.service = service
        self.kind = kind
        self.named = named
        self._whole: Call | None = None
        self.started = time.perf_counter()
        self.model = ""
        self.inputs = 0
        self.batch = False
        self.encoder: Encoder | None = None
        self.job: Job | None = None
        self.answering = False
        self.wait = False
        self.stopped: Literal["left", "expired"] | None = None
        self.task = asyncio.current_task()
        self.watch: asyncio.TimerHandle | asyncio.Task[None] | None = None

    @property
    def whole(self) -> Call:
        """The call that this one is a part of, or itself."""
        return self._whole or self

    def choose(self, model: str | None) -> Encoder:
        self.model, self.encoder = self.service.choose(model or self.named.get("model"))
        return self.encoder

    def open(self, model: str | None, inputs: int, *, batch: bool = True) -> Job:
        """A job at the chosen model for so many inputs. Raises UnknownModel, TooLarge."""
        encoder = self.choose(model)
        self.batch = batch
        self.inputs = inputs
        if self.whole is not self:
            self.whole.inputs += inputs
        self.check_count(self.whole.inputs)
        self.job = encoder.job(wait=self.wait)
        return self.job

    def part(self) -> Call:
        """A call for a part of this one; together they have as many inputs as one may."""
        part = Call(self.service, self.kind, self.named)
        part._whole = self
        return part

    def add(self, parts: Sequence[Call]) -> None:
        """Count what the parts cost."""
        for part in parts:
            if part.job is None:
                continue
            if self.job is None:
                self.model, self.encoder, self.kind, self.batch = part.model, part.encoder, part.kind, True
                self.job = Job(part.job.served, wait=False)
            self.job.usage.add(part.job.usage)

    def check_count(self, inputs: int) -> None:
        limit = self.service.settings.max_inputs
        if inputs > limit:
            raise TooLarge(f"batch size {inputs} > maximum allowed batch size {limit}")

    def cut(self, truncate: bool | None, side: Literal["left", "right"] = "right") -> Literal["left", "right"] | None:
        """Which side over-long inputs lose; None refuses them. `auto_truncate` decides what the request leaves open."""
        wanted = self.service.settings.auto_truncate if truncate is None else truncate
        return side if wanted else None

    def prompt(self, name: str | None) -> str | None:
        """Raises InvalidInput for a name that the model does not know."""
        assert self.encoder is not None
        known = self.encoder.checkpoint.prompts
        if name is not None and name not in known:
            raise InvalidInput(f"the prompt {shortened(name)!r} is not this model's; it has {listed(list(known))}")
        return name

    def stop(self, why: Literal["left", "expired"]) -> None:
        """The client left, or the time to finish is over: cancel the work; its rows leave the queue."""
        if self.stopped is None and self.task is not None:
            self.stopped = why
            self.task.cancel()

    def end(self) -> None:
        """Nothing watches it any more, and it holds nothing that holds it: Python need not look for cycles."""
        if self.watch is not None:
            self.watch.cancel()
        self.watch = self.task = None


def shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:80] + "…"


def listed(names: list[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(repr(shortened(name)) for name in names[:LISTED])
    return shown if len(names) <= LISTED else f"{shown} and {len(names) - LISTED} more"

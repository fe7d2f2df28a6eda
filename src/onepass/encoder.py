"""`Encoder`: checkpoint, engine, device and tasks, wired once; what the CLI, the server and library users hold."""

from __future__ import annotations

import itertools
import logging
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import cache, wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

from onepass.blocking import wait
from onepass.engines import Choice, build_engine
from onepass.engines.batch import Floats
from onepass.engines.place import CPU, Place, find_place
from onepass.engines.threads import compute_threads
from onepass.errors import BadSetting
from onepass.model.checkpoint import load_checkpoint
from onepass.model.sparse_modules import TokenTable
from onepass.schedule.device import Device
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job, Served
from onepass.schedule.pieces import Truncate
from onepass.schedule.tokenizer import Text, Tokenizer
from onepass.settings import DEFAULT_MODEL
from onepass.tasks.answer import Answer, AnswerOptions, answer, paired
from onepass.tasks.classify import classify
from onepass.tasks.embed import EmbedOptions, embed
from onepass.tasks.embed_chunks import ChunkOptions, Document, embed_chunks
from onepass.tasks.fill import fill
from onepass.tasks.heads import tasks_of
from onepass.tasks.log_probs import log_probs
from onepass.tasks.moderate import Table, check_table, moderate
from onepass.tasks.multivector import max_similarity, multivector
from onepass.tasks.rerank import rerank
from onepass.tasks.run import run
from onepass.tasks.similarity import similarity
from onepass.tasks.sparse import sparse
from onepass.tasks.tag import tag
from onepass.tasks.vectors import Vectors

log = logging.getLogger("onepass")

T = TypeVar("T")
X = TypeVar("X", contravariant=True)
R = TypeVar("R")
P = ParamSpec("P")
Call = TypeVar("Call", covariant=True)

_numbers = itertools.count(1)


class Blocking(Protocol[X, P, R]):
    @overload  # a str is also an Iterable of str, but it counts as one text
    def __call__(self, texts: str, *args: P.args, **options: P.kwargs) -> R: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, texts: Iterable[X], *args: P.args, **options: P.kwargs) -> list[R]: ...


class Awaitable(Protocol[X, P, R]):
    @overload
    async def __call__(self, texts: str, *args: P.args, **options: P.kwargs) -> R: ...  # type: ignore[overload-overlap]

    @overload
    async def __call__(self, texts: Iterable[X], *args: P.args, **options: P.kwargs) -> list[R]: ...


class Method(Protocol[Call]):
    def __get__(self, encoder: Encoder, kind: type[Encoder]) -> Call: ...


def each(
    task: Callable[Concatenate[Job, Iterable[X], P], Coroutine[Any, Any, list[R]]],
) -> tuple[Method[Blocking[X, P, R]], Method[Awaitable[X, P, R]]]:
    """A task that answers each text by itself, as a method pair: a str gives one answer, many texts a list of them.

    The task's own options and documentation are the methods'.
    """

    @wraps(task)
    async def awaitable(self: Encoder, texts: str | Iterable[X], *args: P.args, **options: P.kwargs) -> R | list[R]:
        job = self.job()
        answers = await task(job, cast(Iterable[X], [texts] if isinstance(texts, str) else texts), *args, **options)
        self._report(job)
        return answers[0] if isinstance(texts, str) else answers

    @wraps(task)
    def blocking(self: Encoder, texts: str | Iterable[X], *args: P.args, **options: P.kwargs) -> R | list[R]:
        return wait(awaitable(self, texts, *args, **options))

    return cast(Any, (blocking, awaitable))


def whole(
    task: Callable[Concatenate[Job, P], Coroutine[Any, Any, R]],
) -> tuple[Method[Callable[P, R]], Method[Callable[P, Coroutine[Any, Any, R]]]]:
    """A task that answers its arguments together, as a method pair; these and its documentation are the methods'."""

    @wraps(task)
    async def awaitable(self: Encoder, *args: P.args, **options: P.kwargs) -> R:
        job = self.job()
        answer = await task(job, *args, **options)
        self._report(job)
        return answer

    @wraps(task)
    def blocking(self: Encoder, *args: P.args, **options: P.kwargs) -> R:
        return wait(awaitable(self, *args, **options))

    return cast(Any, (blocking, awaitable))


class Encoder:
    """A loaded encoder model.

    model: a folder in Hugging Face layout, a hub id, or the name of a model that comes with onepass, as the default
    does.  device: "auto", "cpu", "cuda", "cuda:1", "mps", or a `Device` that several encoders share; by default all
    encoders of the process at one place share one.  dtype: "auto", "float32", "bfloat16", "float16".  engine: "auto",
    "native", "reference", "torch".  adapter: the task whose adapter to use, of a model that has several (Jina v3).
    reranker: "qwen3", "bge-gemma", how to ask a language model whose files do not say that it reranks.  max_length:
    tokens of a row, at most what the model allows.  moderation: labels by category, for `moderate`.  cores: compute
    threads of a device of this encoder's own.

    Every method blocks, also inside a running event loop; the one with the prefix `a` is awaitable instead. Methods
    take any iterable and draw from it as there is room. Over-long inputs are cut (`truncate`), and a warning is
    logged; truncate=None raises InputTooLong. Raises BadCheckpoint and its kinds, BadSetting, MissingExtra.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        device: str | Device = "auto",
        dtype: str = "auto",
        engine: str = "auto",
        adapter: str | None = None,
        reranker: str | None = None,
        max_length: int | None = None,
        moderation: Table | None = None,
        cores: int | None = None,
    ) -> None:
        started = time.monotonic()
        loaded = load_checkpoint(model, revision=revision, max_length=max_length, adapter=adapter, reranker=reranker)
        self.tokenizer = Tokenizer(loaded.tokenizer, vocabulary=loaded.spec.embed.vocab, max_length=loaded.max_length)
        if moderation is None and loaded.own is not None:
            moderation = loaded.own.moderation
        if moderation is not None:
            check_table(loaded, moderation)
        place = device.place if isinstance(device, Device) else find_place(device, engine)
        self.engine, choices = build_engine(loaded, engine, dtype, place)
        self.choices = {"device": Choice(place.name, place.reason), **choices}
        # the engine holds the weights in its own form; the files' would be a second copy
        self.checkpoint = replace(loaded, weights={})
        self.device, owned = (device, False) if isinstance(device, Device) else _device(place, cores)
        self._name = f"{self.checkpoint.name}#{next(_numbers)}"
        self.device.register(self._name, self.engine, self.checkpoint.max_length)
        queries = None if loaded.table is None else _table_tokenizer(loaded.table)
        self._served = Served(self._name, self.checkpoint, self.tokenizer, self.device, queries, moderation)
        self._release = weakref.finalize(self, _release, self.device, self._name, owned)
        self.load_seconds = time.monotonic() - started

    # Tasks.

    def embed(self, texts: str | Iterable[Text], **options: Unpack[EmbedOptions]) -> Vectors:
        """A str gives one row [width], many texts [n, width]; see `tasks.embed.embed`."""
        return wait(self.aembed(texts, **options))

    async def aembed(self, texts: str | Iterable[Text], **options: Unpack[EmbedOptions]) -> Vectors:
        job = self.job()
        rows = await embed(job, [texts] if isinstance(texts, str) else texts, **options)
        self._report(job)
        return rows[0] if isinstance(texts, str) else rows

    def embed_chunks(self, documents: Iterable[Document], **options: Unpack[ChunkOptions]) -> list[Vectors]:
        """For each document an array [chunks, width]; see `tasks.embed_chunks.embed_chunks`."""
        return wait(self.aembed_chunks(documents, **options))

    async def aembed_chunks(self, documents: Iterable[Document], **options: Unpack[ChunkOptions]) -> list[Vectors]:
        job = self.job()
        vectors = await embed_chunks(job, documents, **options)
        self._report(job)
        return vectors

    def similarity(
        self,
        a: str | Sequence[Text],
        b: str | Sequence[Text],
        *,
        truncate: Truncate = "right",
        head: str | None = None,
    ) -> Floats:
        """float32 [len(a), len(b)], cosines; a str counts as one text."""
        return wait(self.asimilarity(a, b, truncate=truncate, head=head))

    async def asimilarity(
        self,
        a: str | Sequence[Text],
        b: str | Sequence[Text],
        *,
        truncate: Truncate = "right",
        head: str | None = None,
    ) -> Floats:
        job = self.job()
        both = ([texts] if isinstance(texts, str) else texts for texts in (a, b))
        cosines = await similarity(job, *both, truncate=truncate, head=head)
        self._report(job)
        return cosines

    rerank, arerank = whole(rerank)
    classify, aclassify = each(classify)
    fill, afill = each(fill)
    moderate, amoderate = each(moderate)
    tag, atag = each(tag)
    log_probs, alog_probs = each(log_probs)
    run, arun = each(run)
    sparse, asparse = each(sparse)
    multivector, amultivector = each(multivector)

    def max_similarity(self, query: Floats, documents: Sequence[Floats]) -> list[float]:
        """A score for each document's vectors; see `tasks.multivector.max_similarity`."""
        return wait(self.amax_similarity(query, documents))

    async def amax_similarity(self, query: Floats, documents: Sequence[Floats]) -> list[float]:
        return await max_similarity(self.job(), query, documents)

    @overload
    def answer(  # type: ignore[overload-overlap]
        self, question: str, context: str, **options: Unpack[AnswerOptions]
    ) -> list[Answer]: ...

    @overload
    def answer(
        self, question: str | Sequence[str], context: str | Sequence[str], **options: Unpack[AnswerOptions]
    ) -> list[list[Answer]]: ...

    def answer(
        self, question: str | Sequence[str], context: str | Sequence[str], **options: Unpack[AnswerOptions]
    ) -> list[Answer] | list[list[Answer]]:
        """A question about a context gives its answers, best first; many of either a list of those.

        A str goes with each of many on the other side; see `tasks.answer.answer`.
        """
        return wait(self.aanswer(question, context, **options))

    async def aanswer(
        self, question: str | Sequence[str], context: str | Sequence[str], **options: Unpack[AnswerOptions]
    ) -> list[Answer] | list[list[Answer]]:
        job = self.job()
        answers = await answer(job, paired(question, context), **options)
        self._report(job)
        return answers[0] if isinstance(question, str) and isinstance(context, str) else answers

    # What the server and the shell need beside the tasks.

    def job(self, *, wait: bool = True) -> Job:
        """A request of this model, for the coroutines in `onepass.tasks`. wait: for room, or raise Overloaded."""
        return Job(self._served, wait=wait)

    async def probe(self) -> None:
        """A real forward pass of one token. Raises EngineFailure if the engine does not work."""
        await self.job(wait=True).run([[0]], options=EncodeOptions(special=False))

    @property
    def tasks(self) -> list[str]:
        return tasks_of(self.checkpoint) + (["moderate"] if self._served.moderation is not None else [])

    @property
    def heads(self) -> dict[str, dict[str, Any]]:
        """The kind and the labels of each head, by its name."""
        heads = self.checkpoint.heads.items()
        return {name: {"kind": head.kind, "labels": list(head.labels)} for name, head in heads}

    def info(self) -> dict[str, Any]:
        """What was loaded and chosen, each choice with its reason; plain values only."""
        checkpoint, cost = self.checkpoint, self.device.cost(self._name)
        return {
            "model": checkpoint.name,
            "revision": checkpoint.revision,
            "family": checkpoint.family,
            "tasks": self.tasks,
            "heads": self.heads,
            "dimensions": checkpoint.dimensions,
            "max_length": checkpoint.max_length,
            "prompts": dict(checkpoint.prompts),
            "default_prompt": checkpoint.default_prompt,
            "choices": {
                name: {"value": choice.value, "reason": choice.reason} for name, choice in self.choices.items()
            },
            "engine": dict(self.engine.info()),
            "cores": self.device.cores,
            "micro_batch_tokens": cost.budget,
            "tokens_per_second": round(self.device.parallel * cost.tokens_per_second),
            "load_seconds": round(self.load_seconds, 3),
            "notes": list(checkpoint.notes),
            "spec": checkpoint.spec.as_dict(),
        }

    def close(self) -> None:
        """Unload the model; what it still has queued is answered with Cancelled. Also when nothing refers to it."""
        self._release()

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _report(self, job: Job) -> None:
        if job.usage.truncated:
            log.warning(
                "%d of %d inputs were cut at %d tokens",
                job.usage.truncated,
                job.usage.inputs,
                self.checkpoint.max_length,
            )
        if job.usage.windows:
            log.info("long inputs were read in windows, %d rows in all", len(job.usage.lengths))


def _release(device: Device, name: str, owned: bool) -> None:
    device.unregister(name)
    if owned:
        device.close()


def _table_tokenizer(table: TokenTable) -> Tokenizer:
    return Tokenizer(table.tokenizer, vocabulary=len(table.weights), max_length=table.max_length)


def _device(place: Place, cores: int | None) -> tuple[Device, bool]:
    """The device, and whether it is the encoder's own to close."""
    if cores is None:
        return shared_device(place), False
    if cores < 1:
        raise BadSetting(f"cores is {cores}; give at least 1")
    return Device(cores, place=place), True


def shared_device(place: Place = CPU) -> Device:
    """The device at a place that encoders of this process share unless they are given another."""
    return _shared_device(place)


@cache
def _shared_device(place: Place) -> Device:
    return Device(compute_threads(), place=place)

"""What each command asks of its task, and what it writes of the answer."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import orjson
from numpy.typing import NDArray

from onepass.encoder import Encoder
from onepass.model.words import in_words
from onepass.schedule.job import Job
from onepass.settings import ModelSettings
from onepass.shell import outputs
from onepass.shell.inputs import Columns, Source, Text, open_source
from onepass.shell.stream import run
from onepass.tasks.classify import classify as classify_task
from onepass.tasks.embed import embed as embed_task
from onepass.tasks.rerank import rerank as rerank_task

Options = Mapping[str, Any]
Ranked = tuple[float, int, Text]


def embed(model: str, settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    output: Path | None = options["output"]
    names = ("prompt", "dimensions", "normalize", "precision")
    task = partial(embed_task, truncate=truncate(options), **{name: options[name] for name in names})
    with source_of(texts, options) as source:
        if options["output_format"] == "npy":
            with outputs.npy(output) as append:
                run(model, settings, source, task, lambda start, chunk, vectors: append(vectors), output)
        else:
            with outputs.json_lines(output) as write:
                run(
                    model,
                    settings,
                    source,
                    task,
                    lambda start, chunk, vectors: write(vector_records(start, vectors)),
                    output,
                )


def vector_records(start: int, vectors: NDArray[Any]) -> Iterable[outputs.Record]:
    return ({"index": index, "embedding": vector} for index, vector in enumerate(vectors, start))


def classify(model: str, settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    output: Path | None = options["output"]
    task = partial(classify_task, raw_scores=options["raw_scores"], truncate=truncate(options))
    with source_of(texts, options) as source, outputs.json_lines(output) as write:
        run(model, settings, source, task, lambda start, chunk, labels: write(label_records(start, labels)), output)


def label_records(start: int, answers: Iterable[Iterable[tuple[str, float]]]) -> Iterable[outputs.Record]:
    for index, labels in enumerate(answers, start):
        yield {"index": index, "labels": [{"label": label, "score": score} for label, score in labels]}


def rerank(model: str, settings: ModelSettings, query: str, documents: Sequence[str], options: Options) -> None:
    """Scores do not depend on the other documents, so they are read in chunks; with top_n only the best are held."""
    output: Path | None = options["output"]
    top_n: int | None = options["top_n"]
    best: list[Ranked] = []

    async def task(job: Job, chunk: list[Any]) -> list[tuple[int, float]]:
        return await rerank_task(job, query, chunk, raw_scores=options["raw_scores"], truncate=truncate(options))

    def keep(start: int, chunk: list[Text], scores: list[tuple[int, float]]) -> None:
        for index, score in scores:
            ranked = (score, -(start + index), chunk[index])
            if top_n is None or len(best) < top_n:
                heapq.heappush(best, ranked)
            else:
                heapq.heappushpop(best, ranked)

    with source_of(documents, options) as source, outputs.json_lines(output) as write:
        run(model, settings, source, task, keep, output)
        write({"index": -index, "score": score, "text": text} for score, index, text in sorted(best, reverse=True))


def info(model: str, settings: ModelSettings, as_json: bool) -> None:
    with Encoder(model, **dataclasses.asdict(settings)) as encoder:
        facts, spec = encoder.info(), encoder.checkpoint.spec
    if as_json:
        click.echo(orjson.dumps(facts, option=orjson.OPT_SERIALIZE_NUMPY))
        return
    for line in described({**facts, "spec": in_words(spec)}):
        click.echo(line)


def described(facts: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """One fact a line, nested ones indented below their name."""
    indent = "  " * depth
    width = max((len(name) for name, value in facts.items() if not nested(value)), default=0)
    for name, value in facts.items():
        if nested(value):
            yield f"{indent}{name}"
            yield from described(value, depth + 1)
        else:
            yield f"{indent}{name:<{width}}  {plain(value)}"


def nested(value: Any) -> bool:
    """A mapping that is no choice with its reason."""
    return isinstance(value, Mapping) and bool(value) and value.keys() != {"value", "reason"}


def plain(value: Any) -> str:
    if isinstance(value, Mapping) and value:
        return f"{value['value']}  ({value['reason']})"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None or value == {} else str(value)


def source_of(texts: Sequence[str], options: Options) -> AbstractContextManager[Source]:
    columns = Columns(options["column"], options.get("pair_column"))
    return open_source(texts, options["file"], options["input_format"], columns)


def truncate(options: Options) -> Literal["right", "left"] | None:
    return None if options["truncate"] == "none" else options["truncate"]

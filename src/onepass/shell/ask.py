"""What each command asks of its task, and what it writes of the answer."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import orjson

from onepass.encoder import Encoder
from onepass.model.words import in_words
from onepass.schedule.job import Job
from onepass.settings import ModelSettings
from onepass.shell import outputs
from onepass.shell.inputs import Columns, Source, Text, open_source
from onepass.shell.names import is_model
from onepass.shell.options import categories_of, loading
from onepass.shell.stream import Ask, run
from onepass.tasks.answer import Answer
from onepass.tasks.answer import answer as answer_task
from onepass.tasks.classify import classify as classify_task
from onepass.tasks.embed import embed as embed_task
from onepass.tasks.embed_chunks import embed_chunks as embed_chunks_task
from onepass.tasks.fill import fill as fill_task
from onepass.tasks.labels import labelled
from onepass.tasks.log_probs import log_probs as log_probs_task
from onepass.tasks.moderate import moderate as moderate_task
from onepass.tasks.multivector import multivector as multivector_task
from onepass.tasks.rerank import Ranking
from onepass.tasks.rerank import rerank as rerank_task
from onepass.tasks.run import plain as plain_answers
from onepass.tasks.run import run as run_task
from onepass.tasks.sparse import TokenWeight
from onepass.tasks.sparse import sparse as sparse_task
from onepass.tasks.tag import tag as tag_task

Options = Mapping[str, Any]
VECTOR = ("prompt", "input_type", "dimensions", "normalize", "precision")


def embed(settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    output: Path | None = options["output"]
    task = partial(embed_task, truncate=truncate(options), **{name: options[name] for name in (*VECTOR, "head")})
    if options["output_format"] == "jsonl":
        lines(settings, texts, options, task, "embedding")
        return
    with source_of(texts, options) as source, outputs.npy(output) as append:
        run(settings, source, task, lambda start, chunk, vectors: append(vectors), output)


def embed_chunks(settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    chosen = {name: options[name] for name in (*VECTOR, "overlap", "head")}
    if not options["separator"]:
        raise click.UsageError("--separator is empty; give the text that chunks end with")
    end = f"(?:{re.escape(options['separator'])})"
    chunks = re.compile(f"{end}*.+?(?:{end}+|\\Z)", re.DOTALL)

    async def task(job: Job, chunk: list[Any]) -> list[list[outputs.Record]]:
        documents = [(text, [found.span() for found in chunks.finditer(text)]) for text in chunk]
        vectors = await embed_chunks_task(job, documents, **chosen)
        return [
            [{"start": start, "stop": stop, "embedding": row} for (start, stop), row in zip(spans, rows, strict=True)]
            for (_, spans), rows in zip(documents, vectors, strict=True)
        ]

    lines(settings, texts, options, task, "chunks")


def classify(settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    names = ("multi_label", "template", "long", "raw_scores", "head")
    chosen = {name: options[name] for name in names} | {"labels": options["labels"] or None}

    async def task(job: Job, chunk: list[Any]) -> list[list[outputs.Record]]:
        return list(map(labelled, await classify_task(job, chunk, truncate=truncate(options), **chosen)))

    lines(settings, texts, options, task, "labels")


def moderate(settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    chosen = {name: options[name] for name in ("long", "window", "overlap", "head")}
    categories = categories_of(options["categories"]) or settings.moderation
    task = partial(moderate_task, categories=categories, truncate=truncate(options), **chosen)
    lines(settings, texts, options, task, "moderation")


def tag(settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    names = ("aggregation", "ignore_labels", "window", "overlap", "head")
    lines(settings, texts, options, partial(tag_task, **{name: options[name] for name in names}), "entities")


def fill(settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    candidates = options["candidates"] or None
    chosen = {name: options[name] for name in ("top_k", "head")}
    task = partial(fill_task, candidates=candidates, truncate=truncate(options), **chosen)
    lines(settings, texts, options, task, "masks")


def log_probs(settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    task = partial(log_probs_task, truncate=truncate(options), head=options["head"])
    lines(settings, texts, options, task, "tokens")


def run_heads(settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    async def task(job: Job, chunk: list[Any]) -> list[dict[str, Any]]:
        answers = await run_task(job, chunk, options["heads"], prompt=options["prompt"], truncate=truncate(options))
        return [plain_answers(one, job.served.checkpoint.heads) for one in answers]

    lines(settings, texts, options, task, "heads")


def multivector(settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    chosen = {name: options[name] for name in ("input_type", "dimensions", "head")}
    lines(settings, texts, options, partial(multivector_task, truncate=truncate(options), **chosen), "vectors")


def sparse(settings: ModelSettings, texts: Sequence[str], options: Options) -> None:
    names = ("input_type", "top_k", "threshold", "prompt", "head")
    chosen = {name: options[name] for name in names}

    async def task(job: Job, chunk: list[Any]) -> list[list[TokenWeight]]:
        return [[*vector] for vector in await sparse_task(job, chunk, truncate=truncate(options), **chosen)]

    lines(settings, texts, options, task, "weights")


def answer(settings: ModelSettings, question: str, contexts: Sequence[str], options: Options) -> None:
    names = ("top_k", "no_answer", "answer_tokens", "align_to_words", "window", "overlap", "head")
    chosen = {name: options[name] for name in names}

    async def task(job: Job, chunk: list[Any]) -> list[list[Answer]]:
        return await answer_task(job, [(question, context) for context in chunk], **chosen)

    lines(settings, contexts, options, task, "answers", before=[question])


def lines(
    settings: ModelSettings,
    texts: Sequence[str],
    options: Options,
    task: Ask[Iterable[Any]],
    name: str,
    before: Sequence[str] = (),
) -> None:
    """A JSON object a text: its index, and by `name` what the task gives for it."""

    def records(start: int, answers: Iterable[Any]) -> Iterable[outputs.Record]:
        return ({"index": index, name: answer} for index, answer in enumerate(answers, start))

    output: Path | None = options["output"]
    with source_of(texts, options, before) as source, outputs.json_lines(output) as write:
        run(settings, source, task, lambda start, chunk, answers: write(records(start, answers)), output)


def rerank(settings: ModelSettings, query: str, documents: Sequence[str], options: Options) -> None:
    """Scores do not depend on the other documents, so they are read in chunks; with top_n only the best are held."""
    output: Path | None = options["output"]
    top_n: int | None = options["top_n"]
    best: list[tuple[float, int, Text]] = []
    names = ("prompt", "document_tokens", "long", "window", "overlap", "raw_scores", "head")
    chosen = {name: options[name] for name in names}

    async def task(job: Job, chunk: list[Any]) -> Ranking:
        return await rerank_task(job, query, chunk, truncate=truncate(options), **chosen)

    def keep(start: int, chunk: list[Text], ranking: Ranking) -> None:
        for one in ranking:
            ranked = (one.score, -(start + one.index), chunk[one.index])
            if top_n is None or len(best) < top_n:
                heapq.heappush(best, ranked)
            else:
                heapq.heappushpop(best, ranked)

    with source_of(documents, options, [query]) as source, outputs.json_lines(output) as write:
        run(settings, source, task, keep, output)
        write({"index": -index, "score": score, "text": text} for score, index, text in sorted(best, reverse=True))


def info(settings: ModelSettings, as_json: bool) -> None:
    with Encoder(**loading(settings)) as encoder:
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


def source_of(texts: Sequence[str], options: Options, before: Sequence[str] = ()) -> AbstractContextManager[Source]:
    """before: arguments that stand before the texts. Says so where the first of all looks like a model."""
    for first in [*before, *texts][:1]:
        if options["model"] is None and is_model(first):
            click.echo(f"onepass: {first} was taken as a text; a model is named with --model {first}", err=True)
    columns = Columns(options["column"], options.get("pair_column"))
    return open_source(texts, options["file"], options["input_format"], columns)


def truncate(options: Options) -> Literal["right", "left"] | None:
    return None if options["truncate"] == "none" else options["truncate"]

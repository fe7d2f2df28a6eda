"""Texts from arguments, files and standard input, one at a time, so that a file of any size goes through."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from onepass.errors import EmptyInput, InvalidInput, MissingExtra

CHUNK_TEXTS = 1024
CHUNK_CHARACTERS = 2_000_000

Text = str | tuple[str, str]
ENDINGS = {".txt": "txt", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class Columns:
    """text: the column to read, None for the default.  pair: the column of the second text of each pair, or None."""

    text: str | None = None
    pair: str | None = None

    def names(self, present: Sequence[str], source: str) -> list[str]:
        """The columns to read out of those that are there. Raises InvalidInput for one that is not."""
        wanted = [self.text or (present[0] if len(present) == 1 else "text")]
        wanted += [self.pair] if self.pair else []
        for name in wanted:
            if name not in present:
                have = ", ".join(present) or "none"
                raise InvalidInput(f'{source} has no column "{name}"; it has: {have}; choose one with --column')
        return wanted


@dataclass(frozen=True, slots=True)
class Source:
    """texts: read as they are asked for.  size: of all of it, in the unit of position(), or None where unknown."""

    texts: Iterator[Text]
    size: int | None
    position: Callable[[], int]


@contextmanager
def open_source(
    arguments: Sequence[str], file: str | None, file_format: str | None, columns: Columns
) -> Iterator[Source]:
    """The texts of the arguments, else of the file, else of standard input. Raises InvalidInput naming the line."""
    if arguments and file is not None:
        raise InvalidInput("texts are given both as arguments and with --input; give them one way")
    if arguments:
        yield argument_source(arguments, columns)
        return
    if file is None and sys.stdin.isatty():
        raise EmptyInput(
            "there is nothing to read; give texts as arguments, name a file with --input, or pipe lines in"
        )
    if file is None or file == "-":
        yield handle_source(sys.stdin.buffer, "standard input", file_format or "txt", columns, None)
        return
    path = Path(file)
    kind = file_format or ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise InvalidInput(f"{path} ends in none of {', '.join(ENDINGS)}; say what it is with --input-format")
    if kind == "parquet":
        yield parquet_source(path, columns)
        return
    with path.open("rb") as handle:
        yield handle_source(handle, str(path), kind, columns, path.stat().st_size)


def chunks(texts: Iterator[Text]) -> Iterator[list[Text]]:
    """Lists of texts, each at most CHUNK_TEXTS long and not much more than CHUNK_CHARACTERS."""
    chunk: list[Text] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
        if len(chunk) == CHUNK_TEXTS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def argument_source(arguments: Sequence[str], columns: Columns) -> Source:
    if columns.text or columns.pair:
        raise InvalidInput("arguments have no columns; --column and --pair-column need a csv, jsonl or parquet file")
    seen = 0

    def texts() -> Iterator[Text]:
        nonlocal seen
        for seen, text in enumerate(arguments, 1):
            yield checked([text], f"argument {seen}")

    return Source(texts(), len(arguments), lambda: seen)


def handle_source(handle: IO[bytes], source: str, kind: str, columns: Columns, size: int | None) -> Source:
    if kind == "parquet":
        raise InvalidInput(f"parquet cannot be read from {source}; name a file with --input")
    readers = {"txt": txt, "csv": comma_separated, "jsonl": json_lines}
    return Source(readers[kind](handle, source, columns), size, handle.tell if size is not None else lambda: 0)


def txt(handle: IO[bytes], source: str, columns: Columns) -> Iterator[Text]:
    if columns.text or columns.pair:
        raise InvalidInput(f"{source} is read as plain lines, which have no columns; say otherwise with --input-format")
    for number, line in lines(handle, source):
        yield checked([line], f"line {number} of {source}")


def comma_separated(handle: IO[bytes], source: str, columns: Columns) -> Iterator[Text]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader((line for _, line in lines(handle, source, ends="keep")), strict=True)
    try:
        header = next(reader, [])
        wanted = columns.names(header, source)
        places = [header.index(name) for name in wanted]
        for cells in reader:
            where = f"line {reader.line_num} of {source}"
            if len(cells) != len(header):
                raise InvalidInput(f"{where} has {len(cells)} cells, but the header has {len(header)}")
            yield checked([cells[place] for place in places], where)
    except csv.Error as error:
        raise InvalidInput(f"line {reader.line_num} of {source} is not valid csv: {error}") from None


def json_lines(handle: IO[bytes], source: str, columns: Columns) -> Iterator[Text]:
    for number, line in lines(handle, source):
        where = f"line {number} of {source}"
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"{where} is not valid JSON: {error.msg}") from None
        if isinstance(value, str) and not columns.pair:
            yield checked([value], where)
        elif isinstance(value, dict):
            yield checked([value[name] for name in columns.names(list(value), where)], where)
        else:
            raise InvalidInput(f"{where} must be a JSON object{'' if columns.pair else ' or string'}")


def lines(handle: IO[bytes], source: str, ends: str = "strip") -> Iterator[tuple[int, str]]:
    """Numbered lines of UTF-8, a byte order mark and, unless they are kept, the line ends removed."""
    for number, line in enumerate(handle, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"line {number} of {source} is not UTF-8: {error.reason}; convert the file first"
            ) from None
        yield number, text if ends == "keep" else text.rstrip("\r\n")


def parquet_source(path: Path, columns: Columns) -> Source:
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra(f"reading {path} needs pyarrow; run: pip install 'onepass[parquet]'") from None
    try:
        table = parquet.ParquetFile(path)
    except pyarrow.ArrowException as error:
        raise InvalidInput(f"{path} cannot be read as parquet: {str(error).rstrip('.')}") from None
    wanted = columns.names(table.schema_arrow.names, str(path))
    seen = 0

    def texts() -> Iterator[Text]:
        nonlocal seen
        for batch in table.iter_batches(batch_size=CHUNK_TEXTS, columns=wanted):
            for cells in zip(*(batch.column(name).to_pylist() for name in wanted), strict=True):
                seen += 1
                yield checked(list(cells), f"row {seen} of {path}")

    return Source(texts(), table.metadata.num_rows, lambda: seen)


def checked(cells: list[Any], where: str) -> Text:
    """One text, or a pair. An empty one is refused here, where its line is known."""
    for cell in cells:
        if not isinstance(cell, str):
            raise InvalidInput(f"{where} holds {type(cell).__name__}, not text")
        if not cell:
            raise EmptyInput(f"{where} is empty; remove it, since there is nothing to encode")
    return cells[0] if len(cells) == 1 else (cells[0], cells[1])

"""Rows out of the files of the data folder, packed with gzip or plain."""

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal


def read_text(path: Path) -> str:
    """The whole file; `path` may be there with `.gz` behind its name instead."""
    packed = path.with_name(path.name + ".gz")
    if packed.exists():
        return gzip.decompress(packed.read_bytes()).decode("utf-8-sig")
    return path.read_bytes().decode("utf-8-sig")


def read_lines(path: Path) -> list[str]:
    return read_text(path).replace("\r\n", "\n").split("\n")


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in read_lines(path) if line)


def read_table(path: Path, delimiter: str = ",", header: bool = True, quoted: bool = True) -> list[list[str]]:
    """The rows of a table, without its header row if it has one."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    text = read_text(path).replace("\r\n", "\n").replace("\0", "")
    rows = [row for row in csv.reader(text.splitlines(keepends=True), delimiter=delimiter, quoting=quoting) if row]
    return rows[1:] if header else rows


def token_sentences(path: Path, tag_column: int = -1) -> Iterator[tuple[list[str], list[str]]]:
    """Sentences of a file of one token and its tag per line; a `-DOCSTART-` line gives a sentence of that token."""
    tokens: list[str] = []
    tags: list[str] = []
    for line in [*read_lines(path), ""]:
        columns = line.split()
        if columns and columns[0] != "-DOCSTART-":
            tokens.append(columns[0])
            tags.append(columns[tag_column])
            continue
        if tokens:
            yield tokens, tags
            tokens, tags = [], []
        if columns:
            yield ["-DOCSTART-"], ["O"]

"""Results as JSON lines or as one .npy array, written while they come."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import click
import numpy as np
import orjson
from numpy.typing import NDArray

Record = dict[str, Any]


@contextmanager
def json_lines(output: Path | None) -> Iterator[Callable[[Iterable[Record]], None]]:
    """A function that writes records, one JSON object a line, to the file or to standard output."""
    with ExitStack() as stack:
        handle = stack.enter_context(output.open("wb")) if output else sys.stdout.buffer

        def write(records: Iterable[Record]) -> None:
            for record in records:
                handle.write(orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
            handle.flush()

        yield write


@contextmanager
def npy(output: Path | None) -> Iterator[Callable[[NDArray[Any]], None]]:
    """A function that appends rows [n, width] to one array, which appears at the end, complete or not at all.

    The number of rows stands in the header, in front: a file is written beside its name and renamed, standard output
    goes through a temporary file.
    """
    if output is None and sys.stdout.isatty():
        raise click.UsageError("npy is binary; name a file with --output or redirect standard output.")
    partial = output.with_name(output.name + ".partial") if output else None
    with ExitStack() as stack:
        if partial:
            stack.callback(partial.unlink, missing_ok=True)
        handle: IO[bytes] = stack.enter_context(partial.open("w+b") if partial else tempfile.TemporaryFile())  # noqa: SIM115
        array = GrowingArray(handle)
        yield array.append
        array.close()
        if output and partial:
            handle.flush()
            os.replace(partial, output)  # noqa: PTH105 - both sides on one line
        else:
            handle.seek(0)
            shutil.copyfileobj(handle, sys.stdout.buffer)
            sys.stdout.buffer.flush()


class GrowingArray:
    """A .npy file whose row count is not known yet; numpy leaves room in the header for the first axis to grow."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle = handle
        self.rows = 0
        self.width = 0
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def append(self, rows: NDArray[Any]) -> None:
        if not self.rows:
            self.width, self.dtype = rows.shape[1], rows.dtype
            self.header()
        self.handle.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def close(self) -> None:
        self.handle.seek(0)
        self.header()

    def header(self) -> None:
        np.lib.format.write_array_header_1_0(
            self.handle,
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (self.rows, self.width),
            },
        )

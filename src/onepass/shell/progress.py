"""A progress bar with tokens per second for people; nothing for pipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onepass.shell.inputs import Source


def wanted(output: Path | None) -> bool:
    """A person looks at stderr, and the results do not scroll through the same terminal."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and (output is not None or not sys.stdout.isatty())


@contextmanager
def progress(source: Source, output: Path | None) -> Iterator[Callable[[int, int], None]]:
    """A function to call with the texts and tokens of each finished chunk."""
    if not wanted(output):
        yield lambda texts, tokens: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[texts]:,} texts"),
        TextColumn("{task.fields[rate]:,.0f} tokens/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=source.size, texts=0, rate=0.0)
        done_texts = done_tokens = 0

        def advance(texts: int, tokens: int) -> None:
            nonlocal done_texts, done_tokens
            done_texts += texts
            done_tokens += tokens
            rate = done_tokens / max(bar.tasks[0].elapsed or 0.0, 1e-9)
            bar.update(task, completed=source.position(), texts=done_texts, rate=rate)

        yield advance

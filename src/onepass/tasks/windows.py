"""How texts longer than a row are read: in windows that overlap, so that nothing is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from onepass.errors import InvalidInput
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.schedule.pieces import Truncate

MOST_OVERLAP = 128

Long = Literal["cut", "windows"]
LONG: tuple[Long, ...] = ("cut", "windows")


def windows(job: Job, window: int | None, overlap: int | None, *, most: int | None = None) -> EncodeOptions:
    """Options that read an over-long text in windows and say where each token came from.

    window: most tokens of a row, special tokens included; None: the model's limit, and at most `most`.
    overlap: tokens that a window shares with the one before; None: half a row, and at most 128.
    Raises InvalidInput.
    """
    limit = job.served.checkpoint.max_length
    if window is not None and not 1 <= window <= limit:
        raise InvalidInput(f"window is {window} tokens, this model takes rows of 1 to {limit}; choose one of these")
    row = window or min(limit, most or limit)
    if overlap is not None and not 0 <= overlap < row:
        raise InvalidInput(f"overlap is {overlap} tokens, a row here has {row}; choose 0 or more and less than a row")
    shared = min(row // 2, MOST_OVERLAP) if overlap is None else overlap
    return EncodeOptions(truncate=None, overlap=shared, window=row, aligned=True)


def cut_or_windows(job: Job, long: Long, window: int | None, overlap: int | None, truncate: Truncate) -> EncodeOptions:
    """Options that cut over-long texts as `truncate` says, or read them as `windows` does. Raises InvalidInput."""
    if long not in LONG:
        raise InvalidInput(f"long is {long!r}; choose {' or '.join(LONG)}")
    if long == "windows":
        return replace(windows(job, window, overlap), aligned=False)
    for name, value in (("window", window), ("overlap", overlap)):
        if value is not None:
            raise InvalidInput(f"{name} is {value}, but long texts are cut; ask for long='windows', or leave it out")
    return EncodeOptions(truncate=truncate)

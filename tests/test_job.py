"""A request's rows: windows of long inputs, each asked for what it holds."""

from __future__ import annotations

import asyncio
import gc
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny import TEXT

from onepass import Encoder
from onepass.engines.batch import Output
from onepass.errors import InvalidInput
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Answered, Job, Usage
from onepass.schedule.pack import pack, unpack
from onepass.schedule.pieces import Encoded
from onepass.schedule.row import Ask, Row

LONG = " ".join(TEXT)
WINDOWS = EncodeOptions(overlap=8, aligned=True)


@pytest.fixture(scope="module")
def tiny(tiny_embedder: Path) -> Iterator[Encoder]:
    with Encoder(tiny_embedder, dtype="float32") as encoder:
        yield encoder


def rows(encoder: Encoder, *texts: str, options: EncodeOptions = WINDOWS) -> tuple[list[list[Answered]], int]:
    job = encoder.job()
    found = asyncio.run(job.rows(texts, lambda _: (Ask("embed"),), options=options))
    return found, job.usage.windows


def test_each_window_gives_what_its_text_gives_alone(tiny: Encoder) -> None:
    found, windows = rows(tiny, "fox", LONG, TEXT[1])
    assert [len(pieces) > 1 for pieces in found] == [False, True, False]
    assert windows == sum(map(len, found)) - 3
    for piece in found[1]:
        assert len(piece.row.ids) <= tiny.checkpoint.max_length
        expected = tiny.embed([piece.row.ids[1:-1].tolist()])
        np.testing.assert_array_equal(piece.outputs[0].values, expected)


def test_windows_cover_the_text_without_a_gap(tiny: Encoder) -> None:
    ((*pieces,),), _ = rows(tiny, LONG)
    ends = 0
    for piece in pieces:
        assert piece.row.first <= ends, "a token is in no window"
        ends = piece.row.first + len(piece.row.ids) - 2
        assert piece.row.alignment is not None
        start, stop = piece.row.alignment.starts[1], piece.row.alignment.stops[-2]
        assert LONG[start:stop].strip()
    assert pieces[-1].row.alignment is not None
    assert pieces[-1].row.alignment.stops[-2] == len(LONG)


def test_each_row_is_asked_for_what_it_holds(tiny: Encoder) -> None:
    def twice_if_short(row: Encoded) -> tuple[Ask, ...]:
        return (Ask("embed"), Ask("embed", finish="none")) if len(row.ids) < 8 else (Ask("embed"),)

    found = asyncio.run(tiny.job().rows(["fox", LONG], twice_if_short))
    assert [len(piece.outputs) for (piece,) in found] == [2, 1]


def test_rows_that_ask_for_other_positions_share_a_read() -> None:
    """And one that asks twice gets both; columns and the largest of them are picked from what came."""
    asked = [
        (Ask("states", positions=(1, 0)), Ask("states", positions=(1,), columns=(2, 0, 1), top=2)),
        (Ask("states", positions=(2,)), Ask("embed")),
        (Ask("states", positions=(0,), columns=(3, 1)), Ask("states", positions=(0,), top=9)),
    ]
    ids = [array("i", range(3)) for _ in asked]
    rows = [Row("model", 0, index, ids[index], ids[index], asks) for index, asks in enumerate(asked)]
    _, (states, embed) = pack(rows)
    assert states.positions is not None
    assert states.offsets is not None
    assert states.rows.tolist() == [0, 0, 1, 2, 2]
    assert states.positions.tolist() == [1, 0, 1, 2, 0, 0]
    assert states.offsets.tolist() == [0, 2, 3, 4, 5, 6]
    assert embed.positions is None
    values = 100 * np.arange(6, dtype=np.float32)[:, None] + np.array([0, -1, 2, -3], np.float32)
    first, second, third = unpack(rows, [Output(values, states.offsets), Output(values, np.arange(2, dtype=np.int32))])
    np.testing.assert_array_equal(first[0].values, values[:2])
    assert (first[1].values.tolist(), first[1].ids.tolist()) == ([[202, 200]], [[2, 0]])  # type: ignore[union-attr]
    np.testing.assert_array_equal(second[1].values, values[:1])
    assert (third[0].values.tolist(), third[0].ids.tolist()) == ([[397, 399]], [[3, 1]])  # type: ignore[union-attr]
    assert third[1].ids.tolist() == [[2, 0, 1, 3]]  # type: ignore[union-attr]


def test_a_row_that_is_refused_fails_the_request_and_leaves_nothing_behind(tiny: Encoder) -> None:
    def refused(row: Encoded) -> tuple[Ask, ...]:
        raise InvalidInput(f"input {row.input} holds no mask")

    with pytest.raises(InvalidInput, match="input 0 holds no mask"):
        asyncio.run(tiny.job().rows(["fox"], refused))
    assert tiny.device.admission.reserved == 0


def test_what_is_answered_leaves_no_cycle_behind(tiny: Encoder) -> None:
    """Else the search for cycles stops a server for tens of milliseconds every other second."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            tiny.embed("fox")
            rows(tiny, "fox", LONG)
        left = [found for found in gc.get_objects() if type(found) in (Job, Usage, Answered)]
    finally:
        gc.enable()
    assert left == []

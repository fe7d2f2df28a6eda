"""Long requests trade their turns: none is done later than if all took turns."""

from __future__ import annotations

from array import array
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from onepass.schedule.line import Line, Place
from onepass.schedule.row import Row

ROW = 99  # tokens


def rows(request: int, count: int) -> list[Row]:
    ids = array("i", [1] * ROW)
    return [Row("model", request, index, ids, ids, ()) for index in range(count)]


def done_by_turns(requests: list[tuple[int, int]]) -> list[Fraction]:
    """By request (when it comes, rows), in rows that ran: when it is done if all that are there get the same."""
    left = {number: Fraction(count) for number, (_, count) in enumerate(requests)}
    done: dict[int, Fraction] = {}
    now = Fraction(0)
    while left:
        there = [number for number in left if requests[number][0] <= now]
        coming = [requests[number][0] for number in left if requests[number][0] > now]
        if not there:
            now = Fraction(min(coming))
            continue
        step = min(left[number] for number in there) * len(there)
        if coming:
            step = min(step, min(coming) - now)
        now += step
        for number in there:
            left[number] -= step / len(there)
            if left[number] == 0:
                done[number] = now
                del left[number]
    return [done[number] for number in range(len(requests))]


@given(requests=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), min_size=1, max_size=60))
@example(requests=[(0, 2 + number % 7) for number in range(49)])  # a 49th of a row 49 times is not a row in binary
def test_none_is_done_later_than_by_turns(requests: list[tuple[int, int]]) -> None:
    line = Line()
    left = {number: count for number, (_, count) in enumerate(requests)}
    done: dict[int, int] = {}
    coming = sorted(left, key=lambda number: requests[number][0])
    now = 0
    while left:
        while coming and requests[coming[0]][0] <= now:
            number = coming.pop(0)
            line.add(Place(), rows(number, requests[number][1]), 0.0, 1e9)
        now += 1
        if (row := line.take()) is None:
            continue
        left[row.request] -= 1
        if left[row.request] == 0:
            done[row.request] = now
            del left[row.request]
    assert line.take() is None
    for number, by_turns in enumerate(done_by_turns(requests)):
        assert done[number] <= by_turns + 1  # a row is not divided


@given(
    counts=st.lists(st.integers(1, 20), min_size=2, max_size=10),
    run=st.integers(0, 30),
    most=st.integers(ROW, 10 * ROW),
    leaving=st.integers(0, 9),
)
def test_what_leaves_is_gone_and_the_others_stay(counts: list[int], run: int, most: int, leaving: int) -> None:
    line, places = Line(), [Place() for _ in counts]
    for number, count in enumerate(counts):
        line.add(places[number], rows(number, count), 0.0, most)
    begun = [row for _ in range(run) if (row := line.take()) is not None]
    leaving %= len(counts)
    gone = line.leave(places[leaving])
    assert {row.request for row in gone} <= {leaving}
    assert line.leave(places[leaving]) == []
    rest = []
    while (row := line.take()) is not None:
        rest.append(row)
    assert all(row.request != leaving for row in rest)
    found = sorted((row.request, row.index) for row in (*begun, *gone, *rest))
    assert found == [(number, index) for number, count in enumerate(counts) for index in range(count)]


def test_a_row_that_fits_is_found_behind_one_that_does_not() -> None:
    line = Line()
    lengths = [50, 60, 20, 10]
    long = [Row("model", 0, index, array("i", [1] * n), array("i", [0] * n), ()) for index, n in enumerate(lengths)]
    line.add(Place(), long, 0.0, 1e9)
    found = [line.take(room) for room in (30, 5, 100, 100, 100, 100)]
    assert [None if row is None else len(row) for row in found] == [20, None, 50, 60, 10, None]

"""Properties of the scheduler and its cost model, with simulated time."""

from __future__ import annotations

import math
from array import array
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from onepass.schedule.cost import Cost
from onepass.schedule.row import Row
from onepass.schedule.scheduler import HEAD_START, SHARE, Flow, Scheduler

LENGTHS = st.integers(1, 512)
BUDGETS = st.integers(64, 1024)


def rows(request: int, lengths: list[int], model: str = "m") -> list[Row]:
    return [Row(model, request, index, array("i", [1] * n), array("i", [0] * n), ()) for index, n in enumerate(lengths)]


def lengths_of(seed: int, count: int) -> list[int]:
    """Long-tailed, as passages are."""
    return [min(512, max(1, int(n))) for n in map(Random(seed).lognormvariate, [4.1] * count, [0.7] * count)]


def drain(scheduler: Scheduler, budget: int, now: float = 0.0, window: int = 4) -> list[list[Row]]:
    batches = []
    while batch := scheduler.next(budget, now, window):
        batches.append(batch)
    return batches


@given(
    requests=st.lists(st.lists(LENGTHS, min_size=1, max_size=20), min_size=1, max_size=8),
    budget=BUDGETS,
    models=st.integers(1, 3),
)
def test_every_row_runs_once_in_a_batch_of_its_model_within_the_budget(
    requests: list[list[int]], budget: int, models: int
) -> None:
    scheduler = Scheduler()
    given_rows = [rows(number, lengths, f"m{number % models}") for number, lengths in enumerate(requests)]
    for number, mine in enumerate(given_rows):
        scheduler.add(Flow(), mine, float(number), 1000.0)
    assert scheduler.rows == sum(map(len, requests))
    assert scheduler.tokens == sum(map(sum, requests))
    batches = drain(scheduler, budget)
    assert (scheduler.rows, scheduler.tokens) == (0, 0)
    handed = [row for batch in batches for row in batch]
    assert sorted((row.request, row.index) for row in handed) == [
        (row.request, row.index) for mine in given_rows for row in mine
    ]
    for batch in batches:
        assert len({row.model for row in batch}) == 1
        assert sum(map(len, batch)) <= budget or len(batch) == 1


@given(
    seed=st.integers(0, 10_000),
    single=LENGTHS,
    lanes=st.integers(1, 4),
    speed=st.floats(0.2, 2.0),
    when=st.floats(0.0, 1.0),
    drift=st.lists(st.floats(0.5, 2.0), min_size=1, max_size=6),
)
def test_a_query_waits_at_most_two_micro_batches_behind_a_bulk_request(
    seed: int, single: int, lanes: int, speed: float, when: float, drift: list[float]
) -> None:
    """Whatever the lanes, whenever it comes, at 0.2 to 2 times the speed that was measured, as it changes meanwhile."""
    budget, measured, bulk = 512, 10_000.0, lengths_of(seed, 300)
    scheduler = Scheduler()
    flow, chunk = Flow(), -(-len(bulk) // len(drift))
    for first, factor in zip(range(0, len(bulk), chunk), drift, strict=False):
        scheduler.add(flow, rows(1, bulk[first : first + chunk]), 0.0, measured * lanes * factor)
    arrives = when * sum(bulk) / (measured * speed * lanes)
    free = [0.0] * lanes  # when each lane is done
    asked = False
    begun_since = 0
    while True:
        lane = min(range(lanes), key=lambda i: free[i])
        now = free[lane]
        if now >= arrives and not asked:
            scheduler.add(Flow(), rows(2, [single]), arrives, measured * lanes)
            asked = True
        batch = scheduler.next(budget, now)
        if not batch:
            assert not asked, "the query never ran"
            free[lane] = arrives  # idle until it comes
            continue
        free[lane] = now + sum(map(len, batch)) / (measured * speed)
        if asked and any(row.request == 2 for row in batch):
            # It waited for the micro-batch that was running when it came, and for those begun since.
            assert 1 + begun_since <= 2
            return
        begun_since += asked


@given(seeds=st.lists(st.integers(0, 10_000), min_size=2, max_size=3), single=LENGTHS)
def test_behind_several_bulk_requests_a_query_waits_for_one_micro_batch_of_each(seeds: list[int], single: int) -> None:
    """Those that came while a micro-batch was running, as the query did, go in the order in which they came."""
    scheduler = Scheduler()
    for number, seed in enumerate(seeds):
        scheduler.add(Flow(), rows(number, lengths_of(seed, 80)), 0.001 * number, 10_000.0)
    now = 0.001 * len(seeds)
    while now < 0.25 and (batch := scheduler.next(512, now)):
        now += sum(map(len, batch)) / 10_000.0
    scheduler.add(Flow(), rows(99, [single]), now, 10_000.0)
    begun = [scheduler.next(512, now) for _ in range(1 + len(seeds))]
    assert 99 in {row.request for batch in begun for row in batch}


@given(lengths=st.lists(LENGTHS, min_size=1, max_size=30), queries=st.integers(1, 200))
def test_bulk_work_is_not_starved_by_a_stream_of_queries(lengths: list[int], queries: int) -> None:
    """Queries that fill every batch push a bulk row back only until its virtual arrival, never for good."""
    scheduler, rate, budget = Scheduler(), 1000.0, 512
    scheduler.add(Flow(), rows(0, lengths), 0.0, rate)
    latest = sum(lengths[:-1]) / (SHARE * rate) + HEAD_START
    now = 0.0
    while scheduler.rows:
        for number in range(4):  # more than the engine can do
            scheduler.add(Flow(), rows(1000 + number, [512]), now, rate)
        batch = scheduler.next(budget, now)
        if any(row.request == 0 and row.index == len(lengths) - 1 for row in batch):
            assert now <= latest + 4 * (latest + 1)  # older queries first, four of them for each step of time
            return
        now += budget / rate
        assert now < 10 * (latest + 10)


@given(
    counts=st.lists(st.integers(20, 300), min_size=2, max_size=8),
    seed=st.integers(0, 10_000),
    chunk=st.integers(1, 100),
    guess=st.floats(0.9, 1.1),
)
def test_long_requests_that_come_together_are_answered_one_after_another_the_shortest_first(
    counts: list[int], seed: int, chunk: int, guess: float
) -> None:
    """Though each comes in chunks, in turns, and how much of it is still to come was only guessed."""
    scheduler, budget = Scheduler(), 512
    requests = [lengths_of(seed + number, count) for number, count in enumerate(counts)]
    flows = [Flow() for _ in requests]
    for first in range(0, max(counts), chunk):
        for number, lengths in enumerate(requests):
            if own := rows(number, lengths[first : first + chunk]):
                following = guess * sum(lengths[first + chunk :])
                scheduler.add(flows[number], own, 0.0, 1e6, following)
    done, run = dict.fromkeys(range(len(requests)), 0), 0
    for batch in drain(scheduler, budget, window=1):
        run += sum(map(len, batch))
        done |= {row.request: run for row in batch}
    sizes = sorted(map(sum, requests))
    for number, lengths in enumerate(requests):
        assert done[number] <= sum(size for size in sizes if size <= 1.3 * sum(lengths)) + 2 * budget
    best = sum(sum(sizes[: place + 1]) for place in range(len(sizes)))
    assert sum(done.values()) <= 1.1 * best + 2 * budget * len(sizes)


@given(
    sizes=st.lists(st.integers(10, 600), min_size=2, max_size=12),
    drift=st.lists(st.floats(0.8, 1.25), min_size=1, max_size=10),
    speed=st.floats(0.2, 2.0),
)
def test_clients_that_ask_again_and_again_get_what_they_are_promised_or_would_get_by_turns(
    sizes: list[int], drift: list[float], speed: float
) -> None:
    """Whatever the others ask for, while more waits than is done and what is measured of the engine changes."""
    scheduler, budget, rate = Scheduler(), 128, 100_000.0
    now, run, asked = 0.0, 0, 0
    since: dict[int, int] = {}  # tokens that had run when a client asked
    left = dict.fromkeys(range(len(sizes)), 0)
    longest = dict.fromkeys(left, 0)
    for _ in range(300):
        for client, size in enumerate(sizes):
            if left[client] == 0:
                lengths = [min(size - at, 50) for at in range(0, size, 50)]
                scheduler.add(Flow(), rows(client, lengths), now, rate * drift[asked % len(drift)])
                left[client], since[client], asked = size, run, asked + 1
        batch = scheduler.next(budget, now, 1)
        run += sum(map(len, batch))
        now += sum(map(len, batch)) / (rate * speed)
        for row in batch:
            left[row.request] -= len(row)
            if left[row.request] == 0:
                longest[row.request] = max(longest[row.request], run - since[row.request])
    for client, size in enumerate(sizes):
        waits = max(longest[client], run - since[client] if left[client] else 0)
        promised = size * max(len(sizes), speed / (SHARE * min(drift)))
        assert (
            waits <= 1.6 * promised + 50 * len(sizes) + 3 * budget
        )  # the most drifts apart, a row of each, micro-batches


def test_a_request_that_never_ends_has_its_place_part_by_part() -> None:
    """Of which each is a second's work."""
    scheduler, rate = Scheduler(), 1000.0
    endless, other = Flow(), Flow()
    scheduler.add(endless, rows(0, [100] * 25), 0.0, rate, following=math.inf)
    assert [row.request for row in scheduler.next(500, 0.0)] == [0] * 5
    scheduler.add(other, rows(1, [100] * 9), 0.0, rate)
    assert [batch[0].request for batch in drain(scheduler, 100)] == [0] * 5 + [1] * 9 + [0] * 15


def test_a_request_keeps_its_place_while_its_next_chunk_is_tokenised() -> None:
    scheduler, rate = Scheduler(), 1e6
    scheduler.add(Flow(), rows(9, [100] * 500), 0.0, rate)
    drain(scheduler, 1000)
    first, second = Flow(), Flow()
    scheduler.add(first, rows(0, [100] * 5), 1.0, rate, following=1000)
    drain(scheduler, 1000, 1.0)
    scheduler.add(second, rows(1, [100] * 14), 1.1, rate)
    scheduler.add(first, rows(0, [100] * 10), 1.1, rate)
    assert [batch[0].request for batch in drain(scheduler, 100, 1.1)] == [0] * 10 + [1] * 14


@given(requests=st.lists(st.lists(LENGTHS, min_size=1, max_size=20), min_size=2, max_size=6), budget=BUDGETS)
def test_rows_of_a_client_that_left_do_not_run(requests: list[list[int]], budget: int) -> None:
    scheduler = Scheduler()
    flows = [Flow() for _ in requests]
    for number, lengths in enumerate(requests):
        scheduler.add(flows[number], rows(number, lengths), 0.0, 1000.0)
    begun = scheduler.next(budget, 0.0)
    left_over = sum(requests[0]) - sum(len(row) for row in begun if row.request == 0)
    assert scheduler.leave(flows[0]) == left_over
    assert scheduler.leave(flows[0]) == 0
    assert all(row.request != 0 for batch in drain(scheduler, budget) for row in batch)
    assert (scheduler.rows, scheduler.tokens) == (0, 0)


def test_bulk_rows_do_not_fill_up_the_micro_batch_of_a_query() -> None:
    scheduler = Scheduler()
    scheduler.add(Flow(), rows(0, [100] * 50), 0.0, 1000.0)
    scheduler.next(512, 0.0)
    scheduler.add(Flow(), rows(1, [10]), 0.1, 1000.0)
    scheduler.add(Flow(), rows(2, [20]), 0.1, 1000.0)
    assert [(row.request, len(row)) for row in scheduler.next(512, 0.1)] == [(1, 10), (2, 20)]
    assert [row.request for row in scheduler.next(512, 0.1)] == [0] * 5


def test_rows_that_fit_fill_a_micro_batch_up() -> None:
    scheduler = Scheduler()
    scheduler.add(Flow(), rows(0, [10, 300, 11, 290, 12, 310]), 0.0, 1.0)
    batches = [[len(row) for row in batch] for batch in drain(scheduler, 330, now=0.0)]
    assert batches == [[10, 300, 11], [290, 12], [310]]


@given(
    fixed=st.floats(1e-5, 1e-2),
    per_token=st.floats(1e-6, 1e-3),
    per_square=st.floats(0, 1e-7),
)
def test_the_fit_finds_the_cost_that_made_the_measurements(fixed: float, per_token: float, per_square: float) -> None:
    lengths = [[8], [64] * 4, [64] * 8, [256, 256]]
    truth = Cost(fixed, per_token, per_square)
    found = Cost.fit(lengths, [truth.seconds(batch) for batch in lengths])
    for batch in ([20], [100] * 5, [512]):
        assert abs(found.seconds(batch) / truth.seconds(batch) - 1) < 1e-3
    assert 256 <= found.budget <= 1024


def test_a_fit_never_predicts_less_for_more_tokens() -> None:
    found = Cost.fit([[8], [64] * 4, [64] * 8], [0.03, 0.01, 0.02])  # a noisy machine
    assert found.seconds([8]) > 0
    assert found.seconds([512]) > found.seconds([8])


def test_the_cost_follows_a_machine_that_became_slower() -> None:
    cost = Cost(0.0, 1e-4, 0.0)
    for _ in range(200):
        cost.observe([100], 0.02)
    assert abs(cost.seconds([100]) - 0.02) < 0.002

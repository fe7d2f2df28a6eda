"""Lanes, room, failure and leaving: what happens to requests on their way through a device."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepass import Encoder
from onepass.engines.batch import Engine, Floats, Ints, Output, PackedBatch, Read
from onepass.engines.place import CPU
from onepass.errors import Cancelled, EngineFailure, InvalidInput, Overloaded, TooLarge
from onepass.schedule.admission import Admission
from onepass.schedule.cost import Cost
from onepass.schedule.device import Device, MicroBatch
from onepass.schedule.fit import PLAIN
from onepass.schedule.job import Served
from onepass.schedule.row import Ask, Row
from onepass.schedule.scheduler import Flow

POISON = 4  # [MASK], which no text of these tests holds


class Interrupted:
    """The real engine, but one token makes it fail, and a gate can hold it."""

    name = "interrupted"
    dtype = "float32"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[set[int]] = []

    def run(self, batch: PackedBatch, reads: Sequence[Read], cores: int = 1) -> list[Output]:
        assert self.gate.wait(30)
        self.batches.append(set(batch.ids.tolist()))
        if POISON in batch.ids:
            raise ValueError("a token that this engine cannot stand")
        return self.engine.run(batch, reads, cores)

    def max_similarity(self, query: Floats, documents: Floats, offsets: Ints, cores: int = 1) -> Floats:
        return self.engine.max_similarity(query, documents, offsets, cores)

    def info(self) -> Mapping[str, Any]:
        return {}


class Rig:
    """An encoder on a device of its own, its engine interruptible."""

    def __init__(self, folder: Path, *, cores: int = 2, queue_tokens: int = 100_000) -> None:
        self.device = Device(cores, queue_tokens)
        self.encoder = Encoder(folder, device=self.device)
        self.engine = Interrupted(self.encoder.engine)
        self.device.register("rig", self.engine, 64)
        self.engine.batches.clear()
        self.encoder._served = Served("rig", self.encoder.checkpoint, self.encoder.tokenizer, self.device)
        self.seen: list[MicroBatch] = []
        self.device.observers.append(self.seen.append)

    def close(self) -> None:
        self.engine.gate.set()
        self.device.unregister("rig")
        self.encoder.close()
        self.device.close()


@pytest.fixture
def rig(tiny_embedder: Path) -> Iterator[Rig]:
    made = Rig(tiny_embedder)
    yield made
    made.close()


async def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that in ten seconds")


async def test_only_the_row_at_fault_fails(rig: Rig) -> None:
    expected = rig.encoder.embed(["fox", "dog"])
    await until(lambda: rig.device._busy == 0)
    rig.engine.gate.clear()
    plugs = []
    for busy in (1, 2):  # keep both lanes busy, so that the next rows meet in one micro-batch
        plugs.append(asyncio.create_task(rig.encoder.aembed([[9]])))
        await until(lambda busy=busy: rig.device._busy == busy)
    good = asyncio.create_task(rig.encoder.aembed(["fox", "dog"]))
    bad = asyncio.create_task(rig.encoder.aembed([[5, 6], [5, POISON]]))
    await until(lambda: rig.device.queued_rows == 4)
    rig.engine.gate.set()
    assert np.array_equal(await good, expected)
    with pytest.raises(EngineFailure, match="^input 1 could not be computed: a token that this engine cannot stand$"):
        await bad
    await asyncio.gather(*plugs)
    assert rig.device.admission.reserved == 0
    assert np.array_equal(await rig.encoder.aembed(["fox", "dog"]), expected)  # the lanes live on


@given(waiting=st.integers(1, 5000), busy=st.integers(0, 3))
def test_a_micro_batch_is_a_share_of_what_waits(waiting: int, busy: int) -> None:
    device = Device(cores=4)
    device._costs["model"] = cost = Cost(fixed=2e-3, per_token=1e-4, per_square=0.0)
    assert (cost.small, cost.budget) == (100, 256)
    request = [Row("model", 0, index, array("i", [1]), array("i", [0]), ()) for index in range(waiting)]
    device._scheduler.add(Flow(), request, 0.0, 1.0)
    device._busy = busy
    tokens = device._budget()
    if waiting <= 100:
        assert tokens >= waiting  # all of it, on one core or, if nothing else is there, on all
    else:
        assert tokens <= 256
        assert tokens * (4 - busy) <= waiting + (4 - busy)  # something is left for every other idle core
        assert tokens <= max(100, waiting / 8 + 1)  # two for each core, but small ones are not cut again
        assert tokens >= min(100, waiting / 4)


def test_who_blocks_for_one_micro_batch_runs_it_in_its_own_thread(rig: Rig) -> None:
    threads: list[str] = []
    rig.device.observers.append(lambda _: threads.append(threading.current_thread().name))
    here = rig.encoder.embed("fox")
    assert threads == [threading.current_thread().name]
    assert rig.seen[-1].cores == 2
    assert not rig.device._lanes
    many = rig.encoder.embed(["fox"] * 64)
    assert {name.rstrip("01") for name in threads[1:]} == {"onepass-lane-"}
    assert np.array_equal(here, many[0])
    assert np.array_equal(here, asyncio.run(rig.encoder.aembed("fox")))
    assert rig.device.admission.reserved == 0


async def test_who_blocks_while_others_compute_waits_with_them(rig: Rig) -> None:
    rig.engine.gate.clear()
    plug = asyncio.create_task(rig.encoder.aembed([[9]]))
    await until(lambda: rig.device._busy == 1)
    blocking = asyncio.create_task(asyncio.to_thread(rig.encoder.embed, "fox"))
    await until(lambda: rig.device._busy == 2)
    assert len(rig.device._lanes) == 2
    rig.engine.gate.set()
    await asyncio.gather(plug, blocking)


def test_an_interrupt_in_the_callers_own_run_leaves_nothing_behind(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> list[Output]:
        raise KeyboardInterrupt

    expected = rig.encoder.embed("fox")
    with monkeypatch.context() as patch:
        patch.setattr(rig.engine, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rig.encoder.embed("fox")
    assert (rig.device._busy, rig.device.queued_rows, rig.device.admission.reserved) == (0, 0, 0)
    assert np.array_equal(rig.encoder.embed("fox"), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux only")
async def test_lanes_are_nicer_than_the_thread_that_serves(rig: Rig) -> None:
    await rig.encoder.aembed(["fox"])
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    lanes = [os.getpriority(os.PRIO_PROCESS, lane.native_id or 0) for lane in rig.device._lanes]
    assert lanes == [min(own + 5, 19)] * 2


async def test_values_that_are_not_numbers_are_a_failure(rig: Rig) -> None:
    inner = rig.engine.engine

    class Broken(Interrupted):
        def run(self, batch: PackedBatch, reads: Sequence[Read], cores: int = 1) -> list[Output]:
            return [Output(one.values * np.float32("nan"), one.offsets) for one in inner.run(batch, reads, cores)]

    rig.device.register("rig", Broken(inner), 64)
    with pytest.raises(EngineFailure, match="^input 0 gave values that are not finite numbers$"):
        await rig.encoder.aembed(["fox"])


async def test_rows_of_a_client_that_left_are_not_computed(rig: Rig) -> None:
    rig.engine.gate.clear()
    running = asyncio.create_task(rig.encoder.aembed(["the quick brown fox"] * 500))
    await until(lambda: rig.device.queued_rows > 100)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert rig.device.queued_rows == 0
    assert rig.device.queued_tokens == 0
    rig.engine.gate.set()
    await until(lambda: rig.device._busy == 0)
    assert len(rig.engine.batches) <= 2  # what was already running
    assert rig.device.admission.reserved == 0


async def test_a_job_can_be_cancelled(rig: Rig) -> None:
    rig.engine.gate.clear()
    job = rig.encoder.job()
    # more than both lanes can take at once
    running = asyncio.create_task(job.run([[7]] * 5_000, Ask("embed")))
    await until(lambda: rig.device.queued_rows > 0)
    job.cancel()
    with pytest.raises(Cancelled, match="^the request was cancelled$"):
        await running
    assert rig.device.queued_rows == 0


async def test_the_server_refuses_and_the_library_waits(tiny_embedder: Path) -> None:
    rig = Rig(tiny_embedder, queue_tokens=64)
    rig.engine.gate.clear()
    first = asyncio.create_task(rig.encoder.aembed(["the quick brown fox jumps"] * 2))
    await until(lambda: rig.device._busy)
    with pytest.raises(
        Overloaded, match=r"^the queue has room for \d+ of its 64 tokens, the request may need 64;"
    ) as no:
        await rig.encoder.job(wait=False).run(["the quick brown fox jumps over the lazy dog " * 2], Ask("embed"))
    assert no.value.retry_after >= 1
    waiting = asyncio.create_task(rig.encoder.aembed(["the quick brown fox"] * 2))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    rig.engine.gate.set()
    assert (await waiting).shape == (2, 32)
    assert (await first).shape == (2, 32)
    with pytest.raises(TooLarge, match="^the request may need 128 tokens, more than the 64 this queue ever admits at"):
        await rig.encoder.job(wait=False).run(["the quick brown fox jumps over the lazy dog " * 2] * 2, Ask("embed"))
    rig.close()


async def test_closing_answers_what_is_queued(tiny_embedder: Path) -> None:
    rig = Rig(tiny_embedder)
    rig.engine.gate.clear()
    running = asyncio.create_task(rig.encoder.aembed(["the quick brown fox"] * 500))
    await until(lambda: rig.device.queued_rows > 100)
    closing = threading.Thread(target=rig.device.close)
    closing.start()
    rig.engine.gate.set()
    with pytest.raises(Cancelled, match="^the encoder was closed$"):
        await running
    closing.join(10)
    with pytest.raises(Cancelled):
        await rig.encoder.aembed(["fox"])


async def test_one_row_alone_gets_all_cores_and_much_work_one_each(rig: Rig) -> None:
    await rig.encoder.aembed(["the quick brown fox"])
    assert [batch.cores for batch in rig.seen] == [2]
    rig.seen.clear()
    await rig.encoder.aembed(["the quick brown fox jumps over the lazy dog"] * 400)
    assert sum(batch.rows for batch in rig.seen) == 400
    busiest = max(rig.seen, key=lambda batch: batch.rows)
    assert busiest.cores == 1


async def test_after_requests_met_a_row_gets_one_core_for_a_while(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cores_of_a_row() -> int:
        await until(lambda: rig.device._busy == 0)
        rig.seen.clear()
        await rig.encoder.aembed(["the quick brown fox"])
        return rig.seen[0].cores

    rig.engine.gate.clear()
    both = []
    for busy in (1, 2):
        both.append(asyncio.create_task(rig.encoder.aembed([[9]])))
        await until(lambda busy=busy: rig.device._busy == busy)
    rig.engine.gate.set()
    await asyncio.gather(*both)
    monkeypatch.setattr("onepass.schedule.device.CALM", 600.0)
    assert await cores_of_a_row() == 1
    monkeypatch.setattr("onepass.schedule.device.CALM", 0.0)
    assert await cores_of_a_row() == 2


async def test_behind_ten_thousand_texts_a_query_waits_two_micro_batches(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = rig.device._scheduler
    taken: list[set[int]] = []  # the requests in each micro-batch, in the order the lanes took them
    before: dict[int, int] = {}  # micro-batches taken before a request came
    add, take = scheduler.add, scheduler.next

    def adding(flow: Flow, rows: Sequence[Row], now: float, rate: float, following: float) -> None:
        before.setdefault(rows[0].request, len(taken))
        add(flow, rows, now, rate, following)

    def taking(budget: int, now: float, window: int) -> list[Row]:
        rows = take(budget, now, window)
        if rows:
            taken.append({row.request for row in rows})
        return rows

    monkeypatch.setattr(scheduler, "add", adding)
    monkeypatch.setattr(scheduler, "next", taking)
    bulk = asyncio.create_task(rig.encoder.aembed([[5, 6, 7, 8, 9] * 3] * 10_000))
    await until(lambda: len(taken) > 5)
    for _ in range(5):
        await rig.encoder.aembed([[11]])
    assert not bulk.done()
    queries = list(before)[1:]
    assert len(queries) == 5
    for query in queries:
        own = next(number for number, requests in enumerate(taken) if query in requests)
        assert own - before[query] <= 1  # it waits for what runs when it comes, and at most one more
    assert (await bulk).shape == (10_000, 32)


async def test_usage_counts_tokens_and_time(rig: Rig) -> None:
    job = rig.encoder.job()
    await job.run(["the quick fox", "the " * 100], Ask("embed"))
    [short] = [len(row.ids) for row in rig.encoder.tokenizer.encode(["the quick fox"], PLAIN)]
    assert job.usage.lengths.tolist() == [short, 64]
    assert (job.usage.tokens, job.usage.truncated, job.usage.characters) == (short + 64, 1, 13 + 400)
    assert job.usage.tokenize > 0
    assert job.usage.inference > 0


@given(
    steps=st.lists(st.tuples(st.integers(1, 100), st.booleans()), min_size=1, max_size=30),
    capacity=st.integers(100, 200),
)
def test_room_is_never_overdrawn_and_all_who_wait_get_in(steps: list[tuple[int, bool]], capacity: int) -> None:
    async def main() -> None:
        admission = Admission(capacity)
        order: list[int] = []

        async def one(number: int, tokens: int, leaves: bool) -> None:
            waiting = asyncio.ensure_future(admission.wait(tokens))
            await asyncio.sleep(0)
            if leaves and not waiting.done():
                waiting.cancel()
                return
            await waiting
            order.append(number)
            assert admission.reserved <= capacity
            await asyncio.sleep(0)
            admission.release(tokens)

        await asyncio.gather(*(one(number, tokens, leaves) for number, (tokens, leaves) in enumerate(steps)))
        assert order == sorted(order)  # in the order of asking
        assert admission.reserved == 0

    asyncio.run(main())


def test_two_models_share_lanes_and_queue(tiny_embedder: Path, tiny_classifier: Path) -> None:
    device = Device(2)
    with Encoder(tiny_embedder, device=device) as one, Encoder(tiny_classifier, device=device) as two:
        lone = one.embed("fox")
        threads = [threading.Thread(target=two.classify, args=(["the fox"] * 50,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert np.array_equal(one.embed("fox"), lone)
        for thread in threads:
            thread.join()
        lanes = device._lanes
        assert [lane.is_alive() for lane in lanes] == [True, True]
    device.close()
    assert [lane.is_alive() for lane in lanes] == [False, False]


# Where engines compute elsewhere


async def test_a_gpu_is_given_several_micro_batches_at_once(tiny_embedder: Path) -> None:
    """The CPU, treated as a GPU is: more calls than cores, large micro-batches, tokenising not held up."""
    place = replace(CPU, calls=3, least=4096, most=8192, window=1)
    device = Device(1, place=place)
    encoder = Encoder(tiny_embedder, device=device)
    engine = Interrupted(encoder.engine)
    device.register("rig", engine, 64)
    engine.gate.clear()
    encoder._served = Served("rig", encoder.checkpoint, encoder.tokenizer, device)
    engine.batches.clear()
    seen: list[MicroBatch] = []
    device.observers.append(seen.append)
    try:
        waiting = []
        for calls in range(3):
            waiting.append(asyncio.create_task(encoder.aembed([[calls + 5] * 10])))
            await until(lambda calls=calls: device._busy == calls + 1)
        bulk = asyncio.create_task(encoder.aembed([[9] * 60] * 1000))
        await until(lambda: device.queued_rows == 1000)  # although all lanes are busy
        assert device._busy == 3
        assert device.cost("rig").budget >= 4096
        engine.gate.set()
        alone = await encoder.aembed([[9] * 60])
        assert np.array_equal(await bulk, np.tile(alone, (1000, 1)))
        await asyncio.gather(*waiting)
        assert {batch.cores for batch in seen} == {1}
        assert max(batch.tokens for batch in seen) > 4000
        assert device.tokens_per_second == min(device.cost(name).tokens_per_second for name in ("rig", encoder._name))
    finally:
        engine.gate.set()
        device.unregister("rig")
        encoder.close()
        device.close()


@pytest.mark.parametrize("queue_tokens", [100_000, 2500])
def test_where_cores_do_not_compute_the_next_chunk_is_tokenised_ahead(tiny_embedder: Path, queue_tokens: int) -> None:
    """Also where the queue has room for little more than one chunk."""
    texts = [f"the {' quick' * (number % 7)} fox" for number in range(400)]
    with Encoder(tiny_embedder, device=Device(2)) as plain:
        expected = plain.embed(texts)
    device = Device(2, queue_tokens, place=replace(CPU, calls=3))
    begun: list[bool] = []  # whether the chunk before was sent when one was begun

    with Encoder(tiny_embedder, device=device) as encoder:
        tokenize = encoder.tokenizer.encode

        def noted(items: Any, options: Any, *, first: int = 0, known: Any = None) -> Any:
            begun.append(device._scheduler._number >= first)
            return tokenize(items, options, first=first, known=known)

        encoder.tokenizer.encode = noted  # type: ignore[method-assign]
        assert np.array_equal(encoder.embed(texts), expected)
        assert not all(begun) or queue_tokens == 2500
        with pytest.raises(InvalidInput, match="^input 300 is not Unicode text"):
            encoder.embed([*texts[:300], "\ud800", *texts[300:]])
        assert np.array_equal(encoder.embed(texts[:40]), expected[:40])
        assert (device.queued_rows, device.admission.reserved) == (0, 0)
    device.close()

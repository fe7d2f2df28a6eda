"""Which tokens a read pools, worked out on the host: index arrays, sent to the device with the batch itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepass.engines.batch import Ints, PackedBatch, Read
from onepass.engines.torch_batch import Upload
from onepass.errors import EngineFailure
from onepass.model.heads import HeadSpec, PoolKind, Vocabulary

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Picked:
    """A pooling that picks tokens, one output row each. tokens: [m] in the batch, or [m, 2], side by side."""

    tokens: slice
    columns: int


@dataclass(frozen=True, slots=True)
class Summed:
    """A pooling over runs of tokens, one output row each.

    tokens: [t], the runs end to end, or None where they are the whole batch as it stands.  bounds: [m + 1], or None
    where they are the batch's offsets.  weights: [t], what weighted_mean multiplies each by.
    """

    kind: PoolKind
    tokens: slice | None
    bounds: slice | None
    weights: slice | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A read, ready to be computed. Slices are of what the upload sends.

    pools: in the head's order.  rows: output rows in all.  offsets, ids: of the output, where known already.
    vocabulary, targets: as the read's.
    """

    head: HeadSpec
    read: Read
    pools: tuple[Picked | Summed, ...]
    rows: int
    offsets: Ints
    ids: Ints | None
    vocabulary: slice | None
    targets: slice | None


def running(sizes: NDArray[np.integer]) -> Ints:
    """int32 [n + 1]: where runs of these sizes begin, end to end, and where the last one ends."""
    ends = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=ends[1:])
    return ends


def plan(head: HeadSpec, read: Read, batch: PackedBatch, upload: Upload) -> Plan:
    """Raises EngineFailure for a read that says nothing, or of what is not in the batch."""
    _check_rows(read, batch)
    planner = _Planner(head, read, batch, upload)
    if read.targets is not None:
        _check_targets(head, read, planner.counts("tokens"))
    ids = None
    if "max_by_token" in head.pool.kinds:
        pool, counts, ids = planner.by_token()
        pools: tuple[Picked | Summed, ...] = (pool,)
    else:
        pools = tuple(map(planner.pool, head.pool.kinds))
        counts = planner.counts(head.pool.kinds[0])
    return Plan(
        head,
        read,
        pools,
        int(counts.sum()),
        running(counts),
        ids,
        None if read.vocabulary is None else upload.add(read.vocabulary),
        None if read.targets is None else upload.add(read.targets),
    )


class _Planner:
    """Units are what is pooled by itself: rows, or spans of rows as if they were rows without a prompt."""

    def __init__(self, head: HeadSpec, read: Read, batch: PackedBatch, upload: Upload) -> None:
        self.head, self.read, self.batch, self.upload = head, read, batch, upload
        begins, ends = (batch.offsets[at].astype(np.int64) for at in (read.rows, read.rows + 1))
        self.row_begins, self.row_ends = begins, ends
        skips = np.zeros(len(begins), np.int64)
        if head.pool.skip_prompt and read.skip is not None:
            skips = read.skip.astype(np.int64)
        lengths = ends - begins
        if (skips >= lengths).any():
            row = int((skips >= lengths).argmax())
            raise EngineFailure(f"a prompt of {skips[row]} tokens leaves nothing to pool of a row of {lengths[row]}")
        self.spanned = read.spans is not None and read.offsets is not None
        self.spanned = self.spanned and not {"tokens", "spans"}.intersection(head.pool.kinds)
        if self.spanned:
            if head.sparse or "max_by_token" in head.pool.kinds:
                raise EngineFailure(
                    f"the head {head.kind!r} gives several values for each span, and nothing tells them apart"
                )
            spans = self._spans()
            owner = self._owners()
            begins, ends = begins[owner] + spans[:, 0], begins[owner] + spans[:, 1] + 1
            skips = np.zeros(len(begins), np.int64)
        self.begins, self.ends, self.skips = begins, ends, skips

    def counts(self, kind: PoolKind) -> Indices:
        """Output rows of each of the read's rows."""
        if kind == "spans" or self.spanned or (kind == "tokens" and self.read.positions is not None):
            assert self.read.offsets is not None or kind == "tokens"
            if self.read.offsets is not None:
                return np.diff(self.read.offsets).astype(np.int64)
        if kind == "tokens":
            return self.row_ends - self.row_begins
        return np.ones(len(self.row_begins), np.int64)

    def pool(self, kind: PoolKind) -> Picked | Summed:
        match kind:
            case "first":
                return self._picked(self.begins + self.skips)
            case "last":
                return self._picked(self.ends - 1)
            case "last_not_pad":
                return self._picked(self._last_not_pad())
            case "tokens":
                return self._picked(self._tokens())
            case "spans":
                if self.read.spans is None or self.read.offsets is None:
                    raise EngineFailure("a head that pools spans needs a read that names them")
                return self._picked(self.row_begins[self._owners()][:, None] + self._spans(check_order=False), 2)
        return self._summed(kind)

    def by_token(self) -> tuple[Summed, Indices, Ints]:
        """Runs of a row's tokens of one id, by rising id; also how many each row has, and their ids."""
        order, bounds, ids, counts = [], [], [], []
        for begin, end, skip in zip(self.begins, self.ends, self.skips, strict=True):
            own = self.batch.ids[begin + skip : end]
            sorted_places = np.argsort(own, kind="stable")
            found, sizes = np.unique(own, return_counts=True)
            kept = ~np.isin(found, self.head.pool.without)
            order.append((sorted_places + begin + skip)[np.repeat(kept, sizes)])
            bounds.append(sizes[kept])
            ids.append(found[kept])
            counts.append(int(kept.sum()))
        nothing = np.zeros(0, np.int64)
        ends = np.concatenate([[0], np.cumsum(np.concatenate([*bounds, nothing]))])
        tokens = self.upload.add(np.concatenate([*order, nothing]))
        summed = Summed("max", tokens, self.upload.add(ends), None)
        return summed, np.array(counts, np.int64), np.concatenate([*ids, nothing]).astype(np.int32)

    def _picked(self, tokens: Indices, columns: int = 1) -> Picked:
        return Picked(self.upload.add(tokens), columns)

    def _summed(self, kind: PoolKind) -> Summed:
        begins = self.begins + self.skips
        sizes = self.ends - begins
        bounds = running(sizes)
        whole = len(bounds) == len(self.batch.offsets) and bool((bounds == self.batch.offsets).all())
        whole = whole and bool((begins == bounds[:-1]).all())
        if whole and kind != "weighted_mean":
            return Summed(kind, None, None, None)
        places = np.arange(bounds[-1]) - np.repeat(bounds[:-1], sizes)
        tokens = None if whole else self.upload.add(places + np.repeat(begins, sizes))
        weights = self.upload.add(places + np.repeat(self.skips, sizes) + 1) if kind == "weighted_mean" else None
        return Summed(kind, tokens, self.upload.add(bounds), weights)

    def _last_not_pad(self) -> Indices:
        places = np.arange(self.batch.tokens)
        last = np.maximum.accumulate(np.where(self.batch.ids != self.head.pool.pad_id, places, -1))[self.ends - 1]
        return np.where(last >= self.begins, last, self.ends - 1)

    def _tokens(self) -> Indices:
        if self.read.positions is None or self.read.offsets is None:
            sizes = self.row_ends - self.row_begins
            bounds = np.concatenate([[0], np.cumsum(sizes)])
            return np.arange(bounds[-1]) + np.repeat(self.row_begins - bounds[:-1], sizes)
        owners = self._owners()
        self._check_places("position", self.read.positions, owners)
        return self.row_begins[owners] + self.read.positions

    def _spans(self, check_order: bool = True) -> Indices:
        spans = self.read.spans
        assert spans is not None
        self._check_places("span position", spans, self._owners()[:, None])
        if check_order and (spans[:, 0] > spans[:, 1]).any():
            first, last = spans[spans[:, 0] > spans[:, 1]][0]
            raise EngineFailure(f"a read's span from {first} to {last} has no tokens")
        return spans.astype(np.int64)

    def _owners(self) -> Indices:
        """Of each position or span, the index of its row in the read."""
        assert self.read.offsets is not None
        return np.repeat(np.arange(len(self.read.rows)), np.diff(self.read.offsets))

    def _check_places(self, what: str, places: Ints, owners: Indices) -> None:
        lengths = (self.row_ends - self.row_begins)[owners]
        wrong = (places < 0) | (places >= lengths)
        if wrong.any():
            place, length = places[wrong][0], np.broadcast_to(lengths, places.shape)[wrong][0]
            raise EngineFailure(f"a read asks for {what} {place} of a row of {length}")


def _check_rows(read: Read, batch: PackedBatch) -> None:
    wrong = read.rows[(read.rows < 0) | (read.rows >= batch.rows)]
    if len(wrong):
        raise EngineFailure(f"a read asks for row {wrong[0]} of a batch of {batch.rows}")
    if read.skip is not None and len(read.skip) != len(read.rows):
        raise EngineFailure("a read's skip needs one number per row")
    what, among = ("positions", read.positions) if read.positions is not None else ("spans", read.spans)
    if among is None:
        return
    if read.offsets is None or len(read.offsets) != len(read.rows) + 1:
        raise EngineFailure("a read with positions or spans needs offsets, one more than it has rows")
    if read.offsets[0] != 0 or read.offsets[-1] != len(among) or (np.diff(read.offsets) < 0).any():
        raise EngineFailure(f"a read's offsets must rise from 0 to its {len(among)} {what}")


def _check_targets(head: HeadSpec, read: Read, counts: Indices) -> None:
    assert read.targets is not None
    if not any(isinstance(step, Vocabulary) for step in (*head.per_token, *head.per_row)):
        raise EngineFailure(f"the head {head.kind!r} scores no vocabulary: it has no log-probabilities")
    if head.pool.kinds != ("tokens",) or read.vocabulary is not None:
        raise EngineFailure("a read's targets are scored token by token, and among the whole vocabulary")
    if len(read.targets) != counts.sum():
        raise EngineFailure(f"a read has {len(read.targets)} targets for {counts.sum()} positions")

"""From a packed batch to tensors on the device: checked on the host, copied at once, and back in one copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepass.engines.batch import Ints, PackedBatch
from onepass.errors import EngineFailure
from onepass.model.spec import EmbedSpec, EncoderSpec, PositionSpec

T = TypeVar("T")
NOTHING = torch.empty(0, dtype=torch.int32)


class Upload:
    """int32 arrays that go to the device in one copy, from pinned memory where the device is a GPU.

    Each begins at 16 bytes, so that kernels are compiled for one alignment.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[int, int, NDArray[np.integer], int]] = []
        self.size = 0

    def add(self, array: NDArray[np.integer], size: int | None = None, filling: int = 0) -> slice:
        """Where the array will be in what `send` gives.  size: how long it shall be, the rest being `filling`."""
        begin, size = self.size, array.size if size is None else size
        self.size += size + -size % 4
        self._parts.append((begin, self.size, array.reshape(-1), filling))
        return slice(begin, begin + size)

    def stage(self, device: torch.device) -> Tensor:
        """All of it on the host, to be copied to the device without waiting."""
        staged = torch.empty(self.size, dtype=torch.int32, pin_memory=device.type == "cuda")
        whole = staged.numpy()
        for begin, end, array, filling in self._parts:
            whole[begin : begin + array.size] = array
            whole[begin + array.size : end] = filling
        return staged

    def send(self, device: torch.device) -> Tensor:
        return self.stage(device).to(device, non_blocking=device.type == "cuda") if self.size else NOTHING


def as_tensor(array: NDArray[Any]) -> Tensor:
    """On the CPU, over the array's own memory unless that is read-only."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


class Download:
    """float32 and int32 tensors on their way to the host, in one copy into pinned memory where they are on a GPU.

    patient: whether the waiting thread sleeps, which frees its core, and wakes some microseconds late.
    """

    def __init__(self, tensors: Sequence[Tensor], patient: bool = True) -> None:
        self._tensors = tensors
        self._done: torch.cuda.Event | None = None
        if not tensors or tensors[0].device.type == "cpu":
            return
        cuda = tensors[0].device.type == "cuda"
        if len(tensors) == 1:
            landed = torch.empty(tensors[0].shape, dtype=tensors[0].dtype, pin_memory=cuda)
            self._tensors = [landed.copy_(tensors[0], non_blocking=cuda)]
        else:
            self._tensors = _copied_at_once(tensors, cuda)
        if cuda:
            self._done = torch.cuda.Event(blocking=patient)
            self._done.record()

    def arrays(self) -> list[NDArray[Any]]:
        """Waits until they are there."""
        if self._done is not None:
            self._done.synchronize()
        return [tensor.numpy() for tensor in self._tensors]


def _copied_at_once(tensors: Sequence[Tensor], cuda: bool) -> list[Tensor]:
    flat = torch.cat([tensor.contiguous().view(torch.int32).reshape(-1) for tensor in tensors])
    landed = torch.empty(flat.shape, dtype=torch.int32, pin_memory=cuda)
    parts = landed.copy_(flat, non_blocking=cuda).split([tensor.numel() for tensor in tensors])
    return [part.view(own.dtype).reshape(own.shape) for part, own in zip(parts, tensors, strict=True)]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one length, of which as many tokens are seen. tokens: int64 [rows, length], indices into the batch."""

    tokens: Tensor
    visible: int


@dataclass
class Rows:
    """A batch as the trunk reads it. Of rows that are not there the offsets repeat.

    ids, types, positions: int32 [tokens]; positions are rows of the position table.  places: int32 [tokens], a token's
    place in its row.  left: how many follow it there.  starts: for each rope int32 [tokens], rows of its table.
    offsets: int32 [rows + 1].  visible: int32 [rows].  longest: no row has more tokens.
    tables: for each rope (cosines, sines), float32 [n, size / 2].  biases: float32 [heads, 2 reach + 1] by j - i.
    on_host: the batch it was made of, None where a graph holds the rows of many.
    """

    ids: Tensor
    types: Tensor
    positions: Tensor
    places: Tensor
    left: Tensor
    starts: Sequence[Tensor]
    offsets: Tensor
    visible: Tensor
    longest: int
    all_visible: bool
    tables: Sequence[tuple[Tensor, Tensor]]
    biases: Sequence[Tensor]
    on_host: PackedBatch | None
    made: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What several layers need of the batch, made by the first of them."""
        if name not in self.made:
            self.made[name] = make()
        made: T = self.made[name]
        return made

    @cached_property
    def groups(self) -> list[Group]:
        """The rows by length and by what is seen of them."""
        assert self.on_host is not None, "attention row by row reads the rows on the host"
        lengths, visible = np.diff(self.on_host.offsets), self.on_host.visible
        begins = self.on_host.offsets[:-1].astype(np.int64)
        groups = []
        for length, seen in dict.fromkeys(zip(lengths.tolist(), visible.tolist(), strict=True)):
            mine = begins[(lengths == length) & (visible == seen)]
            tokens = as_tensor(mine[:, None] + np.arange(length))
            groups.append(Group(tokens.to(self.ids.device), seen))
        return groups


class Bucket(NamedTuple):
    """Sizes to which batches are filled up, by tokens of no row and rows of no tokens, so that one CUDA graph fits."""

    tokens: int
    rows: int
    longest: int


class Layout:
    """A batch's arrays in an upload, each as long as the bucket says. Raises EngineFailure for rows too long."""

    def __init__(
        self, spec: EncoderSpec, batch: PackedBatch, starts: Sequence[Ints], upload: Upload, bucket: Bucket | None
    ) -> None:
        lengths = batch.lengths
        self.batch = batch
        self.bucket = bucket
        self.longest = int(lengths.max()) if bucket is None else bucket.longest
        self.all_visible = bool((batch.visible == lengths).all())
        tokens, rows = (batch.tokens, batch.rows) if bucket is None else (bucket.tokens, bucket.rows)
        places = token_places(batch)
        self.ids = upload.add(batch.ids, tokens)
        self.types = upload.add(batch.types, tokens) if spec.embed.types else self.ids
        self.positions = self.ids
        if spec.embed.positions:
            self.positions = upload.add(position_rows(spec.embed, batch, places), tokens)
        self.places = upload.add(places, tokens)
        beside = spec.conv is not None or spec.embed.ngram != 1
        self.left = upload.add(np.repeat(lengths, lengths) - 1 - places, tokens) if beside else self.ids
        # most ropes have one table, which begins with the row
        self.starts = [
            upload.add(places + np.repeat(start, lengths), tokens) if start.any() else self.places for start in starts
        ]
        self.offsets = upload.add(batch.offsets, rows + 1, batch.tokens)
        self.visible = upload.add(batch.visible, rows)

    def rows(self, sent: Tensor, tables: Sequence[tuple[Tensor, Tensor]], biases: Sequence[Tensor]) -> Rows:
        """sent: what `Upload.send` gave."""
        return Rows(
            sent[self.ids],
            sent[self.types],
            sent[self.positions],
            sent[self.places],
            sent[self.left],
            [sent[start] for start in self.starts],
            sent[self.offsets],
            sent[self.visible],
            self.longest,
            self.all_visible,
            tables,
            biases,
            self.batch if self.bucket is None else None,
        )


def check_batch(spec: EncoderSpec, batch: PackedBatch) -> None:
    """Raises EngineFailure for what would read outside the model's tables."""
    offsets, visible = batch.offsets, batch.visible
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != batch.tokens:
        raise EngineFailure(f"offsets must run from 0 to the number of tokens, {batch.tokens}")
    if len(visible) != batch.rows or len(batch.types) != batch.tokens:
        raise EngineFailure("a batch has one more offset than rows, and as many types as ids")
    lengths = batch.lengths
    if lengths.min() < 1:
        raise EngineFailure(f"row {lengths.argmin()} of the batch has no tokens")
    if ((visible < 1) | (visible > lengths)).any():
        row = int(np.flatnonzero((visible < 1) | (visible > lengths))[0])
        raise EngineFailure(f"row {row} shows {visible[row]} of its {lengths[row]} tokens")
    _check_ids("token id", batch.ids, spec.embed.vocab, "the vocabulary of {}")
    if spec.embed.types:
        _check_ids("token type", batch.types, spec.embed.types, "the {} types")


def _check_ids(what: str, values: Ints, rows: int, table: str) -> None:
    if values.view(np.uint32).max() >= rows:  # what is below 0 is more than any table has
        wrong = values[(values < 0) | (values >= rows)][0]
        raise EngineFailure(f"{what} {wrong} is outside {table.format(rows)}")


def position_rows(embed: EmbedSpec, batch: PackedBatch, places: Ints) -> Ints:
    """The position table's row for each token, zeros where there is none. Raises EngineFailure beyond its end."""
    spec = embed.positions
    if spec is None:
        return places
    rows = places + np.int32(spec.start) if spec.rule == "arange" else _after_pad(spec, batch)
    if rows.max() >= spec.rows:
        row = int(np.searchsorted(batch.offsets, rows.argmax(), side="right")) - 1
        length = batch.offsets[row + 1] - batch.offsets[row]
        raise EngineFailure(f"a row of {length} tokens needs position {rows.max()}, the table has {spec.rows} rows")
    return rows


def _after_pad(spec: PositionSpec, batch: PackedBatch) -> Ints:
    real = batch.ids != spec.start
    counted = np.concatenate([[0], np.cumsum(real)])
    before = np.repeat(counted[batch.offsets[:-1]], batch.lengths)
    return np.where(real, counted[1:] - before + spec.start, spec.start).astype(np.int32)


def token_places(batch: PackedBatch) -> Ints:
    """int32 [tokens]: each token's place in its row."""
    begins = np.repeat(batch.offsets[:-1], batch.lengths)
    return np.arange(batch.tokens, dtype=np.int32) - begins

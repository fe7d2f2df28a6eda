"""The torch engine: any spec over packed rows, on CPU, CUDA or MPS.

Here is what goes in and out: streams, copies, memory that runs out. torch_trunk.py has the encoder, torch_heads.py what
is read from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from onepass.engines.batch import Floats, Ints, Output, PackedBatch, Read, check_similarity
from onepass.engines.position_tables import PositionTables, Rotary
from onepass.engines.refuse import meaningless, not_run, refuse
from onepass.engines.torch_batch import Download, Layout, Upload, as_tensor, check_batch
from onepass.engines.torch_graphs import SMALL_TOKENS, Graphs
from onepass.engines.torch_heads import Finished, Given, Heads, similarity
from onepass.engines.torch_memory import halves, merged, reads_of, rows_of
from onepass.engines.torch_reads import plan
from onepass.engines.torch_trunk import Trunk
from onepass.engines.torch_weights import Tensors
from onepass.errors import BadSetting, EngineFailure
from onepass.model.heads import HeadSpec
from onepass.model.spec import EncoderSpec
from onepass.model.weights import Weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def fastest_dtype(device: str) -> tuple[str, str]:
    """(dtype, reason): what the device's matrix products are fastest in."""
    if not device.startswith("cuda"):
        return "float32", f"half precision was not measured on {device}"
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    if torch.version.hip is not None or capability >= (8, 0):
        return "bfloat16", f"{name} multiplies it faster than float32"
    if capability >= (7, 0):
        return "float16", f"{name} multiplies it faster than float32, and has no bfloat16 products"
    return "float32", f"{name} has no products of half precision"


class Torch:
    """dtype: what products multiply; sums, the residual stream, norms, softmax and heads are float32 in any case.

    device: as torch names it. On CUDA all calls enqueue on one stream of the engine's own and wait for their own
    output alone: while one runs there the next is packed and sent, and memory is used again in that order. `cores` are
    torch's threads where the device is the CPU.

    Raises UnsupportedOption, MissingTensor, BadCheckpoint, BadSetting.
    """

    name = "torch"

    def __init__(
        self,
        spec: EncoderSpec,
        heads: Mapping[str, HeadSpec],
        weights: Weights,
        dtype: str = "float32",
        *,
        device: str = "cpu",
    ) -> None:
        if dtype not in DTYPES:
            raise BadSetting(f"dtype {dtype!r} is unknown to the torch engine; choose {', '.join(DTYPES)}")
        refuse(self.name, meaningless(spec, heads), not_run(spec))
        self.dtype = dtype
        self.device = torch.device(device)
        self._spec = spec
        self._most_tokens: int | None = None
        tensors = Tensors(spec, weights, self.device, DTYPES[dtype])
        self._tables = PositionTables(spec, tensors.array)
        self._sent: dict[tuple[str, int], tuple[Floats, Tensor]] = {}
        with torch.inference_mode():
            self._trunk = Trunk(spec, tensors, self._tables)
            self._heads = Heads(heads, tensors)
        self._weight_bytes = tensors.bytes
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        if self._stream is not None:
            torch.cuda.synchronize(self.device)  # the weights came on another stream
        self._graphs = self._make_graphs()

    def _make_graphs(self) -> Graphs | None:
        """Where all that the trunk reads is on a CUDA device and the same for all batches."""
        if self._stream is None or not self._trunk.on_device or self._tables.by_length:
            return None
        return Graphs(self._trunk.run, self._spec.width, self.device)

    def info(self) -> Mapping[str, Any]:
        facts: dict[str, Any] = {
            "engine": self.name,
            "dtype": self.dtype,
            "device": str(self.device),
            "torch": torch.__version__,
            "weight_bytes": self._weight_bytes,
            "most_tokens": self._most_tokens,
        }
        if self.device.type == "cuda":
            facts["gpu"] = torch.cuda.get_device_name(self.device)
            facts["graphs"] = 0 if self._graphs is None else len(self._graphs)
        return facts

    def run(self, batch: PackedBatch, reads: Sequence[Read], cores: int = 1) -> list[Output]:
        """One output per read. A batch for which there is no memory is halved, and what fits is remembered.

        Raises EngineFailure for a batch or read that does not fit the model, and for a row that does not fit alone.
        """
        check_batch(self._spec, batch)
        for read in reads:
            if read.head not in self._heads.specs:
                raise EngineFailure(f"the model has no head {read.head!r}; it has {', '.join(self._heads.specs)}")
        with self._threads(cores):
            return self._fitting(batch, reads)

    def _fitting(self, batch: PackedBatch, reads: Sequence[Read]) -> list[Output]:
        if batch.rows == 1 or self._most_tokens is None or batch.tokens <= self._most_tokens:
            with contextlib.suppress(torch.OutOfMemoryError):  # leaves this frame before memory is asked for again
                return self._computed(batch, reads)
            self._forget()
            if batch.rows == 1:
                raise EngineFailure(
                    f"no memory on {self.device} for a row of {batch.tokens} tokens; send shorter texts"
                ) from None
            self._most_tokens = batch.tokens // 2
        parts = halves(batch)
        outputs = [self._fitting(rows_of(batch, part), reads_of(reads, batch, part)) for part in parts]
        return merged(reads, parts, outputs)

    def _forget(self) -> None:
        """Give what is kept for later back to the device."""
        if self._graphs is not None:
            self._graphs.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _computed(self, batch: PackedBatch, reads: Sequence[Read]) -> list[Output]:
        """What is read is planned while the device computes what it is read from."""
        bucket = None if self._graphs is None else self._graphs.bucket(batch)
        upload = Upload()
        rotaries, biases = self._tables.of(batch, 1 if bucket is None else bucket.longest)
        layout = Layout(self._spec, batch, [starts for _, _, starts in rotaries], upload, bucket)
        with torch.inference_mode(), self._on_stream():
            tables = self._tables_on_device(rotaries, biases)
            with contextlib.nullcontext() if self._graphs is None or bucket is None else self._graphs.lock:
                if self._graphs is None or bucket is None:
                    rows = layout.rows(upload.send(self.device), *tables)
                    states, offsets = self._trunk.run(rows), rows.offsets
                else:
                    staged = upload.stage(self.device)
                    states, offsets = self._graphs.states(bucket, staged, lambda held: layout.rows(held, *tables))
                finished = self._read(batch, reads, states[: batch.tokens], offsets[: batch.rows + 1])
                patient = bucket is None or bucket.tokens > SMALL_TOKENS
                download = Download([tensor for tensors, _ in finished for tensor in tensors], patient)
            landed = iter(download.arrays())
        if not reads and self._stream is not None:  # nothing landed, but it shall be over
            self._stream.synchronize()
        return [output([next(landed) for _ in tensors]) for tensors, output in finished]

    def _read(self, batch: PackedBatch, reads: Sequence[Read], states: Tensor, offsets: Tensor) -> list[Finished]:
        upload = Upload()
        plans = [plan(self._heads.specs[read.head], read, batch, upload) for read in reads]
        for one in plans:
            self._heads.check(one)
        given = Given(states, offsets, upload.send(self.device))
        return [self._heads.run(one, given) for one in plans]

    def max_similarity(self, query: Floats, documents: Floats, offsets: Ints, cores: int = 1) -> Floats:
        """In float32, whatever the dtype."""
        check_similarity(query, documents, offsets)
        with self._threads(cores), torch.inference_mode(), self._on_stream():
            ours, theirs = (as_tensor(x).to(self.device) for x in (query, documents))
            (scores,) = Download([similarity(ours, theirs, offsets)]).arrays()
        return scores

    @contextlib.contextmanager
    def _threads(self, cores: int) -> Iterator[None]:
        """What torch computes with on a CPU in this thread, and as before afterwards."""
        before = torch.get_num_threads()
        if self.device.type != "cpu" or cores == before:
            yield
            return
        torch.set_num_threads(cores)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _on_stream(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _tables_on_device(
        self, rotaries: Sequence[Rotary], biases: Sequence[Floats]
    ) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """The tables of positions, of which those that stay the same are sent once."""
        tables = [(self._kept(("cosines", i), c), self._kept(("sines", i), s)) for i, (c, s, _) in enumerate(rotaries)]
        return tables, [self._kept(("bias", i), bias) for i, bias in enumerate(biases)]

    def _kept(self, key: tuple[str, int], array: Floats) -> Tensor:
        held = self._sent.get(key)  # another thread may replace it
        if held is None or held[0] is not array:
            self._sent[key] = held = (array, as_tensor(array).to(self.device))
        return held[1]

"""The native engine: a whole packed batch per call in C++, without the GIL (native/*.cpp).

This file reads the spec and the heads, packs the weights once for one instruction set, and turns the C++ side's
complaints into typed errors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onepass.engines import _native
from onepass.engines.batch import Floats, Ints, Output, PackedBatch, Read, check_similarity
from onepass.engines.native_packing import Packing
from onepass.engines.position_tables import PositionTables
from onepass.engines.refuse import meaningless, not_run, refuse
from onepass.errors import BadCheckpoint, BadSetting, EngineFailure
from onepass.model.heads import HeadSpec
from onepass.model.spec import EncoderSpec
from onepass.model.weights import Weights


def instruction_sets() -> dict[str, str]:
    """Every instruction set in this build, the widest first: "" if this machine runs it, else why it does not."""
    return dict(_native.instruction_sets())


def bfloat16_products(isa: str) -> bool:
    """Whether processors with this instruction set multiply bfloat16 themselves; others take the time of float32."""
    return bool(_native.bfloat16_products(isa))


def compute_threads() -> int:
    """Physical cores in the affinity mask, or the control group's processor quota rounded up if less; at least 1."""
    return int(_native.compute_threads())


def choose_instruction_set(asked: str | None = None) -> tuple[str, str]:
    """(name, reason): the one asked for, or ONEPASS_ISA's, or the widest. Raises BadSetting if it cannot be used."""
    sets = instruction_sets()
    usable = [name for name, obstacle in sets.items() if not obstacle]
    name, reason = asked, "asked"
    if name is None:
        name, reason = os.environ.get("ONEPASS_ISA"), "set by ONEPASS_ISA"
    if not name:
        return usable[0], "the widest this machine has"
    if name not in sets:
        raise BadSetting(f"instruction set {name!r} is unknown; choose {', '.join(usable)}")
    if sets[name]:
        raise BadSetting(f"instruction set {name!r} cannot be used: {sets[name]}; choose {', '.join(usable)}")
    return name, reason


class Native:
    """dtype float32, or bfloat16: weights and inputs of products rounded to bfloat16; sums and all else float32.

    `isa` forces an instruction set (so does ONEPASS_ISA); by default it is the widest the machine has. Raises
    UnsupportedOption for what the engine does not run, MissingTensor, BadCheckpoint for tensors that do not fit the
    spec, BadSetting for the instruction set.
    """

    name = "native"

    def __init__(
        self,
        spec: EncoderSpec,
        heads: Mapping[str, HeadSpec],
        weights: Weights,
        dtype: str = "float32",
        *,
        isa: str | None = None,
    ) -> None:
        if dtype not in ("float32", "bfloat16"):
            raise BadSetting(f"dtype {dtype!r} is unknown to the native engine; choose float32 or bfloat16")
        refuse(self.name, meaningless(spec, heads), not_run(spec))
        self.dtype = dtype
        self.isa, self._isa_reason = choose_instruction_set(isa)
        packing = Packing(spec, weights, self.isa, dtype)
        try:
            self._tables = PositionTables(spec, packing.tensor)
            self._encoder = packing.encoder(self._tables)
            self._sparse = {name: head.sparse for name, head in heads.items()}
            self._heads = {name: packing.head(head) for name, head in heads.items()}
        except ValueError as error:
            raise BadCheckpoint(f"{error}; the checkpoint and its config do not belong together") from None
        self._weight_bytes = packing.bytes

    def info(self) -> Mapping[str, Any]:
        return {
            "engine": self.name,
            "dtype": self.dtype,
            "instruction_set": self.isa,
            "instruction_set_reason": self._isa_reason,
            "weight_bytes": self._weight_bytes,
            "compute_threads": compute_threads(),
        }

    def run(self, batch: PackedBatch, reads: Sequence[Read], cores: int = 1) -> list[Output]:
        """One output per read. Raises EngineFailure for a batch or read that does not fit the model."""
        try:
            outputs = self._encoder.run(
                batch.ids,
                batch.types,
                batch.offsets,
                batch.visible,
                *self._tables.of(batch),
                [self._read(read) for read in reads],
                cores,
            )
        except (ValueError, TypeError) as error:
            raise EngineFailure(str(error)) from None
        except MemoryError:
            raise EngineFailure(f"no memory for a batch of {batch.tokens} tokens; send smaller batches") from None
        return [self._output(read, *output) for read, output in zip(reads, outputs, strict=True)]

    def max_similarity(self, query: Floats, documents: Floats, offsets: Ints, cores: int = 1) -> Floats:
        """In float32, whatever the dtype."""
        check_similarity(query, documents, offsets)
        try:
            return _native.max_similarity(
                self.isa, np.ascontiguousarray(query), np.ascontiguousarray(documents), offsets, cores
            )
        except TypeError as error:
            raise EngineFailure(str(error)) from None

    def _output(self, read: Read, values: Floats, offsets: Ints, ids: Ints | None) -> Output:
        if read.vocabulary is not None and ids is not None and self._sparse[read.head]:
            ids = read.vocabulary[ids]
        return Output(values, offsets, ids)

    def _read(self, read: Read) -> _native.Read:
        if read.head not in self._heads:
            raise EngineFailure(f"the model has no head {read.head!r}; it has {', '.join(self._heads)}")
        finish = None if read.finish is None else getattr(_native.Finish, read.finish)
        return _native.Read(
            self._heads[read.head],
            read.rows,
            read.positions,
            read.spans,
            read.offsets,
            read.vocabulary,
            read.skip,
            read.targets,
            finish,
        )

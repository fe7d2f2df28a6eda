"""The native engine: a whole packed batch per call in C++, without the GIL (native/*.cpp).

This file reads the spec and the heads, packs the weights once for one instruction set, and turns the C++ side's
complaints into typed errors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from onepass.engines import _native
from onepass.engines.batch import Floats, Output, PackedBatch, Read
from onepass.engines.refuse import meaningless, not_native, refuse
from onepass.errors import BadCheckpoint, BadSetting, EngineFailure, MissingTensor
from onepass.model.heads import L2, Activation, HeadSpec, Linear, Norm, Step, Truncate
from onepass.model.spec import EmbedSpec, EncoderSpec, LayerSpec, NormSpec
from onepass.model.weights import Weights

UNPROVEN = {"amx"}  # right on emulated tiles (make check-amx), not yet run on a processor that has them


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
        return _widest(usable)
    if name not in sets:
        raise BadSetting(f"instruction set {name!r} is unknown; choose {', '.join(usable)}")
    if sets[name]:
        raise BadSetting(f"instruction set {name!r} cannot be used: {sets[name]}; choose {', '.join(usable)}")
    return name, reason


def _widest(usable: list[str]) -> tuple[str, str]:
    """The widest that has run on a machine of its kind; ONEPASS_ISA takes the others."""
    proven = next(name for name in usable if name not in UNPROVEN)
    if proven == usable[0]:
        return proven, "the widest this machine has"
    return proven, f"{usable[0]} is there, but was checked on an emulator only; ONEPASS_ISA={usable[0]} takes it"


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
        refuse(self.name, meaningless(spec, heads), not_native(spec, heads))
        self.dtype = dtype
        self.isa, self._isa_reason = choose_instruction_set(isa)
        self._heads = {name: index for index, name in enumerate(heads)}
        try:
            self._encoder = _Packing(spec, weights, self.isa, dtype).encoder(heads)
        except ValueError as error:
            raise BadCheckpoint(f"{error}; the checkpoint and its config do not belong together") from None

    def info(self) -> Mapping[str, Any]:
        return {
            "engine": self.name,
            "dtype": self.dtype,
            "instruction_set": self.isa,
            "instruction_set_reason": self._isa_reason,
            "weight_bytes": self._encoder.weight_bytes,
            "compute_threads": compute_threads(),
        }

    def run(self, batch: PackedBatch, reads: Sequence[Read], cores: int = 1) -> list[Output]:
        """One output per read. Raises EngineFailure for a batch or read that does not fit the model."""
        try:
            outputs = self._encoder.run(
                batch.ids, batch.types, batch.offsets, batch.visible, [self._read(read) for read in reads], cores
            )
        except (ValueError, TypeError) as error:
            raise EngineFailure(str(error)) from None
        except MemoryError:
            raise EngineFailure(f"no memory for a batch of {batch.tokens} tokens; send smaller batches") from None
        return [Output(values, offsets) for values, offsets in outputs]

    def _read(self, read: Read) -> _native.Read:
        if read.head not in self._heads:
            raise EngineFailure(f"the model has no head {read.head!r}; it has {', '.join(self._heads)}")
        finish = None if read.finish is None else getattr(_native.Finish, read.finish)
        return _native.Read(self._heads[read.head], read.rows, read.positions, read.offsets, read.skip, finish)


class _Packing:
    """Builds the C++ encoder; the numpy arrays are read and not kept."""

    def __init__(self, spec: EncoderSpec, weights: Weights, isa: str, dtype: str) -> None:
        self.spec = spec
        self.weights = weights
        self.isa = isa
        self.format = getattr(_native.Format, dtype)

    def encoder(self, heads: Mapping[str, HeadSpec]) -> _native.Encoder:
        groups: dict[int, _native.LayerWeights] = {}
        layers = []
        for layer in self.spec.layers:
            if layer.weights not in groups:
                groups[layer.weights] = self.layer_weights(layer)
            attention = layer.attention
            activation = getattr(_native.Activation, layer.feed_forward.activation)
            layers.append(
                _native.Layer(groups[layer.weights], attention.heads, attention.head_size, attention.scale, activation)
            )
        built = [self.head(head) for head in heads.values()]
        return _native.Encoder(self.isa, self.spec.width, self.embedding(self.spec.embed), layers, built)

    def embedding(self, embed: EmbedSpec) -> _native.Embedding:
        positions = None
        if embed.positions is not None:
            table = self.tensor("embed.position", embed.positions.rows, embed.width)
            rule = getattr(_native.PositionRule, embed.positions.rule)
            positions = _native.Positions(rule, embed.positions.start, table)
        return _native.Embedding(
            self.tensor("embed.word", embed.vocab, embed.width),
            embed.scale,
            positions,
            self.tensor("embed.type", embed.types, embed.width) if embed.types else None,
            None if embed.norm is None else self.norm("embed.norm", embed.norm, embed.width),
            self.linear(["embed.project"], self.spec.width, embed.width) if embed.project else None,
        )

    def layer_weights(self, layer: LayerSpec) -> _native.LayerWeights:
        group, width, inner = f"layers.{layer.weights}", self.spec.width, layer.feed_forward.width
        heads_width = layer.attention.heads * layer.attention.head_size
        return _native.LayerWeights(
            self.linear([f"{group}.attention.{part}" for part in ("query", "key", "value")], heads_width, width),
            self.linear([f"{group}.attention.output"], width, heads_width),
            self.linear([f"{group}.ff.up"], inner, width),
            self.linear([f"{group}.ff.down"], width, inner),
            self.norm(f"{group}.norm1", layer.norm, width),
            self.norm(f"{group}.norm2", layer.norm, width),
        )

    def linear(self, names: Sequence[str], outputs: int, inputs: int) -> _native.Linear:
        """Linear layers of equal shape as one product, their outputs side by side."""
        parts = [
            (self.tensor(f"{name}.weight", outputs, inputs), self.optional(f"{name}.bias", outputs)) for name in names
        ]
        return _native.Linear(self.isa, self.format, parts)

    def norm(self, name: str, norm: NormSpec, width: int) -> _native.Norm:
        return _native.Norm(self.tensor(f"{name}.weight", width), self.optional(f"{name}.bias", width), norm.eps)

    # Heads compute in float32 whatever the trunk does.

    def head(self, head: HeadSpec) -> _native.Head:
        return _native.Head(
            self.isa,
            self.spec.width,
            [getattr(_native.Pooling, kind) for kind in head.pool.kinds],
            -1 if head.pool.pad_id is None else head.pool.pad_id,
            head.pool.skip_prompt,
            [self.step(step) for step in head.per_token],
            [self.step(step) for step in head.per_row],
            getattr(_native.Finish, head.finish),
        )

    def step(self, step: Step) -> Any:
        match step:
            case Linear():
                activation = getattr(_native.Activation, step.activation or "identity")
                residual = self.head_linear(step.residual, None) if isinstance(step.residual, str) else None
                return _native.LinearStep(
                    self.head_linear(step.weight, step.bias), activation, step.residual is True, residual
                )
            case Activation():
                return _native.ActivationStep(getattr(_native.Activation, step.kind))
            case Norm():
                weight = self.tensor(step.weight)
                bias = None if step.bias is None else self.tensor(step.bias, *weight.shape)
                return _native.Norm(weight, bias, step.spec.eps)
            case L2():
                return _native.L2Step()
            case Truncate():
                return _native.TruncateStep(step.width)
        raise EngineFailure(f"the native engine has no head step {step}")

    def head_linear(self, weight: str, bias: str | None) -> _native.Linear:
        matrix = self.tensor(weight)
        part = (matrix, None if bias is None else self.tensor(bias, len(matrix)))
        return _native.Linear(self.isa, _native.Format.float32, [part])

    # Tensors by name. No shape given: any.

    def tensor(self, name: str, *shape: int) -> Floats:
        if name not in self.weights:
            raise MissingTensor(f"the weights have no tensor {name!r}, which the spec needs")
        tensor = self.weights[name]
        if shape and tensor.shape != shape:
            raise BadCheckpoint(f"tensor {name!r} has shape {tensor.shape}, the config says {shape}")
        return tensor

    def optional(self, name: str, *shape: int) -> Floats | None:
        return self.tensor(name, *shape) if name in self.weights else None

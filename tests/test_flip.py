"""Every field of a spec counts: flip one, and either the numbers move or it is refused.

A field whose flip nothing notices would be untested. Unflipped, a checkpoint gives what transformers gives within
LIMIT, so numbers that move by 2 LIMIT have left it. A family joins by its line in tiny.KINDS; a variant of one by a
line in CASES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from flips import Flip, Trial, flips, kinds, used
from random_models import draw
from running import ENGINES, STATES, error, run, start
from test_parity_variants import TRUNKS
from tiny import KINDS, USABLE, Family, redraw, tiny_checkpoint

from onepass.engines.batch import Engine, Floats
from onepass.errors import UnsupportedOption
from onepass.model.checkpoint import Checkpoint, load_checkpoint
from onepass.model.spec import Alibi, EncoderSpec, FeedForwardSpec, NormSpec, RopeSpec

LIMIT = 2e-5
LENGTHS = (3, 40)
auto: Any = transformers
engines = pytest.mark.parametrize("engine", ENGINES)


@dataclass(frozen=True)
class Case:
    """A tiny checkpoint of `family` with `config`; of its spec the fields below `path` are flipped.

    changed: its spec becomes another one, with random weights; for what transformers has no model.
    """

    family: Family
    config: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""
    changed: Callable[[EncoderSpec], EncoderSpec] | None = None


def rotary(max_position_embeddings: int = USABLE, **parameters: Any) -> Case:
    """Llama with heads of 32 and its rotary positions scaled."""
    config = {"head_dim": 32, "max_position_embeddings": max_position_embeddings}
    return Case("llama", {**config, "rope_parameters": {"rope_theta": 10_000.0, **parameters}}, "ropes")


def with_layers(**changes: Any) -> Callable[[EncoderSpec], EncoderSpec]:
    return lambda spec: replace(spec, layers=tuple(replace(layer, **changes) for layer in spec.layers))


def with_attention(**changes: Any) -> Callable[[EncoderSpec], EncoderSpec]:
    def changed(spec: EncoderSpec) -> EncoderSpec:
        return with_layers(attention=replace(spec.layers[0].attention, **changes))(spec)

    return changed


NTK = RopeSpec(8, 160_000.0, "ntk", 1.0, (("factor", 8.0),))
MIXED = replace(NTK, options=(("factor", 8.0), ("mixed_b", 0.4)))
BEFORE: dict[str, Any] = {"factor": 4.0, "original_max_position_embeddings": 16}


CASES: dict[str, Case] = {
    **{family: Case(family) for family in KINDS},
    **{name: Case(*TRUNKS[name]) for name in ("v2 conv in groups", "v2 narrow words")},
    **{name: Case(*TRUNKS[name]) for name in TRUNKS if name.startswith(("all attention", "attention outside"))},
    "experts": Case("nomic_bert", changed=with_layers(feed_forward=FeedForwardSpec("experts", 32, "gelu", 1, 5, 2))),
    "rows normed": Case("bert", changed=with_attention(qk_norm="flat")),
    "linear biases": Case("bert", changed=lambda spec: replace(spec, relative=Alibi())),
    "rotary, ntk": Case("gte", {}, "ropes", lambda spec: replace(spec, ropes=(NTK,))),
    "rotary, ntk mixed": Case("gte", {}, "ropes", lambda spec: replace(spec, ropes=(MIXED,))),
    "rotary, linear": rotary(rope_type="linear", factor=4.0),
    "rotary, llama3": rotary(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0, **BEFORE),
    "rotary, yarn": rotary(rope_type="yarn", beta_fast=1.0, beta_slow=0.2, truncate=False, **BEFORE),
    "rotary, yarn in whole steps": rotary(rope_type="yarn", beta_fast=1.0, beta_slow=0.1, **BEFORE),
    "rotary, longrope": rotary(
        rope_type="longrope",
        factor=4.0,
        short_factor=[1.5] * 16,
        long_factor=[3.0] * 16,
        original_max_position_embeddings=24,
    ),
    "rotary, dynamic": rotary(rope_type="dynamic", factor=4.0, max_position_embeddings=16),
}

REASONS = {
    "max_tokens": "no engine reads it; it is held against transformers below",
    "embed.positions.rows": "a computed table has as many as one likes",
}
"""Fields whose flip nothing can notice."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """The checkpoint of a case, without heads."""
    ready: dict[str, Checkpoint] = {}

    def load(name: str) -> Checkpoint:
        if name not in ready:
            case = CASES[name]
            folder = tiny_checkpoint(tmp_path_factory.mktemp("case"), case.family, "trunk", **case.config)
            checkpoint = replace(load_checkpoint(folder), heads={})
            if case.changed is not None:
                spec = case.changed(checkpoint.spec)
                checkpoint = replace(checkpoint, spec=spec, weights=draw(spec))
            ready[name] = checkpoint
        return ready[name]

    return load


def trial(checkpoint: Checkpoint, engine: str) -> Trial:
    """Numbers must stay as they are. Skips where the engine does not run the unchanged spec."""
    rng = np.random.default_rng(0)
    spec = checkpoint.spec
    rows = [[int(token) for token in rng.integers(5, spec.embed.vocab, length)] for length in LENGTHS]
    rows[1][8] = checkpoint.tokenizer.pad_id  # what after_pad looks at
    types = [[int(kind) for kind in rng.integers(0, max(spec.embed.types, 1), len(row))] for row in rows]
    try:
        expected = run(start(engine, checkpoint), STATES.kind, rows, types)
    except UnsupportedOption as refusal:
        pytest.skip(str(refusal))

    def wrong(changed: Checkpoint, engine: Engine) -> bool:
        ours = run(engine, STATES.kind, rows, types)
        return any(a.shape != b.shape or not error(a, b) < 2 * LIMIT for a, b in zip(ours, expected, strict=True))

    return Trial(checkpoint, wrong, engine)


def larger(weights: Mapping[str, Floats]) -> dict[str, Floats]:
    """Some activations are large enough for gelu_10 to clip."""
    changed = {name: tensor.copy() for name, tensor in weights.items()}
    for name, tensor in changed.items():
        if name.endswith((".up.weight", ".gate.weight")):
            tensor[:8] *= 8
    return changed


def smaller(weights: Mapping[str, Floats]) -> dict[str, Floats]:
    """Without norms that hold them together, the numbers of the second layer are large; here they are not."""
    return {name: tensor * np.float32(0.3 if tensor.ndim == 2 else 1) for name, tensor in weights.items()}


def spec_flips(spec: EncoderSpec, path: str) -> Iterator[Flip]:
    stored = spec.embed.positions is not None and not spec.embed.positions.sinusoid
    for name, changed in flips(spec, EncoderSpec):
        if name.startswith(path) and (name not in REASONS or (stored and name == "embed.positions.rows")):
            yield name, {"spec": changed}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a flip may well overflow
@engines
@pytest.mark.parametrize("name", CASES)
def test_every_field_of_the_spec_counts(loaded: Callable[[str], Checkpoint], name: str, engine: str) -> None:
    checkpoint = loaded(name)
    found = list(spec_flips(checkpoint.spec, CASES[name].path))
    missed = [flip for flip in found if not flip[0].endswith(".eps")]
    for weights in (checkpoint.weights, larger(checkpoint.weights), smaller(checkpoint.weights)):
        missed = trial(replace(checkpoint, weights=weights), engine).unnoticed(missed)
    assert [path for path, _ in missed] == []


@engines
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.path])
def test_every_eps_counts(loaded: Callable[[str], Checkpoint], name: str, engine: str) -> None:
    """On numbers so small that it weighs something; an affine norm has no statistics and no use for one."""
    checkpoint = loaded(name)
    found = [flip for flip in spec_flips(checkpoint.spec, "") if flip[0].endswith(".eps")]
    found = [flip for flip in found if _norm_of(flip[0], checkpoint.spec).kind != "affine"]
    sizes = {_norm_of(path, checkpoint.spec).eps ** 0.5 for path, _ in found}
    for size in sizes:
        small = trial(replace(checkpoint, weights=at_size(checkpoint.spec, checkpoint.weights, size)), engine)
        due = iter([flip for flip in found if _norm_of(flip[0], checkpoint.spec).eps ** 0.5 == size])
        assert small.unnoticed(due) == []


UNUSED = {
    "AttentionSpec.conv_kernel": "no engine runs it",
}
"""Fields and kinds that no family here has."""


def test_every_field_and_kind_is_that_of_some_case(loaded: Callable[[str], Checkpoint]) -> None:
    found = set().union(*(used(loaded(name).spec) for name in CASES))
    assert kinds(EncoderSpec) - found == UNUSED.keys()


def _norm_of(path: str, spec: EncoderSpec) -> NormSpec:
    value: Any = spec
    for part in path.split(".")[:-1]:
        value = value[int(part)] if part.isdigit() else getattr(value, part)
    assert isinstance(value, NormSpec)
    return value


def at_size(spec: EncoderSpec, weights: Mapping[str, Floats], size: float) -> dict[str, Floats]:
    """The same computation with all hidden states `size` times as large: what writes them, and what reads them."""
    both = ("weight", "bias")
    writers = ["embed.word", "embed.position", "embed.type", "embed.task", "embed.project.bias", "relative.table"]
    writers += ["embed.project.weight"] if spec.embed.project == "after" else [f"embed.norm.{kind}" for kind in both]
    writers += ["conv.bias", "conv.norm.weight", "conv.norm.bias"]
    readers = []
    for layer in spec.layers:
        name = f"layers.{layer.weights}"
        writers += [f"{name}.{part}.{kind}" for part in ("attention.output", "ff.down") for kind in both]
        norms = {"post": ["norm1", "norm2"], "sandwich": ["norm1_after", "norm2_after"]}.get(layer.place, [])
        writers += [f"{name}.{norm}.{kind}" for norm in norms for kind in both]
        if layer.place == "post":
            readers += [f"{name}.attention.{part}.weight" for part in ("query", "key", "value")]
            readers += [f"{name}.ff.{part}.weight" for part in ("up", "gate", "router")]
        if layer.norm.kind == "rms1":  # whose factor is 1 + weight
            rms1 = [f"{name}.{norm}.weight" for norm in norms]
            weights = {**weights, **{norm: (1 + weights[norm]) - 1 / np.float32(size) for norm in rms1}}
    factors = dict.fromkeys(writers, np.float32(size)) | dict.fromkeys(readers, np.float32(1 / size))
    return {name: tensor * factors.get(name, np.float32(1)) for name, tensor in weights.items()}


@pytest.mark.parametrize("family", KINDS)
def test_unflipped_specs_are_those_of_transformers(tmp_path: Path, family: Family) -> None:
    tiny_checkpoint(tmp_path, family, "trunk")
    spec = load_checkpoint(tmp_path).spec
    model = auto.AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    if spec.embed.positions is not None and not spec.embed.positions.sinusoid:
        assert spec.max_tokens == max(length for length in range(USABLE - 3, USABLE + 4) if _runs(encoder, length))
    norms = [norm for norm in (spec.embed.norm, spec.final_norm, spec.layers[0].norm) if norm is not None]
    ids = [int(token) for token in np.random.default_rng(0).integers(5, 200, max(LENGTHS))]
    for size in {1.0, *(norm.eps**0.5 for norm in norms if norm.kind != "affine")}:  # where eps weighs nothing, or much
        redraw(model, 0, size * KINDS[family].scale)
        model.save_pretrained(tmp_path)
        (ours,) = run(start("reference", load_checkpoint(tmp_path)), STATES.kind, [ids])
        assert error(ours, _states(encoder, ids)) < LIMIT


def _states(model: Any, row: list[int]) -> Any:
    with torch.inference_mode():
        return model(torch.tensor([row]), attention_mask=torch.ones(1, len(row)).long()).last_hidden_state[0].numpy()


def _runs(model: Any, length: int) -> bool:
    try:
        _states(model, [7] * length)
    except (IndexError, RuntimeError):
        return False
    return True

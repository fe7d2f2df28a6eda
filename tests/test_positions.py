"""Tables of positions are those of transformers, and files that describe them are read in each of their spellings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position
from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding
from transformers.models.t5.modeling_t5 import T5Attention

from onepass.errors import BadCheckpoint, OnepassError, UnsupportedOption
from onepass.model.config import Config
from onepass.model.families.rotary import read_rope, rope_from_config
from onepass.model.positions import (
    alibi_slopes,
    distance_buckets,
    inverse_frequencies,
    relative_indices,
    rotary,
    sinusoids,
)
from onepass.model.spec import Disentangled, RopeSpec, T5Buckets

LONG = 96  # more than any `original` below
FACTORS = {"short_factor": [1 + k / 8 for k in range(8)], "long_factor": [2 + k for k in range(8)]}
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "other theta": {"rope_theta": 160_000.0},
    "partial": {"partial_rotary_factor": 0.5},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 48,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 48},
    "yarn, all options": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
        "truncate": False,
    },
    "yarn, attention": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 0.7},
    "longrope": {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 48, **FACTORS},
    "longrope, its own factor": {"rope_type": "longrope", "original_max_position_embeddings": 48, **FACTORS},
    "longrope, attention": {"rope_type": "longrope", "attention_factor": 1.5, "factor": 2.0, **FACTORS},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
}


@pytest.mark.parametrize("tokens", [5, LONG])
@pytest.mark.parametrize("name", SCALINGS)
def test_rotary_tables_are_those_of_transformers(name: str, tokens: int) -> None:
    plain = {"rope_type": "linear", "factor": 1.0}
    theirs = SCALINGS[name] if "rope_type" in SCALINGS[name] else SCALINGS[name] | plain
    config: Any = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=64, rope_parameters=dict(theirs)
    )
    inverse, factor = ROPE_INIT_FUNCTIONS[theirs["rope_type"]](config, torch.device("cpu"), torch.tensor(tokens))
    rope = rope_from_config(SCALINGS[name], 16, 10_000.0, 64)
    ours = inverse_frequencies(rope, tokens)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, inverse.numpy(), rtol=2.5e-7)  # PyTorch's vectorised power is an ulp off at times
    assert rope.factor == pytest.approx(factor, rel=1e-12)
    angles = np.arange(tokens, dtype=np.float32)[:, None] * ours
    cosines, sines = rotary(rope, tokens)
    np.testing.assert_allclose(cosines, np.cos(angles) * factor, atol=2e-7)
    np.testing.assert_allclose(sines, np.sin(angles) * factor, atol=2e-7)


@pytest.mark.parametrize("mixed", [None, 0.5])
def test_the_fixed_ntk_scaling_of_gte(mixed: float | None) -> None:
    """Closed form: the lowest frequency is stretched by the factor, and mixed_b's exponent spreads ln(factor)."""
    parameters = {"type": "ntk", "factor": 8.0} | ({} if mixed is None else {"mixed_b": mixed})
    rope = rope_from_config(parameters, 16, 10_000.0, 64)
    plain = inverse_frequencies(RopeSpec(16, 10_000.0), 1).astype(float)
    k = np.arange(8)
    if mixed is None:
        expected = plain * 8.0 ** (-2 * (k + 1) / 16)
    else:
        expected = plain * np.exp(-math.log(8) * ((k + 1) / 8) ** mixed)
    np.testing.assert_allclose(inverse_frequencies(rope, 5), expected, rtol=1e-6)
    np.testing.assert_allclose(inverse_frequencies(rope, 5)[-1], plain[-1] / 8, rtol=1e-6)


def test_every_spelling_of_a_config_is_read() -> None:
    linear = RopeSpec(8, 500.0, "linear", 1.0, (("factor", 2.0),))
    nested = {"full_attention": {"rope_type": "linear", "factor": 2, "rope_theta": 500}, "sliding_attention": None}
    spellings: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}}, {}),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 500.0}, {}),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rotary_emb_base": 500}, {"theta_key": "rotary_emb_base"}),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 9}}, {"theta": 500.0}),
        ({"rope_parameters": nested}, {"layer_type": "full_attention"}),
    ]
    for values, options in spellings:
        assert read_rope(Config(values, "config.json"), 8, max_positions=64, **options) == linear
    other: Any = {"layer_type": "sliding_attention", "theta": 7.0}
    assert read_rope(Config({"rope_parameters": nested}, "c"), 8, max_positions=64, **other) == RopeSpec(8, 7.0)
    assert read_rope(Config({"partial_rotary_factor": 0.5}, "c"), 8, max_positions=64) == RopeSpec(4, 10_000.0)


def test_the_original_length_beside_the_parameters_wins() -> None:
    values = {"rope_scaling": SCALINGS["yarn"], "original_max_position_embeddings": 32}
    rope = read_rope(Config(values, "config.json"), 16, max_positions=64)
    assert dict(rope.options)["original_max_position_embeddings"] == 32


@pytest.mark.parametrize(
    ("parameters", "kind", "words"),
    [
        (
            {"rope_type": "proportional"},
            UnsupportedOption,
            "rope_type to 'proportional', which is not implemented",
        ),
        ({"rope_type": "linear"}, BadCheckpoint, "sets factor to null, but it must be a number above 0"),
        ({"rope_type": "linear", "factor": -1}, BadCheckpoint, "sets factor to -1, but it must be a number above 0"),
        ({"rope_type": "longrope", "short_factor": [1]}, BadCheckpoint, r"short_factor to \[1\].*list of 8 numbers"),
        ({"partial_rotary_factor": 2}, BadCheckpoint, "rotates 32 of a head's 16 numbers"),
        ({"partial_rotary_factor": 0.2}, BadCheckpoint, "rotates 3 of a head's 16 numbers"),
        ({"rope_theta": 0}, BadCheckpoint, "sets rope_theta to 0, but it must be a number above 0"),
        ({"rope_type": "dynamic", "factor": 2, "partial_rotary_factor": 0.125}, BadCheckpoint, "a single rotated pair"),
    ],
)
def test_what_cannot_be_is_refused(parameters: dict[str, Any], kind: type[OnepassError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        rope_from_config(parameters, 16, 10_000.0, 64)
    assert str(caught.value).startswith("config.json's rope_parameters ")


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (64, 256), (32, 512), (8, 20)])
def test_buckets_of_distance_are_those_of_t5(buckets: int, furthest: int) -> None:
    distances = torch.arange(-3000, 3001)
    theirs: Any = T5Attention._relative_position_bucket(distances, True, buckets, furthest)  # type: ignore[no-untyped-call]
    assert (distance_buckets(T5Buckets(buckets, furthest), 3000) == theirs.numpy()).all()


@pytest.mark.parametrize(("buckets", "furthest"), [(256, 512), (128, 512), (256, 1024), (4, 10)])
def test_relative_indices_are_those_of_deberta(buckets: int, furthest: int) -> None:
    distances = torch.arange(-3000, 3001)
    logarithmic: Any = make_log_bucket_position(distances, buckets, furthest)
    theirs = torch.clamp(logarithmic + buckets, 0, 2 * buckets - 1).numpy()
    assert (relative_indices(Disentangled(buckets, furthest, buckets, True, True), 3000) == theirs).all()
    plain = relative_indices(Disentangled(8, 8, 0, True, True), 10)
    assert plain.tolist() == [0, 0, *range(16), 15, 15, 15]


def test_slopes_of_alibi() -> None:
    """The numbers of the paper for 8 heads, and of its code for 12."""
    assert alibi_slopes(8).tolist() == [2.0**-k for k in range(1, 9)]
    np.testing.assert_allclose(
        alibi_slopes(12), [2.0**-k for k in range(1, 9)] + [2.0**-k for k in (0.5, 1.5, 2.5, 3.5)]
    )
    assert alibi_slopes(1).tolist() == [2.0**-8]


@pytest.mark.parametrize("width", [32, 33])
def test_sinusoids_are_those_of_m2m(width: int) -> None:
    theirs = M2M100SinusoidalPositionalEmbedding.get_embedding(66, width, 1)
    np.testing.assert_allclose(sinusoids(66, width, 1), theirs.numpy(), atol=2e-5)  # an ulp of a frequency, times 66

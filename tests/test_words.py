"""A spec in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_seam import SPECS, bert, modernbert

from onepass.model.spec import Alibi, ConvSpec, FeedForwardSpec, NormSpec, PositionSpec, RopeSpec
from onepass.model.words import in_words, which

WORDS = {
    "modernbert": {
        "embeddings": "50368 words of 768, layer norm of eps 1e-05",
        "layers": ("22 of width 768, norm before: layer norm of eps 1e-05, no norm before attention in layer 0"),
        "attention": (
            "12 heads of 64; every third layer: a token sees all tokens, rotary (theta 160000); "
            "the others: a token sees 64 tokens to each side, rotary (theta 10000)"
        ),
        "feed-forward": "gated, 1152 wide, gelu",
        "output": "a final layer norm of eps 1e-05, rows of up to 8192 tokens",
    },
    "mobilebert": {
        "embeddings": (
            "30522 words of 128, each beside its two neighbours, widened to 512 at once, learned positions up to 512, "
            "2 token types, affine norm"
        ),
        "layers": (
            "24 of width 512, a bottleneck in each, norm after: affine norm, 128 wide within, "
            "queries and keys read a second one like it"
        ),
        "attention": "4 heads of 32; a token sees all tokens",
        "feed-forward": "512 wide, relu, 4 in a row",
        "output": "rows of up to 512 tokens",
    },
    "deberta_v3": {
        "embeddings": "128100 words of 768, layer norm of eps 1e-07",
        "layers": "12 of width 768, norm after: layer norm of eps 1e-07",
        "attention": (
            "12 heads of 64; a token sees all tokens, disentangled distances, content to position and position to "
            "content, 256 buckets for 512 to each side, scores times 0.0721688"
        ),
        "feed-forward": "3072 wide, gelu",
    },
    "qwen3": {
        "embeddings": "151669 words of 1024",
        "layers": "28 of width 1024, norm before: RMS norm of eps 1e-06",
        "attention": (
            "16 heads of 128 over 8 for keys and values, queries and keys normed; a token sees all tokens before it, "
            "rotary (theta 1000000)"
        ),
        "feed-forward": "gated, 3072 wide, silu",
        "output": "a final RMS norm of eps 1e-06",
    },
}


@pytest.mark.parametrize("name", WORDS)
def test_whole_specs(name: str) -> None:
    assert in_words(SPECS[name]()) == WORDS[name]


def test_what_the_others_have() -> None:
    spec = bert()
    layer = spec.layers[0]
    mixed = replace(layer, feed_forward=FeedForwardSpec("experts", 64, "gelu_tanh", experts=8, top=2))
    embed = replace(
        spec.embed, scale=27.5, tasks=3, project="after", positions=PositionSpec("after_pad", 1, 514, sinusoid=True)
    )
    attention = replace(layer.attention, rope=0, radius=9, causal=True, softcap=50.0, qk_norm="flat")
    other = in_words(
        replace(
            spec,
            embed=embed,
            layers=tuple(replace(mixed if i % 2 else layer, weights=0, attention=attention) for i in range(4)),
            ropes=(RopeSpec(32, 1e4, "linear", options=(("factor", 2.0),)),),
            relative=Alibi(),
            conv=ConvSpec(3, 1, "tanh", NormSpec("layer", 1e-7)),
        )
    )
    assert other == {
        "embeddings": (
            "30522 words of 768, times 27.5, widened to 768 after the norm, sinusoids for positions up to 512, counted "
            "from the pad id on, 2 token types, one of the tasks, layer norm of eps 1e-12"
        ),
        "layers": "4 of width 768 over 1 set of weights, norm after: layer norm of eps 1e-12",
        "attention": (
            "12 heads of 64, queries and keys normed over all heads; a token sees 9 tokens before it, rotary (theta "
            "10000, 32 of each head, linear scaling), a bias that falls with the distance (ALiBi), capped at 50"
        ),
        "feed-forward": ("every second layer: 3072 wide, gelu; the others: 2 of 8 experts, 64 wide, gelu (tanh form)"),
        "output": "a convolution over 3 tokens beside layer 0, rows of up to 512 tokens",
    }


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([0, 3, 6], "every third layer"),
        ([1, 3, 5, 7], "every second layer from layer 1 on"),
        ([3, 7], "every 4th layer from layer 3 on"),
        ([0, 3], "layers 0 and 3"),
        ([5], "layer 5"),
        ([1, 2, 3], "layers 1 to 3"),
        ([0, 1, 4, 5, 6], "layers 0, 1 and 4 to 6"),
    ],
)
def test_which_layers(layers: list[int], words: str) -> None:
    assert which(layers, 8) == words


def test_every_layer_is_said_once() -> None:
    few = replace(modernbert(), layers=modernbert().layers[:2])
    assert in_words(few)["attention"].startswith("12 heads of 64; layer 0: a token sees all tokens, rotary")

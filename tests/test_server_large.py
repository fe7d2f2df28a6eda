"""Large bodies are decoded in pieces, to the same value as in one go."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from onepass.server.body import field_names
from onepass.server.large import PIECE, decode_in_pieces, long_list, without_long_list
from onepass.server.openai import EmbeddingsRequest
from onepass.server.tei.embed import EmbedRequest

texts = st.text(max_size=30) | st.sampled_from(["\\", '"', '\\"', "]", "[1,", "}", "a" * PIECE, ",", "\\\\"])
ids = st.lists(st.integers(0, 40_000), max_size=20)
lists = st.lists(texts, max_size=5) | st.lists(ids, max_size=5) | ids | st.lists(texts | ids, max_size=5)


@given(
    items=lists, times=st.integers(1, 4_000), escaped=st.booleans(), indent=st.none() | st.just(1), first=st.booleans()
)
def test_the_same_value_as_in_one_go(
    items: list[Any], times: int, escaped: bool, indent: int | None, first: bool
) -> None:
    many = (items * times)[:20_000]
    fields = {"inputs": many, "model": "m", "dimensions": 3}
    if not first:
        fields = dict(reversed(fields.items()))
    body = json.dumps(fields, ensure_ascii=escaped, indent=indent).encode()
    value = decode_in_pieces(EmbedRequest, body)
    if value is None:
        assert len(body) < 3 * PIECE + max((len(json.dumps(item)) for item in many), default=0)
    else:
        assert value == msgspec.json.decode(body, type=EmbedRequest)


def test_ids_and_texts_are_cut_into_pieces_of_about_the_size() -> None:
    for items in ([list(range(1_000, 1_512))] * 300, list(range(100_000)), ["some text, with [marks]"] * 20_000):
        found = long_list(json.dumps({"input": items}).encode())
        assert found is not None
        name, spans = found
        assert name == "input"
        assert len(spans) > 5
        assert max(stop - start for start, stop in spans) < 2 * PIECE


async def test_the_fields_of_a_large_body_are_found_without_its_list() -> None:
    for items in ([list(range(512))] * 300, ['a "quoted" text, {with} [marks]'] * 20_000):
        fields = {"first": {"inner": [1]}, "input": items, "last": "}"}
        body = json.dumps(fields).encode()
        assert await field_names(body) == fields.keys()
        assert len(without_long_list(body)) < 200
    assert not await field_names(body[:-1])
    assert not await field_names(json.dumps(items).encode())


def test_what_is_wrong_is_left_to_the_ordinary_way() -> None:
    long = b'["' + b'text","' * PIECE
    assert decode_in_pieces(EmbeddingsRequest, b'{"input":' + long) is None
    assert decode_in_pieces(EmbeddingsRequest, b'{"input":' + long + b'x",1.5]}') is None
    assert decode_in_pieces(EmbeddingsRequest, b'{"input":' + long + b'x"] trailing}') is None
    assert decode_in_pieces(EmbeddingsRequest, b'{"input":' + long + b'x",,"y"]}') is None
    for spaces in range(12):
        trailing = b'{"input":["' + b"a" * (PIECE - 6) + b'"' + b" " * spaces + b",]}"
        assert decode_in_pieces(EmbeddingsRequest, trailing) is None
    assert decode_in_pieces(EmbeddingsRequest, b'{"surprise":' + long + b'x"],"input":"a"}') is None
    assert decode_in_pieces(EmbeddingsRequest, b'{"input":' + long + b'x"],"input":"a"}') is None

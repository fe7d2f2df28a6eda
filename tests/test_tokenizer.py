"""Ids, types and truncation as the tokenizers library gives them, the query of a rerank request encoded once."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny import tiny_checkpoint
from tokenizers import Tokenizer as Library

from onepass.errors import EmptyInput, InputTooLong, InvalidInput, TokenOutOfRange
from onepass.model.checkpoint import TokenizerFiles
from onepass.schedule.estimates import most_in_windows, most_tokens
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.pieces import Pieces
from onepass.schedule.tokenizer import Tokenizer

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
EDGES = 2  # special tokens around one text
KINDS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra")


@pytest.fixture(scope="module", params=KINDS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("tokenizer") / request.param, request.param, "trunk")
    return Library.from_file(str(folder / "tokenizer.json"))


@pytest.fixture
def short(library: Library) -> Tokenizer:
    return tokenizer_of(library, 12)


def tokenizer_of(library: Library, max_length: int) -> Tokenizer:
    plain: dict[str, Any] = json.loads(library.to_str()) | {"padding": None, "truncation": None}
    return Tokenizer(
        TokenizerFiles(Library.from_str(json.dumps(plain)), types=True, pad_id=0),
        vocabulary=library.get_vocab_size(),
        max_length=max_length,
    )


@given(text=TEXT)
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_gives_the_library_s_own_ids(library: Library, side: Any, text: str) -> None:
    library.no_padding()
    library.enable_truncation(12, direction=side)
    expected = library.encode(text)
    [row] = tokenizer_of(library, 12).encode([text], EncodeOptions(truncate=side))
    assert row.ids.tolist() == expected.ids
    assert row.types.tolist() == expected.type_ids
    library.no_truncation()
    assert row.cut == (len(library.encode(text)) > 12)


@given(query=TEXT, documents=st.lists(TEXT, min_size=1, max_size=4))
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_pair_gives_the_library_s_own_ids(library: Library, side: Any, query: str, documents: list[str]) -> None:
    tokenizer = tokenizer_of(library, 12)
    known: dict[str, Any] = {}
    rows = []
    for index, document in enumerate(documents):
        rows += tokenizer.encode([(query, document)], EncodeOptions(truncate=side), first=index, known=known)
    library.enable_truncation(12, strategy="longest_first", direction=side)
    expected = [library.encode(query, document) for document in documents]
    assert [row.ids.tolist() for row in rows] == [encoding.ids for encoding in expected]
    assert [row.types.tolist() for row in rows] == [encoding.type_ids for encoding in expected]


def test_a_query_is_encoded_once(library: Library) -> None:
    tokenizer = tokenizer_of(library, 32)
    known = {"query": Pieces([7, 7, 7])}  # a memory that encoding again would not give
    [row] = tokenizer.encode([("query", "document")], EncodeOptions(), known=known)
    assert row.ids.tolist().count(7) >= 3


def test_models_without_types_get_zeros(tiny_classifier: Path) -> None:
    library = Library.from_file(str(tiny_classifier / "tokenizer.json"))
    files = TokenizerFiles(library, types=False, pad_id=1)
    [row] = Tokenizer(files, vocabulary=library.get_vocab_size(), max_length=64).encode([("a", "b")], EncodeOptions())
    assert set(row.types) == {0}


def test_a_prompt_goes_before_the_text_and_is_counted(library: Library) -> None:
    tokenizer = tokenizer_of(library, 64)
    [row] = tokenizer.encode(["red fox"], EncodeOptions(prompt="query: "))
    [whole] = tokenizer.encode(["query: red fox"], EncodeOptions())
    assert row.ids == whole.ids
    [alone] = tokenizer.encode(["query: "], EncodeOptions())
    assert row.skip == len(alone.ids) - 1  # the last token is special


def test_given_ids_are_used_as_they_are(short: Tokenizer) -> None:
    [plain] = short.encode([[7, 8, 9]], EncodeOptions(special=False))
    assert plain.ids.tolist() == [7, 8, 9]
    assert len(short.encode(["fox"], EncodeOptions(special=False))[0].ids) > short.special_tokens()
    [wrapped] = short.encode([[7, 8, 9]], EncodeOptions())
    assert len(wrapped.ids) == 3 + short.special_tokens()
    [cut] = short.encode([list(range(5, 30))], EncodeOptions(special=False))
    assert (len(cut.ids), cut.cut) == (12, True)


@pytest.mark.parametrize("bad", [-1, 10**6, 10**30])
def test_ids_of_another_vocabulary_are_named(short: Tokenizer, bad: int) -> None:
    with pytest.raises(
        TokenOutOfRange, match=rf"token id {bad} of input 3 is outside this model's vocabulary of \d+ ids"
    ):
        short.encode([[5, bad]], EncodeOptions(), first=3)


def test_a_list_that_holds_no_ids_is_named(short: Tokenizer) -> None:
    with pytest.raises(InvalidInput, match="^input 3 is a list that holds a str; send a string, "):
        short.encode([[5, "fox"]], EncodeOptions(), first=3)  # type: ignore[list-item]


def test_over_long_input_is_refused_where_truncation_is_off(short: Tokenizer) -> None:
    with pytest.raises(InputTooLong, match=r"input 1 has \d+ tokens, the model takes 12; shorten it") as caught:
        short.encode(["fox", "fox " * 30], EncodeOptions(truncate=None))
    assert caught.value.limit == 12
    assert caught.value.size > 30


def test_a_huge_text_is_cut_by_characters_first(short: Tokenizer) -> None:
    text = "fox " * 1000
    [row] = short.encode([text], EncodeOptions())
    assert row.cut
    with pytest.raises(InputTooLong, match="input 0 has 4000 characters, the limit is 3000"):
        short.encode([text], EncodeOptions(truncate=None))


def test_a_lone_surrogate_is_not_text(short: Tokenizer) -> None:
    with pytest.raises(InvalidInput, match="input 0 is not Unicode text: it holds a lone surrogate at character 2"):
        short.encode(["ab\ud800"], EncodeOptions())


def test_second_tokens_bounds_a_document(library: Library) -> None:
    tokenizer = tokenizer_of(library, 64)
    [row] = tokenizer.encode([("fox", "fox " * 20)], EncodeOptions(second_tokens=3))
    [bare] = tokenizer.encode([("fox", "")], EncodeOptions())
    assert len(row.ids) == len(bare.ids) + 3
    assert row.cut


def test_an_empty_list_of_ids_is_refused(short: Tokenizer) -> None:
    with pytest.raises(EmptyInput, match="input 0 is an empty list of token ids"):
        short.encode([[]], EncodeOptions())


@given(text=TEXT)
def test_an_estimate_from_bytes_is_never_too_low(library: Library, text: str) -> None:
    assume(len(unicodedata.normalize("NFKC", text).encode()) <= len(text.encode()))
    tokenizer = tokenizer_of(library, 500)
    [row] = tokenizer.encode([text], EncodeOptions())
    assert most_tokens(tokenizer, text) >= len(row.ids)


def test_tokens_carry_byte_offsets(minilm: Path) -> None:
    library = Library.from_file(str(minilm / "tokenizer.json"))
    library.no_padding()
    library.no_truncation()
    tokenizer = Tokenizer(TokenizerFiles(library, True, 0), vocabulary=30522, max_length=256)
    text = "naïve 日本 fox"
    tokens = tokenizer.tokens(text)
    assert (tokens[0].text, tokens[0].special, tokens[0].start) == ("[CLS]", True, None)
    spans = [text.encode()[token.start : token.stop].decode() for token in tokens if token.start is not None]
    assert spans == ["naïve", "日", "本", "fox"]
    assert tokenizer.decode([token.id for token in tokens]) == "naive 日 本 fox"
    assert tokenizer.decode([101, 4419], skip_special=False) == "[CLS] fox"
    with pytest.raises(TokenOutOfRange):
        tokenizer.decode([40_000])


@given(text=TEXT, overlap=st.integers(0, 4))
def test_windows_are_those_of_the_library(library: Library, text: str, overlap: int) -> None:
    rows = tokenizer_of(library, 12).encode([text], EncodeOptions(overlap=overlap, truncate=None))
    library.no_padding()
    library.enable_truncation(12, stride=overlap)
    expected = library.encode(text)
    assert [row.ids.tolist() for row in rows] == [piece.ids for piece in (expected, *expected.overflowing)]
    library.no_truncation()
    assert not any(row.cut for row in rows)
    assert [row.first for row in rows] == [index * (12 - EDGES - overlap) for index in range(len(rows))]


@given(query=st.sampled_from(["", "fox", "a fox"]), text=TEXT)
def test_windows_of_a_pair_keep_the_first_text(library: Library, query: str, text: str) -> None:
    rows = tokenizer_of(library, 16).encode([(query, text)], EncodeOptions(overlap=2), first=3)
    library.no_padding()
    library.enable_truncation(16, stride=2, strategy="only_second")
    expected = library.encode(query, text)
    assert [row.ids.tolist() for row in rows] == [piece.ids for piece in (expected, *expected.overflowing)]
    assert {row.input for row in rows} == {3}
    library.no_truncation()


@given(text=TEXT, beside=st.none() | TEXT, prompt=st.sampled_from(["", "a fox: "]))
@pytest.mark.parametrize("whole", [False, True], ids=["second long", "first long"])
def test_windows_are_estimated_generously(
    library: Library, text: str, beside: str | None, prompt: str, whole: bool
) -> None:
    options = EncodeOptions(prompt=prompt, truncate=None, overlap=3, second_whole=whole)
    tokenizer = tokenizer_of(library, 24)
    for given_text in (text, beside or ""):  # else one character can become many tokens
        assume(len(unicodedata.normalize("NFKD", given_text)) == len(given_text))
    item = text if beside is None else (text, beside) if whole else (beside, text)
    known: dict[str, Pieces] = {}
    most = most_in_windows(tokenizer, item, options, known)
    try:
        rows = tokenizer.encode([item], options, known=known)
    except InputTooLong:  # no room beside a text that stands in all windows
        return
    assert most >= sum(len(row.ids) for row in rows)
    assert [row.ids for row in rows] == [row.ids for row in tokenizer.encode([item], options)]


@pytest.mark.parametrize(
    "question",
    ["Où est le café où l'on compte les moutons ?", "how many sheep does one count before one sleeps at last? " * 5],
)
def test_windows_beside_a_question_are_not_many_more_than_there_are(minilm: Path, question: str) -> None:
    """Neither beside one letter that is not ASCII nor beside a long question; by bytes alone it would be thousands."""
    tokenizer = tokenizer_of(Library.from_file(str(minilm / "tokenizer.json")), 256)
    options = EncodeOptions(truncate=None, overlap=128, window=256)
    item = question, "One, two, three: how many sheep are there, and who counts them? " * 100
    rows = tokenizer.encode([item], options)
    actual = sum(len(row.ids) for row in rows)
    assert actual <= most_in_windows(tokenizer, item, options, {}) < 8 * actual


def test_a_question_that_is_refused_reserves_little(short: Tokenizer) -> None:
    options = EncodeOptions(truncate=None, overlap=4)
    for question, kind in (("fox " * 9, InputTooLong), ("fox \udfff " * 9, InvalidInput)):
        assert most_in_windows(short, (question, "fox " * 1000), options, {}) < 12 * 1001
        with pytest.raises(kind):
            short.encode([(question, "fox " * 1000)], options)


def test_windows_need_room_beside_the_first_text(library: Library) -> None:
    with pytest.raises(InputTooLong, match="which must be more than the overlap of 4"):
        tokenizer_of(library, 12).encode([("fox " * 9, "fox " * 9)], EncodeOptions(overlap=4))


@given(text=TEXT)
def test_every_token_knows_its_characters_and_word(library: Library, text: str) -> None:
    prompt = "query: "
    for options in (EncodeOptions(aligned=True), EncodeOptions(aligned=True, prompt=prompt)):
        [row] = tokenizer_of(library, 1000).encode([text], options)
        assert row.alignment is not None
        expected = library.encode(options.prompt + text)
        shift = len(options.prompt)
        starts = [0 if special else max(start - shift, 0) for (start, _), special in spans(expected)]
        stops = [0 if special else max(stop - shift, 0) for (_, stop), special in spans(expected)]
        assert (row.alignment.starts.tolist(), row.alignment.stops.tolist()) == (starts, stops)
        assert row.alignment.texts.tolist() == [-special for special in expected.special_tokens_mask]
        assert row.alignment.words.tolist() == [-1 if word is None else word for word in expected.word_ids]


def spans(encoding: Any) -> list[tuple[tuple[int, int], int]]:
    return list(zip(encoding.offsets, encoding.special_tokens_mask, strict=True))

"""Late chunking: chunks pooled from a pass over the whole document, long documents in windows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TEXT, USABLE, change_json, tiny_checkpoint, write_json
from transformers import AutoModel, AutoTokenizer

from onepass import Encoder
from onepass.errors import EmptyInput, InputTooLong, InvalidInput, WrongTask
from onepass.tasks.embed_chunks import embed_chunks

CHUNKS = ["The miller counts sacks. ", "Cats sleep for ", "sixteen hours a day.\r\n", "Café 🎬 שלום!"]
LONG = [f"{sentence} " for line in TEXT for sentence in line.split(". ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("chunks"), "bert", "embed")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Iterator[Encoder]:
    with Encoder(folder, dtype="float32") as encoder:
        yield encoder


def by_hand(folder: Path, chunks: list[str], prompt: str = "") -> np.ndarray[Any, Any]:
    """The mean over each chunk's tokens of transformers' states for the whole text."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    encoded = tokenizer(prompt + "".join(chunks), return_tensors="pt", return_offsets_mapping=True)
    with torch.no_grad():
        states = model(encoded["input_ids"]).last_hidden_state[0]
    rows, start = [], len(prompt)
    for chunk in chunks:
        stop = start + len(chunk)
        inside = [start < end <= stop for _, end in encoded["offset_mapping"][0].tolist()]
        rows.append(torch.nn.functional.normalize(states[torch.tensor(inside)].mean(0), dim=0))
        start = stop
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "nomic_bert", "xlm-roberta"])
def test_chunks_are_pooled_from_the_whole_document(tmp_path: Path, family: str) -> None:
    folder = tiny_checkpoint(tmp_path, family, "embed")
    chunks = [chunk.replace("🎬 שלום", "naïve") for chunk in CHUNKS]
    with Encoder(folder, dtype="float32") as encoder:
        ((*rows,),) = encoder.embed_chunks([chunks])
        alone = encoder.embed(chunks)
    np.testing.assert_allclose(rows, by_hand(folder, chunks), atol=1e-4)
    assert np.abs(np.array(rows) - alone).max() > 0.01


def test_chunks_as_texts_and_as_characters_are_the_same(encoder: Encoder) -> None:
    text = "".join(CHUNKS)
    ends = np.cumsum([0, *map(len, CHUNKS)]).tolist()
    spans = list(pairwise(ends))
    texts, characters = encoder.embed_chunks([CHUNKS, (text, spans)])
    np.testing.assert_array_equal(texts, characters)
    some = [spans[2], spans[0], (spans[1][0], spans[2][1]), spans[0]]
    (chosen,) = encoder.embed_chunks([(text, some)])
    np.testing.assert_array_equal(chosen[[0, 1, 3]], texts[[2, 0, 0]])


def test_several_documents(encoder: Encoder) -> None:
    documents = [CHUNKS, ["Cats."], LONG, CHUNKS[::-1]]
    together = encoder.embed_chunks(documents)
    assert [rows.shape for rows in together] == [(len(document), 32) for document in documents]
    for rows, document in zip(together, documents, strict=True):
        np.testing.assert_array_equal(rows, encoder.embed_chunks([document])[0])
    drawn = encoder.embed_chunks(document for document in documents)
    assert all(map(np.array_equal, drawn, together))


def test_options_are_those_of_embed(encoder: Encoder) -> None:
    (plain,) = encoder.embed_chunks([CHUNKS])
    (cut,) = encoder.embed_chunks([CHUNKS], dimensions=8)
    np.testing.assert_allclose(cut, plain[:, :8] / np.linalg.norm(plain[:, :8], axis=1, keepdims=True), atol=1e-6)
    (bits,) = encoder.embed_chunks([CHUNKS], precision="ubinary")
    np.testing.assert_array_equal(bits, np.packbits(plain > 0, axis=1))
    (raw,) = encoder.embed_chunks([CHUNKS], normalize=False)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), plain, atol=1e-6)


def test_a_prompt_is_read_and_not_pooled(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "embed")
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "", "passage": "passage: "}})
    with Encoder(folder, dtype="float32") as encoder:
        (rows,) = encoder.embed_chunks([CHUNKS], input_type="document")
        np.testing.assert_array_equal(rows, encoder.embed_chunks([CHUNKS], prompt="passage: ")[0])
        np.testing.assert_allclose(rows, by_hand(folder, CHUNKS, "passage: "), atol=1e-4)
        (long,) = encoder.embed_chunks([LONG], prompt="passage: ")
        assert long.shape == (len(LONG), 32)


def test_long_documents_are_read_in_windows(folder: Path, encoder: Encoder) -> None:
    """Each chunk's vector is that of a window, read as a document, which begins some tokens before it."""
    ids = [token.id for token in encoder.tokenizer.tokens("".join(LONG), special=False)]
    sizes = [len(encoder.tokenizer.tokens(chunk, special=False)) for chunk in LONG]
    assert len(ids) == sum(sizes) > 3 * USABLE
    ends = np.cumsum([0, *sizes])
    (rows,) = encoder.embed_chunks([LONG], overlap=10)
    room = USABLE - 2
    model = AutoModel.from_pretrained(folder).eval()
    matched = []
    for chunk, row in enumerate(rows):
        first, stop = ends[chunk], ends[chunk + 1]
        found = []
        for start in range(max(0, stop - room), first + 1):
            window = [2, *ids[start : start + room], 3]
            with torch.no_grad():
                states = model(torch.tensor([window])).last_hidden_state[0]
            pooled = states[1 + first - start : 1 + stop - start].mean(0)
            found += [start] * np.allclose(torch.nn.functional.normalize(pooled, dim=0), row, atol=1e-5)
        assert len(found) == 1
        assert found[0] <= max(first - min(10, room - sizes[chunk]), 0)
        matched += found
    assert matched == sorted(matched)
    assert 4 <= len(set(matched)) < len(LONG)


def test_windows_are_counted_and_nothing_is_cut(encoder: Encoder) -> None:
    job = encoder.job()
    asyncio.run(embed_chunks(job, [LONG, CHUNKS]))
    assert (job.usage.inputs, job.usage.truncated) == (2, 0)
    assert job.usage.windows == len(job.usage.lengths) - 2 >= 3
    assert job.usage.characters == sum(map(len, LONG + CHUNKS))
    assert max(job.usage.lengths) == USABLE


def test_a_row_that_holds_a_chunk_exactly(encoder: Encoder) -> None:
    full = "cats " * (USABLE - 2)
    (rows,) = encoder.embed_chunks([["dogs ", full, "dogs"]])
    assert rows.shape == (3, 32)
    with pytest.raises(InputTooLong) as caught:
        encoder.embed_chunks([CHUNKS, ["dogs ", full + "cats ", "dogs"]])
    assert str(caught.value) == "chunk 1 of input 1 has 63 tokens, a row has room for 62; make chunks smaller"


@pytest.mark.parametrize(
    ("document", "kind", "sentence"),
    [
        ("Cats.", InvalidInput, "input 1 is a str; send a list of chunks, or a text and (start, stop) of each"),
        (3, InvalidInput, "input 1 is a int; send a list of chunks, or a text and (start, stop) of each"),
        ([], EmptyInput, "input 1 has no chunks; send at least one"),
        (["Cats", 3], InvalidInput, "chunk 1 of input 1 is a int; send a string"),
        (["Cats", " \n", "dogs"], EmptyInput, "chunk 1 of input 1 has no tokens; leave it out, or give it some text"),
        ((3, [(0, 1)]), InvalidInput, "the text of input 1 is a int; send a string"),
        (("Cats", []), EmptyInput, "input 1 has no chunks; send at least one"),
        (("Cats", 3), InvalidInput, "the chunks of input 1 are a int; send (start, stop) for each"),
        (
            ("Cats", [(0, 4), (2, 5)]),
            InvalidInput,
            "chunk 1 of input 1 is (2, 5); send (start, stop) in characters of a text of 4",
        ),
        (
            ("Cats", [(3, 1)]),
            InvalidInput,
            "chunk 0 of input 1 is (3, 1); send (start, stop) in characters of a text of 4",
        ),
        (
            ("Cats", [(0, 1.5)]),
            InvalidInput,
            "chunk 0 of input 1 is (0, 1.5); send (start, stop) in characters of a text of 4",
        ),
        (
            ["a\ud800b"],
            InvalidInput,
            "input 1 is not Unicode text: it holds a lone surrogate at character 1; send well-formed text",
        ),
    ],
)  # fmt: skip
def test_documents_that_cannot_be_read(
    encoder: Encoder, document: Any, kind: type[InvalidInput], sentence: str
) -> None:
    with pytest.raises(kind) as caught:
        encoder.embed_chunks([CHUNKS, document])
    assert (type(caught.value), str(caught.value)) == (kind, sentence)


def test_an_overlap_that_leaves_no_room(encoder: Encoder) -> None:
    with pytest.raises(InvalidInput, match="^overlap is 62 tokens, a row here has 62; choose 0 or more and less"):
        encoder.embed_chunks([CHUNKS], overlap=62)


def test_a_model_that_pools_one_token(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "embed")
    change_json(folder / "1_Pooling" / "config.json", pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    with Encoder(folder) as encoder, pytest.raises(WrongTask) as caught:
        encoder.embed_chunks([CHUNKS])
    assert str(caught.value) == "this model pools first; chunks need one that pools all tokens, as mean does"

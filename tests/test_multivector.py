"""A vector per token, and their comparison, as sentence-transformers' multi-vector encoder has them."""

from __future__ import annotations

import asyncio
import json
import string
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import ENGINES
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from tiny import (
    MARKERS,
    TEXT,
    USABLE,
    Family,
    bge_m3_checkpoint,
    change_json,
    colbert_checkpoint,
    redraw,
    refused,
    tiny_checkpoint,
    tiny_tokenizer,
    write_json,
)
from tokenizers import AddedToken
from transformers import AutoModel, AutoTokenizer

from onepass import Encoder
from onepass.errors import (
    BadCheckpoint,
    BadSetting,
    EmptyInput,
    InputTooLong,
    InvalidInput,
    UnsupportedOption,
    WrongTask,
)
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.row import Ask
from onepass.tasks.multivector import late_interaction, max_similarity, multivector

QUERIES = ["cats?", "who wrote the letter, and when", TEXT[3] + " " + TEXT[4]]
DOCUMENTS = [*TEXT[:3], "Café: 🎬\r\nשלום, (yes)!", "[unused0] [MASK] ...", " ".join(TEXT)]


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoder]:
    with Encoder(colbert_checkpoint(tmp_path_factory.mktemp("models") / "colbert"), dtype="float32") as encoder:
        yield encoder


def modules(trunk: Path, *, skip: list[str] | None = None, tasks: Any = None, **options: Any) -> list[torch.nn.Module]:
    """sentence-transformers' own chain over a trunk; options: of its Transformer module."""
    transformer = Transformer(str(trunk), **options)
    dense = Dense(
        transformer.get_embedding_dimension(),
        12,
        bias=False,
        activation_function=torch.nn.Identity(),
        module_input_name="token_embeddings",
    )
    redraw(dense, seed=2)
    mask = MultiVectorMask(skip, skiplist_tasks=tasks)
    return [transformer, dense, mask, Normalize(module_input_name="token_embeddings")]


def check(folder: Path, engine: str = "native") -> Encoder:
    """Queries and documents as sentence-transformers encodes them, and its scores."""
    theirs = MultiVectorEncoder(str(folder), device="cpu")
    encoder = Encoder(folder, engine=engine, dtype="float32")
    asked, given = (
        [vectors.numpy() for vectors in encode(texts)]
        for encode, texts in ((theirs.encode_query, QUERIES), (theirs.encode_document, DOCUMENTS))
    )
    queries, documents = encoder.multivector(QUERIES, input_type="query"), encoder.multivector(iter(DOCUMENTS))
    for ours, wanted in zip([*queries, *documents], [*asked, *given], strict=True):
        assert ours.shape == wanted.shape
        assert ours.dtype == np.float32
        assert np.allclose(ours, wanted, atol=1e-4)
    wanted = theirs.similarity(asked, given).numpy()
    scores = [encoder.max_similarity(query, documents) for query in queries]
    assert np.allclose(scores, wanted, rtol=1e-4, atol=1e-5)  # of sums of cosines, of which one may come near 0
    return encoder


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("attend", [False, True])
def test_stanford(tmp_path: Path, attend: bool, engine: str) -> None:
    folder = colbert_checkpoint(tmp_path / "model", attend_to_mask_tokens=attend)
    encoder = check(folder, engine)
    assert encoder.multivector("cats?", input_type="query").shape == (14, 12)
    assert encoder.checkpoint.prompts == {"query": "[unused0] ", "document": "[unused1] "}
    plain = colbert_checkpoint(tmp_path / "plain", mask_punctuation=False, query_maxlen=None, doc_maxlen=None)
    assert check(plain).multivector("cats, dogs.").shape[0] == encoder.multivector("cats, dogs.").shape[0] + 2


FIXED = {"strategy": "fixed", "length": 14}
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # options of modules(), options of the encoder
    "nothing said": ({}, {}),
    "filled up": (
        {"query_expansion": FIXED, "document_length": 40, "skip": list(string.punctuation)},
        {"prompts": {"query": "query: ", "document": "to be found: "}},
    ),
    "seen": ({"query_expansion": {**FIXED, "attend": True}, "skip": ["the", ".", "nowhere at all"]}, {}),
    "at least": (
        {"query_expansion": {"strategy": "min", "length": 9}, "tasks": ["query", "document"], "skip": ["?", ","]},
        {"similarity_fn_name": "meanmaxsim"},
    ),
    "at least and at most": (
        {"query_expansion": {"strategy": "min", "length": 9}, "query_length": 20, "tasks": "query", "skip": ["?"]},
        {"prompts": {"query": "cats "}},
    ),
    "other token": ({"query_expansion": {**FIXED, "token": "the"}}, {}),
    "short": ({"query_length": 10, "document_length": 60}, {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_sentence_transformers(tmp_path: Path, form: str) -> None:
    options, outer = FORMS[form]
    trunk = tiny_checkpoint(tmp_path / "trunk", "bert", "trunk")
    theirs = MultiVectorEncoder(modules=modules(trunk, **options), device="cpu", **outer)
    theirs.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    check(tmp_path / "model")


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "modernbert", "distilbert", "mpnet", "qwen3"])
def test_families(tmp_path: Path, family: Family) -> None:
    trunk = tiny_checkpoint(tmp_path / "trunk", family, "trunk")
    chain = modules(trunk, query_expansion=FIXED, document_length=50, skip=[".", ",", "Ġ."])
    MultiVectorEncoder(modules=chain, device="cpu").save_pretrained(str(tmp_path / "model"), create_model_card=False)
    check(tmp_path / "model")


def pylate(folder: Path, trunk: Path, **said: Any) -> Path:
    """The files that PyLate writes around a trunk: no mask, no Normalize, everything else in one file."""
    theirs = MultiVectorEncoder(modules=modules(trunk)[:2], device="cpu")
    theirs.save_pretrained(str(folder), create_model_card=False)
    listed = json.loads((folder / "modules.json").read_text())
    listed[1]["type"] = "pylate.models.Dense.Dense"
    write_json(folder / "modules.json", listed)
    change_json(folder / listed[1]["path"] / "config.json", module_input_name=None, module_output_name=None)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 39, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", {"model_type": "ColBERT", **said})
    return folder


SAID: dict[str, dict[str, Any]] = {
    "as usual": {"query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 14, "document_length": 40},
    "first version": {"query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 20},
    "seen": {"query_prefix": "[Q] ", "attend_to_expansion_tokens": True, "skiplist_words": ["the", "."]},
    "not filled up": {"query_prefix": "no marker: ", "do_query_expansion": False, "query_length": 12},
    "prompts": {
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "prompts": {"query": "[Q] ask: ", "document": "find: "},
        "similarity_fn_name": "MaxSim",
    },
}


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_pylate(tmp_path: Path, family: Family, said: str) -> None:
    tokenizer = tiny_tokenizer(family)
    size = tokenizer.get_vocab_size()
    trunk = tiny_checkpoint(tmp_path / "trunk", family, "trunk", vocab_size=size + 2)
    tokenizer.add_tokens([AddedToken("[Q] "), AddedToken("[D] ")])
    tokenizer.save(str(trunk / "tokenizer.json"))
    folder = pylate(tmp_path / "model", trunk, **SAID[said])
    if said == "first version":
        change_json(folder / "config_sentence_transformers.json", model_type=None)
    encoder = check(folder)
    if "document_prefix" in SAID[said]:
        assert encoder.tokenizer.encode(["cats"], EncodeOptions(prompt="[Q] "))[0].ids[1] == size


@pytest.mark.parametrize("engine", ENGINES)
def test_bge_m3(tmp_path: Path, engine: str) -> None:
    """As FlagEmbedding has it: colbert_linear of all states but the first, normalised; scores are means."""
    folder = bge_m3_checkpoint(tmp_path / "model")
    auto: Any = AutoModel
    trunk, tokenizer = auto.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)
    layer = torch.load(folder / "colbert_linear.pt", weights_only=True)

    def vectors(text: str) -> torch.Tensor:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=USABLE)["input_ids"]
        with torch.no_grad():
            states = trunk(ids).last_hidden_state[0, 1:] @ layer["weight"].T + layer["bias"]
        return torch.nn.functional.normalize(states, dim=-1)

    with Encoder(folder, engine=engine, dtype="float32") as encoder:
        for ours, wanted in zip(encoder.multivector(DOCUMENTS), map(vectors, DOCUMENTS), strict=True):
            assert np.allclose(ours, wanted, atol=1e-4)
        query = encoder.multivector(QUERIES[0], input_type="query")
        assert np.allclose(query, vectors(QUERIES[0]), atol=1e-4)
        scores = encoder.max_similarity(query, encoder.multivector(DOCUMENTS))
        expected = [(vectors(QUERIES[0]) @ vectors(text).T).max(dim=1).values.mean() for text in DOCUMENTS]
        assert np.allclose(scores, expected, rtol=1e-4)
        assert encoder.tasks[-1] == "multivector"


def test_late_interaction_compares_a_query_with_many_documents(colbert: Encoder) -> None:
    documents = [f"{text} {number}" for number in range(7) for text in TEXT]
    job = colbert.job()
    scores = asyncio.run(late_interaction(job, "cats?", iter(documents)))
    query = colbert.multivector("cats?", input_type="query")
    assert scores == pytest.approx(
        [(query @ colbert.multivector(text).T).max(axis=1).sum() for text in documents], rel=1e-5
    )
    assert len(job.usage.lengths) == 1 + len(documents)
    assert asyncio.run(max_similarity(colbert.job(), query, [])) == []


def test_long_documents_are_read_in_windows_and_the_best_one_counts(colbert: Encoder) -> None:
    documents = [" ".join(TEXT), TEXT[3]]
    job = colbert.job()
    scores = asyncio.run(late_interaction(job, "giraffes?", documents, options=EncodeOptions(overlap=8, window=30)))
    assert job.usage.windows == len(job.usage.lengths) - 3 > 5
    assert max(job.usage.lengths) == 30

    def score(ids: list[int]) -> float:
        """Of a row given token by token."""
        ((vectors,),) = asyncio.run(colbert.job().run([ids], Ask("multivector"), options=EncodeOptions(special=False)))
        sides = colbert.checkpoint.multivector
        assert sides is not None
        compared = vectors[[id not in sides.document.without for id in ids]]
        return colbert.max_similarity(colbert.multivector("giraffes?", input_type="query"), [compared])[0]

    cls, marker, *_, sep = colbert.tokenizer.encode([MARKERS[1] + " a"], EncodeOptions())[0].ids
    for text, found in zip(documents, scores, strict=True):
        words = [token.id for token in colbert.tokenizer.tokens(text, special=False)]
        starts = range(0, max(len(words) - 8, 1), 30 - 3 - 8)
        windows = [[cls, marker, *words[start : start + 27], sep] for start in starts]
        assert found == pytest.approx(max(map(score, windows)), rel=1e-5)


def test_comparing_takes_little_memory_beside_the_vectors(colbert: Encoder) -> None:
    draw = np.random.default_rng(0)
    documents = list(draw.standard_normal((1000, 64, 16), np.float32))
    query = draw.standard_normal((32, 16), np.float32)
    tracemalloc.start()
    colbert.max_similarity(query, documents)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < sum(document.nbytes for document in documents) / 8


def test_vectors_of_tokens_beside_other_heads(tmp_path: Path, colbert: Encoder) -> None:
    with Encoder(bge_m3_checkpoint(tmp_path / "model"), dtype="float32") as encoder:
        texts = DOCUMENTS[:2]
        for text, found in zip(texts, encoder.run(texts, ["multivector", "embed"]), strict=True):
            assert np.allclose(found["multivector"], encoder.multivector(text), atol=1e-6)
            assert np.allclose(found["embed"], encoder.embed(text), atol=1e-6)
    with pytest.raises(WrongTask, match="head 'multivector' reads documents behind a marker"):
        colbert.run("cats", ["multivector"])


def test_a_row_is_filled_up_beside_rows_that_are_not(colbert: Encoder) -> None:
    alone = [colbert.multivector(text, input_type="query") for text in QUERIES]
    together = colbert.multivector(QUERIES, input_type="query")
    assert [len(vectors) for vectors in together] == [14, 14, 14]
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_tokens_left_out_are_seen(colbert: Encoder) -> None:
    bare, dotted = colbert.multivector(["cats sleep", "cats sleep ..."])
    assert bare.shape == dotted.shape
    assert not np.allclose(bare, dotted, atol=1e-2)


def test_what_is_cut_is_reported_or_refused(colbert: Encoder) -> None:
    job = colbert.job()
    asyncio.run(multivector(job, QUERIES, input_type="query"))
    assert (job.usage.truncated, [*job.usage.lengths]) == (1, [14, 14, 14])
    with pytest.raises(InputTooLong, match="the model takes 14"):
        colbert.multivector(QUERIES, input_type="query", truncate=None)
    with pytest.raises(InputTooLong, match="the model takes 40"):
        colbert.multivector(DOCUMENTS, truncate=None)


def test_what_cannot_be_asked(colbert: Encoder, tiny_embedder: Path) -> None:
    with pytest.raises(InvalidInput, match="input_type 'passage' is unknown; choose document, query"):
        colbert.multivector("cats", input_type="passage")  # type: ignore[call-overload]
    with pytest.raises(InvalidInput, match="the marker of a query or document is there"):
        colbert.multivector("cats", truncate="left")
    with pytest.raises(EmptyInput, match="input 1 is empty"):
        colbert.multivector(["cats", ""])
    with pytest.raises(InvalidInput, match="input 0 is a list; send a string"):
        colbert.multivector([[1, 2]])  # type: ignore[list-item]
    with Encoder(tiny_embedder) as embedder, pytest.raises(WrongTask, match="cannot multivector"):
        embedder.multivector("cats")
    vectors = colbert.multivector("cats")
    for query, documents, words in [
        (vectors[0], [vectors], r"the query has the shape \[12\]"),
        (vectors[:0], [vectors], r"the query has the shape \[0, 12\]"),
        (vectors, [vectors, vectors[:, :5]], r"document 1 has the shape \[4, 5\]; send \[1 or more vectors, 12"),
        (vectors, ["cats"], "document 0 is not an array of numbers"),
    ]:
        with pytest.raises(InvalidInput, match=words):
            colbert.max_similarity(query, documents)  # type: ignore[arg-type]


def test_a_limit_of_the_callers_own_is_that_of_documents(tmp_path: Path) -> None:
    folder = colbert_checkpoint(tmp_path / "model")
    with Encoder(folder, max_length=60) as encoder:
        assert encoder.tokenizer.max_length == 60
        assert encoder.multivector(QUERIES[2], input_type="query").shape[0] == 14
        assert encoder.multivector(DOCUMENTS[-1].replace(".", "")).shape[0] > 40
    assert refused(folder, BadSetting, max_length=13) == (
        "queries are filled up to 14 tokens, but a row may have only 13"
    )
    change_json(folder / "artifact.metadata", query_maxlen=65)
    assert "filled up to 65 tokens, but a row may have only 64" in refused(folder, BadCheckpoint)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"query_maxlen": "many"}, "artifact.metadata sets query_maxlen to"),
        ({"attend_to_mask_tokens": 1}, "attend_to_mask_tokens"),
        ({"query_token_id": 7}, "query_token_id"),
        ({"similarity": "l2"}, 'sets similarity to "l2", which is not implemented'),
    ],
)
def test_files_that_say_what_cannot_be(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = colbert_checkpoint(tmp_path / "model", **changes)
    assert words in refused(folder, UnsupportedOption if "similarity" in changes else BadCheckpoint)


def test_what_fills_queries_up_must_be_there(tmp_path: Path) -> None:
    trunk = tiny_checkpoint(tmp_path / "trunk", "deberta-v2", "trunk")
    for name, options in {"plain": {}, "seen": {"attend": True}}.items():
        chain = modules(trunk, query_expansion={**FIXED, **options})
        theirs = MultiVectorEncoder(modules=chain, device="cpu")
        theirs.save_pretrained(str(tmp_path / name), create_model_card=False)
    assert "DeBERTa's code masks in its own way" in refused(tmp_path / "plain", UnsupportedOption)
    check(tmp_path / "seen")
    settings = tmp_path / "seen" / "sentence_bert_config.json"
    change_json(settings, query_expansion={**FIXED, "token": "elsewhere"})
    assert "the token 'elsewhere', which the tokenizer does not have" in refused(tmp_path / "seen", BadCheckpoint)
    for expansion in ("yes", {"length": 3, "strategy": "fixed", "colour": "red"}):
        change_json(settings, query_expansion=expansion)
        assert "query_expansion" in refused(tmp_path / "seen", BadCheckpoint)
    change_json(settings, query_expansion={**FIXED, "strategy": "max"})
    assert 'sets strategy to "max"' in refused(tmp_path / "seen", UnsupportedOption)
    change_json(settings, query_expansion=FIXED)
    change_json(tmp_path / "seen" / "tokenizer_config.json", padding_side="left")
    assert 'sets padding_side to "left"' in refused(tmp_path / "seen", UnsupportedOption)

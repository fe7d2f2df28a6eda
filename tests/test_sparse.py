"""Sparse vectors: sentence-transformers' SparseEncoder in all its forms, and BGE-M3's lexical weights."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from running import ENGINES
from safetensors.torch import save_file
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder import modules
from tiny import TEXT, Family, change_json, refused, splade_checkpoint, tiny_checkpoint, write_json
from transformers import AutoModel

from onepass import Encoder
from onepass.errors import (
    BadCheckpoint,
    EmptyInput,
    InputTooLong,
    InvalidInput,
    OnepassError,
    UnsupportedOption,
    WrongTask,
)
from onepass.schedule.fit import EncodeOptions
from onepass.tasks.sparse import SparseVector, TokenWeight, sparse

TEXTS = [*TEXT[:4], "a", "Café 🎬\r\nשלום the the the", " ".join(TEXT)]
"""Short and long, the last one cut."""


def check(ours: Sequence[SparseVector], theirs: torch.Tensor, model: SparseEncoder) -> None:
    """theirs: one row per text. Same weights, and the same order but among equals."""
    for vector, row in zip(ours, theirs.to_dense().numpy(), strict=True):
        dense = np.zeros_like(row)
        dense[vector.ids] = vector.weights
        assert np.allclose(dense, row, atol=1e-4)
        assert (np.diff(vector.weights) <= 0).all()
        decoded: Any = model.decode(torch.from_numpy(row))
        assert vector.weights.tolist() == pytest.approx([weight for _, weight in decoded], rel=1e-5, abs=1e-4)
        assert sorted(map(str, vector.tokens())) == sorted(str(token) for token, _ in decoded)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "modernbert"])
def test_a_masked_language_model_is_read_as_splade(tmp_path: Path, family: Family, engine: str) -> None:
    folder = tiny_checkpoint(tmp_path / "model", family, "fill")
    model = SparseEncoder(str(folder))
    with Encoder(folder, engine=engine, dtype="float32") as encoder:
        assert {"sparse", "fill", "embed"} <= {*encoder.tasks}
        check(encoder.sparse(TEXTS), model.encode_document(TEXTS), model)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_splade_pooling(
    tmp_path: Path, pooling: Literal["max", "sum"], activation: Literal["relu", "log1p_relu"], engine: str
) -> None:
    folder = splade_checkpoint(tmp_path / "model", pooling=pooling, activation=activation)
    model = SparseEncoder(str(folder))
    with Encoder(folder, engine=engine, dtype="float32") as encoder:
        assert encoder.tasks == ["sparse"]
        check(encoder.sparse(TEXTS), model.encode_document(TEXTS), model)
        check(encoder.sparse(TEXTS, input_type="query"), model.encode_query(TEXTS), model)
        check(encoder.sparse(TEXTS, top_k=7), model.encode(TEXTS, max_active_dims=7), model)


@pytest.fixture(scope="module")
def asymmetric(tiny_splade: Path) -> Any:
    with Encoder(tiny_splade, dtype="float32") as encoder:
        yield encoder


def test_queries_by_a_table(asymmetric: Encoder, tiny_splade: Path) -> None:
    model = SparseEncoder(str(tiny_splade))
    check(asymmetric.sparse(TEXTS, input_type="query"), model.encode_query(TEXTS), model)
    check(asymmetric.sparse(TEXTS, input_type="query", top_k=3), model.encode_query(TEXTS, max_active_dims=3), model)
    check(asymmetric.sparse(TEXTS), model.encode_document(TEXTS), model)
    query, documents = "Where does the river run?", TEXTS[:4]
    products = [asymmetric.sparse(query, input_type="query").dot(document) for document in asymmetric.sparse(documents)]
    expected = model.similarity(model.encode_query([query]), model.encode_document(documents))
    assert products == pytest.approx(expected[0].tolist(), abs=1e-3)


def saved(folder: Path, **options: Any) -> tuple[Path, SparseEncoder]:
    """A masked language model behind a Router, as sentence-transformers saves it; `options` are the Router's."""
    document = modules.Transformer(
        str(tiny_checkpoint(folder / "trunk", "distilbert", "fill")), transformer_task="fill-mask"
    )
    weights = torch.randn(400, generator=torch.Generator().manual_seed(0))  # trained ones may be below 0
    ways = {
        "query": [modules.SparseStaticEmbedding(document.tokenizer, weight=weights)],
        "document": [document, modules.SpladePooling("sum")],
    }
    prompts = {"query": "find ", "document": "of "}
    model = SparseEncoder(modules=[modules.Router(ways, **options)], prompts=prompts, max_active_dims=9)
    model.save_pretrained(str(folder / "saved"))
    return folder / "saved", model


def test_what_sentence_transformers_saves(tmp_path: Path) -> None:
    """Prompts, a limit of weights, and weights below 0 among it."""
    folder, model = saved(tmp_path)
    with Encoder(folder, dtype="float32") as encoder:
        check(encoder.sparse(TEXTS), model.encode_document(TEXTS), model)
        assert len(encoder.sparse(TEXTS[0], top_k=400)) > 9
        bare = encoder.sparse(TEXTS[0], prompt="", top_k=400)
        check([bare], model.encode_document([TEXTS[0]], prompt="", max_active_dims=400), model)
        queries = encoder.sparse(TEXTS, input_type="query")
        for query, row in zip(queries, model.encode_query(TEXTS).to_dense().numpy(), strict=True):
            assert {*query.ids.tolist()} == {*np.flatnonzero(row).tolist()}
            assert query.weights.tolist() == pytest.approx(row[query.ids].tolist(), abs=1e-6)
            assert (np.diff(abs(query.weights)) <= 0).all()


@pytest.mark.parametrize(
    "change",
    [
        "as saved",
        "an older name",
        "mappings by task",
        "mappings by modality",
        "modality alone",
        "older names of modules",
    ],
)
def test_ways_of_a_router(tiny_splade: Path, asymmetric: Encoder, tmp_path: Path, change: str) -> None:
    folder = shutil.copytree(tiny_splade, tmp_path / "model")
    router = json.loads((folder / "router_config.json").read_text())
    document, query = router["structure"]["document"], router["structure"]["query"]
    if change == "an older name":
        change_type(folder / "modules.json", "sentence_transformers.models.Asym")
    if change == "mappings by task":
        router["structure"] = {"a": document, "b": query}
        router["parameters"]["route_mappings"] = {"('query', None)": "b", "(None, None)": "a"}
    if change == "mappings by modality":
        router["structure"] = {"text": document, "b": query}
        router["parameters"]["route_mappings"] = {"('query', 'text')": "b", "(None, ('image', 'text'))": "b"}
    if change == "modality alone":
        router["structure"] = {"text": document}
    if change == "older names of modules":
        models = "sentence_transformers.sparse_encoder.models"
        router["types"][""] = f"{models}.MLMTransformer"
        router["types"][document[1]] = f"{models}.SpladePooling"
        change_json(folder / "sentence_bert_config.json", transformer_task=None)
    write_json(folder / "router_config.json", router)
    model = SparseEncoder(str(folder))
    with Encoder(folder, dtype="float32") as encoder:
        check(encoder.sparse(TEXTS), model.encode_document(TEXTS), model)
        check(encoder.sparse(TEXTS, input_type="query"), model.encode_query(TEXTS), model)
        same = [vector.ids.tolist() for vector in asymmetric.sparse(TEXTS)]
        assert [vector.ids.tolist() for vector in encoder.sparse(TEXTS)] == same


def change_type(path: Path, name: str) -> None:
    entries = json.loads(path.read_text())
    write_json(path, [entry | {"type": name} for entry in entries])


def test_a_router_in_a_folder_of_its_own_as_it_was_saved_at_first(tiny_splade: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_splade, folder / "0_Asym")
    for name in ("modules.json", "config_sentence_transformers.json"):
        shutil.move(folder / "0_Asym" / name, folder / name)
    trunk = folder / "0_Asym" / "document_0_Transformer"
    trunk.mkdir()
    for file in [file for file in trunk.parent.iterdir() if file.is_file() and file.name != "router_config.json"]:
        shutil.move(file, trunk / file.name)
    router = json.loads((trunk.parent / "router_config.json").read_text())
    router["types"][trunk.name] = router["types"].pop("")
    router["structure"]["document"][0] = trunk.name
    write_json(trunk.parent / "config.json", router)
    (trunk.parent / "router_config.json").unlink()
    entry = {"idx": 0, "name": "0", "path": "0_Asym", "type": "sentence_transformers.models.Asym"}
    write_json(folder / "modules.json", [entry])
    model = SparseEncoder(str(folder))
    with Encoder(folder, dtype="float32") as encoder:
        check(encoder.sparse(TEXTS), model.encode_document(TEXTS), model)
        check(encoder.sparse(TEXTS, input_type="query"), model.encode_query(TEXTS), model)


def test_a_table_in_json(tiny_splade: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(tiny_splade, tmp_path / "model")
    table = folder / "query_0_SparseStaticEmbedding"
    (table / "model.safetensors").unlink()
    write_json(table / "config.json", {"frozen": True, "path": "idf.json"})
    write_json(folder / "idf.json", {"the": 0.25, "train": 5, "[CLS]": 3.0})
    monkeypatch.chdir(folder)  # where sentence-transformers looks for it
    model = SparseEncoder(str(folder))
    with Encoder(folder) as encoder:
        check(encoder.sparse(TEXTS, input_type="query"), model.encode_query(TEXTS), model)
        (train,) = encoder.sparse("unheard-of train [SEP]", input_type="query")
        assert (train.token, train.weight) == ("train", 5.0)
    write_json(folder / "idf.json", {"Zeitgeist": 1.0})
    assert refused(folder, BadCheckpoint) == "idf.json weighs 'Zeitgeist', which is no token of " + table.name
    (folder / "idf.json").unlink()
    assert "names the file 'idf.json', which is not in" in refused(folder, BadCheckpoint)


def test_queries_need_no_forward_pass(asymmetric: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the engine ran")

    monkeypatch.setattr(asymmetric.engine, "run", fail)
    assert len(asymmetric.sparse("cats train", input_type="query")) == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_lexical_weights(tiny_bge_m3: Path, engine: str) -> None:
    with Encoder(tiny_bge_m3, engine=engine, dtype="float32") as encoder:
        assert encoder.tasks == ["embed", "similarity", "rerank", "sparse", "multivector"]
        layer = torch.load(tiny_bge_m3 / "sparse_linear.pt", weights_only=True)
        vectors = encoder.sparse(TEXTS)
        for text, vector in zip(TEXTS, vectors, strict=True):
            ids = encoder.tokenizer.encode([text], EncodeOptions())[0].ids
            states = hidden_states(tiny_bge_m3, ids)
            weights = torch.relu(states @ layer["weight"].T + layer["bias"])[:, 0].tolist()
            best: dict[int, float] = {}
            for id, weight in zip(ids, weights, strict=True):
                if id > 3 and weight > best.get(id, 0):
                    best[id] = weight
            assert dict(zip(vector.ids.tolist(), vector.weights.tolist(), strict=True)) == pytest.approx(best, abs=1e-4)
            assert (np.diff(vector.weights) <= 0).all()
        assert any(map(len, vectors))
        assert [len(vector) for vector in encoder.sparse([" ", "</s>"])] == [0, 0]


def test_beside_other_heads(tiny_bge_m3: Path) -> None:
    with Encoder(tiny_bge_m3, dtype="float32") as encoder:
        both = encoder.run(TEXTS, ["embed", "sparse"])
        assert [[*answers["sparse"]] for answers in both] == [[*vector] for vector in encoder.sparse(TEXTS)]
        assert np.array_equal([answers["embed"] for answers in both], encoder.embed(TEXTS))


def hidden_states(folder: Path, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = AutoModel.from_pretrained(folder).eval()(torch.tensor([list(ids)])).last_hidden_state[0]
    return found


def test_fewer_weights(asymmetric: Encoder) -> None:
    for input_type in ("document", "query"):
        whole = asymmetric.sparse(TEXT[0], input_type=input_type)
        middle = float(whole.weights[5])
        fewer = asymmetric.sparse(TEXT[0], input_type=input_type, threshold=middle)
        assert [*fewer] == [one for one in whole if one.weight > middle] == [*whole][: len(fewer)]
        assert [*asymmetric.sparse(TEXT[0], input_type=input_type, threshold=middle, top_k=3)] == [*whole][:3]
        assert len(asymmetric.sparse(TEXT[0], input_type=input_type, threshold=1e9)) == 0


def test_a_vector(asymmetric: Encoder) -> None:
    one = asymmetric.sparse("train train cats", input_type="query")
    assert (str(one.ids.dtype), str(one.weights.dtype)) == ("int32", "float32")
    assert {*one.tokens()} == {"train", "cats"}
    assert next(iter(one)) == TokenWeight(one.tokens()[0], int(one.ids[0]), float(one.weights[0]))
    assert one.dot(one) == pytest.approx(float((one.weights**2).sum()))
    assert one.dot(asymmetric.sparse("seven", input_type="query")) == 0
    assert "tokenizer" not in repr(one)


def test_rows_of_the_matrix_that_are_no_tokens(tmp_path: Path) -> None:
    with Encoder(tiny_checkpoint(tmp_path / "model", "bert", "fill", vocab_size=408)) as encoder:
        named = {one.id: one.token for text in encoder.sparse(TEXT) for one in text}
        assert {id for id, token in named.items() if token is None} == {id for id in named if id >= 400} != set()


def test_inputs_of_every_kind(asymmetric: Encoder) -> None:
    for input_type in ("document", "query"):
        texts = [text for text in TEXT for _ in range(9)]
        found = asymmetric.sparse(iter(texts), input_type=input_type)
        again = asyncio.run(asymmetric.asparse(texts, input_type=input_type))
        assert [[*vector] for vector in found] == [[*vector] for vector in again]
        assert len(found) == len(texts)


def test_what_was_read_is_counted(asymmetric: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    job = asymmetric.job()
    asyncio.run(sparse(job, ["cats train", TEXTS[-1]], input_type="query"))
    assert [*job.usage.lengths] == [2, 64]
    assert (job.usage.tokens, job.usage.truncated, job.usage.characters) == (66, 1, 10 + len(TEXTS[-1]))
    asymmetric.sparse(TEXTS[-1], input_type="query")
    assert "1 of 1 inputs were cut" in caplog.text


def test_what_is_asked_wrongly(asymmetric: Encoder, tiny_embedder: Path) -> None:
    cases: list[tuple[type[Exception], str, Any, dict[str, Any]]] = [
        (InvalidInput, "top_k is 0; ask for at least 1", "a", {"top_k": 0}),
        (InvalidInput, "threshold is -1; give a number from 0 on", "a", {"threshold": -1}),
        (InvalidInput, "threshold is nan; give a number from 0 on", "a", {"threshold": float("nan")}),
        (InvalidInput, "input_type 'passage' is unknown; choose document or query", "a", {"input_type": "passage"}),
        (InvalidInput, "prompt 'x' is not a prompt name of this model", "a", {"prompt": "x"}),
        (InvalidInput, "input 1 is a int; send a string", ["a", 3], {}),
        (EmptyInput, "input 1 is empty; send some text", ["a", ""], {}),
        (EmptyInput, "the input is an empty list", [], {}),
        (InputTooLong, "input 0 has", TEXTS[-1], {"truncate": None}),
        (WrongTask, "this model has no head 'embed' that can sparse", "a", {"head": "embed"}),
    ]
    for kind, sentence, texts, options in cases:
        for input_type in ("document", "query"):
            with pytest.raises(kind, match=sentence):
                asymmetric.sparse(texts, **{"input_type": input_type, **options})
    with pytest.raises(EmptyInput, match="input 0 has no tokens; send some text"):
        asymmetric.sparse(" ", input_type="query")
    with Encoder(tiny_embedder) as encoder, pytest.raises(WrongTask, match="this model cannot sparse"):
        encoder.sparse("a")


ROUTES: dict[str, tuple[dict[str, Any], type[OnepassError], str]] = {
    "no route for queries": (
        {"structure": {"document": ["", "document_1_SpladePooling"]}},
        UnsupportedOption,
        "router_config.json has no route for a text that is a query; it has document",
    ),
    "another way for queries": (
        {"structure": {"document": ["", "document_1_SpladePooling"], "query": [""]}},
        UnsupportedOption,
        "router_config.json sends queries through Transformer; only the way of documents and SparseStaticEmbedding are "
        "implemented",
    ),
    "no type": (
        {"structure": {"document": ["1_Dense"]}},
        BadCheckpoint,
        "router_config.json names modules in the route 'document' that it gives no type",
    ),
    "no routes": (
        {"structure": None},
        BadCheckpoint,
        "router_config.json sets structure to null, but it must be an object of lists of module names",
    ),
    "outside": (
        {"types": {"../x": "Transformer"}, "structure": {"document": ["../x"]}},
        BadCheckpoint,
        "router_config.json points outside the checkpoint with the path '../x'",
    ),
    "documents by a table": (
        {"structure": {"text": ["query_0_SparseStaticEmbedding"]}},
        UnsupportedOption,
        "modules.json begins with SparseStaticEmbedding; only a Transformer module can come first",
    ),
}


@pytest.mark.parametrize("name", ROUTES)
def test_routers_that_cannot_be_read(tiny_splade: Path, tmp_path: Path, name: str) -> None:
    changes, kind, sentence = ROUTES[name]
    folder = shutil.copytree(tiny_splade, tmp_path / "model")
    change_json(folder / "router_config.json", **changes)
    assert refused(folder, kind) == sentence


def test_modules_that_cannot_be_read(tiny_splade: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_splade, tmp_path / "model")
    table, pooling = folder / "query_0_SparseStaticEmbedding", folder / "document_1_SpladePooling"
    save_file({"weight": torch.zeros(2, 200)}, table / "model.safetensors")
    assert (
        refused(folder, BadCheckpoint)
        == f"{table.name} holds weights of shape [2, 200]; there must be one for each token"
    )
    change_json(pooling / "config.json", pooling_strategy="mean")
    assert refused(folder, UnsupportedOption).startswith(f'{pooling.name}/config.json sets pooling_strategy to "mean"')
    change_json(pooling / "config.json", pooling_strategy="max", activation_function="gelu")
    assert 'sets activation_function to "gelu"' in refused(folder, UnsupportedOption)
    (folder / "router_config.json").unlink()
    assert refused(folder, BadCheckpoint).startswith("router_config.json cannot be read")
    model = tiny_checkpoint(tmp_path / "t5", "t5", "trunk")
    shutil.copytree(pooling, model / "1_SpladePooling")
    types = [("", "MLMTransformer"), ("1_SpladePooling", "SpladePooling")]
    write_json(model / "modules.json", [{"path": path, "type": kind} for path, kind in types])
    write_json(model / "1_SpladePooling" / "config.json", {})
    assert refused(model, UnsupportedOption) == "modules.json needs scores for masked tokens, which t5 has not"

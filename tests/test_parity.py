"""Loaded checkpoints give the numbers of transformers and sentence-transformers, family by family, head by head."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from running import ENGINES, STATES, encode, error, every_engine, run, start
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tiny import KINDS, TEXT, USABLE, Family, change_json, redraw, refused, tiny_checkpoint, write_json

from onepass.errors import UnsupportedOption
from onepass.model.checkpoint import load_checkpoint
from onepass.model.families import FAMILIES

LIMIT = 1e-4
LENGTHS = (1, 2, 3, 17, USABLE)
TEXTS = [TEXT[0][:60], "Why?", TEXT[7][:50], "one two ", "Ångström-öl, don't!"]
PAIRS = [(TEXT[2][:40], TEXT[3][:60]), ("Why?", "Because."), (TEXT[9][:30], "no")]

families = pytest.mark.parametrize("family", list(KINDS))
classifiers = pytest.mark.parametrize(
    "family", [family for family in KINDS if callable(FAMILIES[family].heads.get("classify"))]
)
engines = pytest.mark.parametrize("engine", ENGINES)
auto: Any = transformers  # whose from_pretrained carries no types


def random_rows(family: Family, vocabulary: int, types: int | None = None) -> tuple[list[list[int]], list[list[int]]]:
    """A row of each length, and one with pad tokens in its middle, which move RoBERTa's positions.

    types: how many token types there are, where that is not the family's usual.
    """
    draw = np.random.default_rng(0)
    rows = [[int(token) for token in draw.integers(5, vocabulary, length)] for length in LENGTHS]
    pad = 0 if KINDS[family].vocabulary == "wordpiece" else 1
    rows.append([*rows[3][:5], pad, pad, *rows[3][5:]])
    if types is None:
        types = KINDS[family].config.get("type_vocab_size", 1)
    return rows, [[int(kind) for kind in draw.integers(0, max(types, 1), len(row))] for row in rows]


def reference(model: Any, ids: list[int], types: list[int], **more: Any) -> Any:
    """transformers on one row alone, so that no neighbour and no padding can touch it."""
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long), **more}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.tensor([types])
    with torch.inference_mode():
        return model(**inputs)


def trunk(folder: Path) -> Any:
    """The model alone, or the encoder of a model that has a decoder, too."""
    model = auto.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    return model.get_encoder() if model.config.is_encoder_decoder else model


@families
def test_trunk(tmp_path: Path, family: Family) -> None:
    folder = tiny_checkpoint(tmp_path, family, "trunk")
    checkpoint = load_checkpoint(folder)
    model = trunk(folder)
    rows, types = random_rows(family, checkpoint.spec.embed.vocab)
    theirs = [reference(model, ids, kinds).last_hidden_state[0] for ids, kinds in zip(rows, types, strict=True)]
    for name, engine in every_engine(checkpoint):
        together = run(engine, STATES.kind, rows, types)
        for ours, expected in zip(together, theirs, strict=True):
            assert error(ours, expected) < LIMIT, f"{name}, {len(expected)} tokens"
        for ours, ids, kinds in zip(together, rows, types, strict=True):  # test_native.py asks for the same bits
            if name == "torch":
                assert error(ours, run(engine, STATES.kind, [ids], [kinds])[0]) < 1e-5, f"alone, {len(ids)} tokens"


@engines
@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "gelu_10", "quick_gelu", "relu", "relu2", "silu", "tanh"])
def test_activations(tmp_path: Path, name: str, engine: str) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "trunk", hidden_act=name)
    checkpoint = load_checkpoint(folder)
    model = auto.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    rows, types = random_rows("bert", checkpoint.spec.embed.vocab)
    states = run(start(engine, checkpoint), STATES.kind, rows, types)
    for ours, ids, kinds in zip(states, rows, types, strict=True):
        assert error(ours, reference(model, ids, kinds).last_hidden_state[0]) < LIMIT


@classifiers
def test_classifier_logits(tmp_path: Path, family: Family) -> None:
    labels = ("a", "b", "c")
    folder = tiny_checkpoint(tmp_path, family, "classify", labels=labels)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.heads["classify"].labels == labels
    model = auto.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    rows, types = random_rows(family, checkpoint.spec.embed.vocab)
    theirs = [reference(model, ids, kinds).logits for ids, kinds in zip(rows, types, strict=True)]
    for name, engine in every_engine(checkpoint):
        logits = run(engine, "classify", rows, types, finish="none")
        # label by label over all rows: a single logit may happen to be near 0
        assert error(np.concatenate(logits).T, np.concatenate(theirs).T) < LIMIT, name


@engines
@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (("a", "b", "c"), "single_label_classification"),
        (("a", "b", "c"), None),
        (("a", "b", "c"), "multi_label_classification"),
        (("a", "b", "c"), "regression"),
        (("only",), None),
        (("only",), "regression"),
    ],
)
def test_classifier_scores_are_those_of_the_pipeline(
    tmp_path: Path, labels: tuple[str, ...], problem: str | None, engine: str
) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "classify", labels=labels)
    change_json(folder / "config.json", problem_type=problem)
    checkpoint = load_checkpoint(folder)
    scores = run(start(engine, checkpoint), "classify", *encode(checkpoint, TEXTS))
    pipeline: Any = transformers.pipeline("text-classification", model=str(folder), top_k=None)
    for ours, theirs in zip(scores, pipeline(TEXTS), strict=True):
        by_name = {item["label"]: item["score"] for item in theirs}
        assert error(ours[0], [by_name[label] for label in labels]) < LIMIT


@classifiers
def test_cross_encoder(tmp_path: Path, family: Family) -> None:
    folder = tiny_checkpoint(tmp_path, family, "rerank")
    checkpoint = load_checkpoint(folder)
    theirs = CrossEncoder(str(folder)).predict(PAIRS, batch_size=1)
    for engine in ENGINES:
        scores = run(start(engine, checkpoint), "classify", *encode(checkpoint, PAIRS))
        assert error(np.concatenate(scores)[:, 0], theirs) < LIMIT, engine


@pytest.mark.parametrize("name", ["Identity", "Sigmoid"])
@pytest.mark.parametrize("place", ["saved", "nested", "old"])
def test_cross_encoder_activation(tmp_path: Path, name: str, place: str) -> None:
    folder = tiny_checkpoint(tmp_path / "plain", "bert", "rerank")
    dotted = f"torch.nn.modules.{'linear' if name == 'Identity' else 'activation'}.{name}"
    if place == "saved":
        CrossEncoder(str(folder), activation_fn=getattr(torch.nn, name)()).save(str(tmp_path / "saved"))
        folder = tmp_path / "saved"
    elif place == "nested":
        change_json(folder / "config.json", sentence_transformers={"activation_fn": dotted})
    else:
        change_json(folder / "config.json", sbert_ce_default_activation_function=dotted)
    checkpoint = load_checkpoint(folder)
    scores = run(start("reference", checkpoint), "classify", *encode(checkpoint, PAIRS))
    assert error(np.concatenate(scores)[:, 0], CrossEncoder(str(folder)).predict(PAIRS, batch_size=1)) < LIMIT


def save(folder: Path, *modules: Any, family: Family = "bert", **options: Any) -> tuple[Path, SentenceTransformer]:
    """A tiny trunk followed by `modules`, their parameters redrawn, as sentence-transformers itself writes it."""
    trunk = tiny_checkpoint(folder / "trunk", family, "trunk")
    for seed, module in enumerate(modules):
        redraw(module, seed + 1)
    model = SentenceTransformer(modules=[st.Transformer(str(trunk)), *modules], **options)
    model.save(str(folder / "saved"))
    return folder / "saved", SentenceTransformer(str(folder / "saved"))


def embed(folder: Path, engine: str = "reference", texts: list[str] = TEXTS, skip: int = 0) -> NDArray[np.float32]:
    checkpoint = load_checkpoint(folder)
    rows = np.concatenate(run(start(engine, checkpoint), "embed", *encode(checkpoint, texts), skip=skip))
    assert rows.shape == (len(texts), checkpoint.dimensions)
    return rows


MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@engines
@pytest.mark.parametrize("modes", [*MODES, ("max", "cls"), ("mean", "lasttoken", "weightedmean")])
def test_pooling(tmp_path: Path, modes: Any, engine: str) -> None:
    folder, model = save(tmp_path, st.Pooling(32, modes))
    assert error(embed(folder, engine), model.encode(TEXTS)) < LIMIT


@pytest.mark.parametrize(
    "flags", [["cls_token"], ["mean_sqrt_len_tokens"], ["lasttoken", "cls_token", "max_tokens"], []]
)
def test_pooling_in_its_old_spelling(tmp_path: Path, flags: list[str]) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "embed")
    names = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    pooling = {f"pooling_mode_{name}": name in flags for name in names}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **pooling})
    assert error(embed(folder), SentenceTransformer(str(folder)).encode(TEXTS, batch_size=1)) < LIMIT


@engines
@pytest.mark.parametrize("modes", MODES)
def test_pooling_without_the_prompt(tmp_path: Path, modes: Any, engine: str) -> None:
    prompt = "search query: "
    folder, model = save(tmp_path, st.Pooling(32, modes, include_prompt=False), prompts={"query": prompt})
    checkpoint = load_checkpoint(folder)
    assert checkpoint.prompts["query"] == prompt
    assert checkpoint.heads["embed"].pool.skip_prompt
    skip = len(encode(checkpoint, [prompt])[0][0]) - 1  # its last token is [SEP]
    ours = embed(folder, engine, [prompt + text for text in TEXTS], skip)
    assert error(ours, model.encode(TEXTS, prompt_name="query")) < LIMIT


DENSE: dict[str, dict[str, Any]] = {
    "tanh": {"in_features": 32, "out_features": 24},
    "identity, no bias": {
        "in_features": 32,
        "out_features": 48,
        "bias": False,
        "activation_function": torch.nn.Identity(),
    },
    "gelu": {"in_features": 32, "out_features": 8, "activation_function": torch.nn.GELU()},
    "residual": {"in_features": 32, "out_features": 32, "use_residual": True},
    "projected residual": {"in_features": 32, "out_features": 24, "use_residual": True},
}


@engines
@pytest.mark.parametrize("kind", DENSE)
def test_dense(tmp_path: Path, kind: str, engine: str) -> None:
    folder, model = save(tmp_path, st.Pooling(32, "mean"), st.Dense(**DENSE[kind]), st.Normalize())
    assert error(embed(folder, engine), model.encode(TEXTS)) < LIMIT


def test_dense_that_names_no_activation_is_tanh(tmp_path: Path) -> None:
    folder, _ = save(tmp_path, st.Pooling(32, "mean"), st.Dense(32, 24, activation_function=torch.nn.Identity()))
    change_json(folder / "2_Dense" / "config.json", activation_function=None)
    assert error(embed(folder), SentenceTransformer(str(folder)).encode(TEXTS, batch_size=1)) < LIMIT


@engines
def test_every_module_at_once(tmp_path: Path, engine: str) -> None:
    folder, model = save(
        tmp_path,
        st.Dense(32, 40, module_input_name="token_embeddings"),
        st.Pooling(40, ("max", "mean")),
        st.Dense(80, 48),
        st.Dropout(0.5),
        st.LayerNorm(48),
        st.Normalize(),
        st.Dense(48, 16, activation_function=torch.nn.Identity()),
        st.Normalize(),
        family="roberta",
    )
    assert error(embed(folder, engine), model.encode(TEXTS)) < LIMIT


@engines
def test_truncation_after_the_modules_does_not_normalise_again(tmp_path: Path, engine: str) -> None:
    folder, model = save(tmp_path, st.Pooling(32, "mean"), st.Normalize(), truncate_dim=12)
    ours = embed(folder, engine)
    assert ours.shape[1] == 12
    assert error(ours, model.encode(TEXTS)) < LIMIT


OTHERWISE = {
    "bart": "sentence-transformers runs the decoder, too",
    "mbart": "sentence-transformers runs the decoder, too",
    "m2m_100": "sentence-transformers loads the encoder without its word table, whose name differs",
}
"""Families whose plain models sentence-transformers reads otherwise."""


@pytest.mark.parametrize("family", [family for family in KINDS if family not in OTHERWISE])
def test_without_modules_the_mean_is_taken(tmp_path: Path, family: Family) -> None:
    folder = tiny_checkpoint(tmp_path, family, "trunk")
    checkpoint = load_checkpoint(folder)
    assert checkpoint.notes == ("There is no Pooling module: vectors are the mean over tokens, not normalised.",)
    assert error(embed(folder), SentenceTransformer(str(folder)).encode(TEXTS, batch_size=1)) < LIMIT


@engines
def test_all_minilm(minilm: Path, engine: str) -> None:
    texts = [*TEXT, " ".join(TEXT)[:600]]
    theirs = SentenceTransformer(str(minilm)).encode(texts)
    assert np.abs(embed(minilm, engine, texts) - theirs).max() < 1e-5


def test_an_encoder_cut_out_of_a_translation_model(tmp_path: Path) -> None:
    model = trunk(tiny_checkpoint(tmp_path / "whole", "m2m_100", "trunk"))
    shutil.copytree(tmp_path / "whole", tmp_path / "encoder")
    model.save_pretrained(tmp_path / "encoder")  # without prefixes
    assert error(embed(tmp_path / "encoder"), SentenceTransformer(str(tmp_path / "encoder")).encode(TEXTS)) < LIMIT
    assert error(embed(tmp_path / "encoder"), embed(tmp_path / "whole")) == 0


def test_a_bart_of_sentence_transformers_is_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bart", "embed")
    assert refused(folder, UnsupportedOption) == (
        "modules.json makes a bart model an embedder: it reads the decoder's states, and only the encoder runs here"
    )

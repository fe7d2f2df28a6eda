"""A classifier's labels as categories: their scores, thresholds and windows, and where the table comes from."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import LABELS, TEXT

from onepass import Encoder
from onepass.errors import BadSetting, EmptyInput, InvalidInput, WrongTask
from onepass.schedule.row import Ask
from onepass.server.serve import load, moderation_of
from onepass.settings import ModelSettings, ServerSettings, resolve
from onepass.tasks.moderate import moderate

TABLE: dict[str, Any] = {"mood": ["joy", "surprise"], "harm": {"labels": ["anger", "fear"], "threshold": 0.9}}
LONG = " ".join(TEXT)


@pytest.fixture(scope="module")
def several(tiny_multilabel: Path) -> Iterator[Encoder]:
    """Any of four labels may hold."""
    with Encoder(tiny_multilabel, dtype="float32", moderation=TABLE) as encoder:
        yield encoder


@pytest.fixture(scope="module")
def one(tiny_classifier: Path) -> Iterator[Encoder]:
    """One of three labels holds."""
    with Encoder(tiny_classifier, dtype="float32") as encoder:
        yield encoder


def test_a_category_scores_as_its_largest_label_where_any_may_hold(several: Encoder) -> None:
    assert several.tasks == ["classify", "moderate"]
    texts = [text[:end] for text in TEXT for end in range(1, len(text), 5)]
    for found, labels in zip(several.moderate(texts), map(dict, several.classify(texts)), strict=True):
        expected = {"mood": max(labels["joy"], labels["surprise"]), "harm": max(labels["anger"], labels["fear"])}
        assert found.scores == expected  # to the last bit
        assert found.categories == {"mood": found.scores["mood"] >= 0.5, "harm": found.scores["harm"] >= 0.9}
        assert found.flagged == any(found.categories.values())


def test_labels_of_a_category_add_up_where_one_holds(one: Encoder) -> None:
    table = {"not good": ["negative", "neutral"], "all": [*LABELS["classify"], "neutral"]}
    for found, labels in zip(one.moderate(TEXT, categories=table), map(dict, one.classify(TEXT)), strict=True):
        assert found.scores == pytest.approx({"not good": 1 - labels["positive"], "all": 1}, abs=1e-6)
        assert found.categories["all"] is True


def test_a_category_applies_from_its_threshold_on(several: Encoder) -> None:
    score = several.moderate(TEXT[0]).scores["mood"]
    for threshold, flagged in ((score, True), (score + 1e-6, False)):
        table = {"mood": {"labels": ["joy", "surprise"], "threshold": threshold}}
        assert several.moderate(TEXT[0], categories=table).flagged is flagged


def test_the_worst_window_counts(several: Encoder) -> None:
    job = several.job()
    (found,) = asyncio.run(moderate(job, [LONG], window=20, overlap=4))
    ids = [token.id for token in several.tokenizer.tokens(LONG, special=False)]
    pieces = [ids[start : start + 18] for start in range(0, len(ids) - 4, 14)]
    assert (job.usage.truncated, job.usage.windows) == (0, len(pieces) - 1)
    labels = np.concatenate([values for (values,) in asyncio.run(several.job().run(pieces, Ask("classify")))])
    assert found.scores["mood"] == pytest.approx(labels[:, [0, 3]].max(), abs=1e-6)
    cut = several.job()
    (beginning,) = asyncio.run(moderate(cut, [LONG], long="cut"))
    assert cut.usage.truncated == 1
    assert beginning == several.moderate(" ".join(TEXT[:9]), long="cut")
    whole = several.moderate(LONG)
    assert all(whole.scores[name] >= score - 1e-6 for name, score in beginning.scores.items())


@pytest.mark.parametrize(
    ("table", "kind", "sentence"),
    [
        (["joy"], InvalidInput, "categories is a list; send an object of lists of labels"),
        ({}, EmptyInput, "categories is empty; name at least one"),
        ({"": ["joy"]}, InvalidInput, "category '' is no name; send some text"),
        ({"mood": "joy"}, InvalidInput, "category 'mood' is a str; send a list of labels"),
        ({"mood": []}, EmptyInput, "category 'mood' has no labels; name at least one"),
        (
            {"mood": ["joy", "envy"]},
            InvalidInput,
            "category 'mood' has the label 'envy', which this model has not; it has joy, anger, fear, surprise",
        ),
        ({"mood": {"threshold": 0.1}}, InvalidInput, "category 'mood' is a NoneType; send a list of labels"),
        (
            {"mood": {"labels": ["joy"], "threshold": "high"}},
            InvalidInput,
            "category 'mood' has the threshold 'high'; it must be a number",
        ),
        (
            {"mood": {"labels": ["joy"], "least": 0.1}},
            InvalidInput,
            "category 'mood' has the key 'least'; it takes labels and threshold",
        ),
    ],
)
def test_tables_that_are_refused(
    several: Encoder, tiny_multilabel: Path, table: Any, kind: type[InvalidInput], sentence: str
) -> None:
    with pytest.raises(kind) as caught:
        several.moderate("fox", categories=table)
    assert str(caught.value) == sentence
    with pytest.raises(BadSetting, match=f"^moderation: {re.escape(sentence)}$"):
        Encoder(tiny_multilabel, moderation=table)


def test_labels_are_not_guessed_at(one: Encoder, tiny_embedder: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        one.moderate("fox")
    assert str(caught.value) == (
        "nothing says which of this model's labels (negative, neutral, positive) make up which category; give "
        "categories, or load it with a table moderation"
    )
    with Encoder(tiny_embedder) as encoder, pytest.raises(WrongTask, match="^this model cannot moderate; it can embed"):
        encoder.moderate("fox", categories=TABLE)
    with pytest.raises(BadSetting, match="^moderation: this model cannot moderate; it can embed"):
        Encoder(tiny_embedder, moderation=TABLE)


def test_the_settings_file_has_the_table(tmp_path: Path, tiny_multilabel: Path, tiny_classifier: Path) -> None:
    file = tmp_path / "onepass.toml"
    file.write_text(
        "port = 9000\n[moderation]\n"
        "mood = ['joy', 'surprise']\nharm = { labels = ['anger', 'fear'], threshold = 0.9 }\n"
    )
    settings = resolve(ModelSettings, {}, {}, file)
    assert settings.moderation == TABLE
    assert resolve(ServerSettings, {}, {}, file).port == 9000
    encoders = load({"a": tiny_multilabel}, settings, ServerSettings())
    assert encoders["a"].moderate("fox").scores.keys() == TABLE.keys()
    file.write_text("[moderation.a]\nmood = ['joy']\n")
    settings = resolve(ModelSettings, {}, {}, file)
    encoders |= load({"a": tiny_multilabel, "b": tiny_classifier}, settings, ServerSettings())
    assert [encoder.tasks[-1] for encoder in encoders.values()] == ["moderate", "classify"]
    for encoder in encoders.values():
        encoder.close()
    file.write_text("moderation = 3\n")
    with pytest.raises(BadSetting, match=r"moderation = 3: it must be a table, \[moderation\]$"):
        resolve(ModelSettings, {}, {}, file)


def test_several_models_have_a_table_each() -> None:
    with pytest.raises(BadSetting) as caught:
        moderation_of(["a", "b"], {"mood": ["joy"]})
    assert str(caught.value) == (
        "moderation has the key 'mood'; with several models it holds a table for each: [moderation.a], [moderation.b]"
    )

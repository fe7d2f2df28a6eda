"""Checkpoints with several heads of their own, said by onepass_heads.json."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import SEVERAL, change_json, heads_checkpoint, refused, tiny_checkpoint, write_json
from transformers import AutoModel

from onepass import Encoder
from onepass.errors import BadCheckpoint, LeftoverTensor, MissingTensor
from onepass.model.checkpoint import load_checkpoint
from onepass.model.heads import L2, HeadSpec, Linear, Pool, Truncate
from onepass.model.own_heads import FILE, OwnHeads, read_heads, write_heads

TEXT = "Cats sleep for sixteen hours a day."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return heads_checkpoint(tmp_path_factory.mktemp("heads"))


def test_every_field_survives_the_file(tmp_path: Path) -> None:
    odd = HeadSpec(
        "embed",
        Pool(("last_not_pad", "max"), pad_id=0, skip_prompt=True),
        per_token=(L2(),),
        per_row=(Linear("odd.0.weight", residual="odd.0.residual", activation="tanh"), Truncate(3)),
    )
    lexical = HeadSpec("sparse", Pool(("max_by_token",), without=(0, 2)), per_token=(Linear("lexical.0.weight"),))
    heads = {**SEVERAL, "odd": odd, "lexical": lexical}
    defaults, moderation = {"classify": "mood", "moderate": "harm"}, {"harm": {"labels": ["toxic"], "threshold": 0.4}}
    write_heads(tmp_path, heads, defaults=defaults, moderation=moderation)
    assert (own := read_heads(tmp_path)) == OwnHeads(heads, defaults, moderation)
    assert list(own.heads) == list(heads)
    write_heads(tmp_path, heads)
    assert read_heads(tmp_path) == OwnHeads(heads)
    assert json.loads((tmp_path / FILE).read_text())["heads"]["mood"] == {
        "kind": "classify",
        "pool": {"kinds": ["first"]},
        "per_row": [{"step": "linear", "weight": "mood.0.weight", "bias": "mood.0.bias"}],
        "finish": "softmax",
        "labels": ["negative", "neutral", "positive"],
        "pairs": False,
    }


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / FILE).write_text(example)
    own = read_heads(tmp_path)
    assert own is not None
    assert [head.kind for head in own.heads.values()] == ["embed", "classify"]
    assert (own.defaults, own.moderation) == ({"classify": "sentiment", "labels": "embed"}, {"negative": ["negative"]})


def test_no_file(tmp_path: Path) -> None:
    assert read_heads(tmp_path) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_heads_read_the_trunk_as_torch_does(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    folder = heads_checkpoint(tmp_path, family, dtype=dtype)
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    trunk = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with Encoder(folder, dtype="float32", engine="reference") as encoder, torch.no_grad():
        ids = torch.tensor([[token.id for token in encoder.tokenizer.tokens(TEXT)]])
        states = trunk(ids).last_hidden_state[0]
        moods = dict(encoder.classify(TEXT, head="mood"))
        harm = dict(encoder.classify(TEXT, head="harm"))
        tokens = encoder.tag(TEXT, head="entities", aggregation="none", ignore_labels=[])
        vector = encoder.embed(TEXT)
    expected = torch.softmax(states[0] @ weights["mood.0.weight"].T + weights["mood.0.bias"], -1)
    np.testing.assert_allclose([moods[label] for label in SEVERAL["mood"].labels], expected, atol=1e-5)
    expected = torch.sigmoid(states.mean(0) @ weights["harm.0.weight"].T + weights["harm.0.bias"])
    np.testing.assert_allclose(harm["toxic"], expected[0], atol=1e-5)
    best = torch.softmax(states @ weights["entities.0.weight"].T + weights["entities.0.bias"], -1).max(-1)
    np.testing.assert_allclose([token.score for token in tokens], best.values[1:-1], atol=1e-5)
    assert [SEVERAL["entities"].labels.index(token.label) for token in tokens] == best.indices[1:-1].tolist()
    pooled = states.mean(0) @ weights["embed.0.weight"].T + weights["embed.0.bias"]
    np.testing.assert_allclose(vector, torch.nn.functional.normalize(pooled, dim=0), atol=1e-5)


def test_a_tagger_says_how_its_tokens_are_joined_unless_the_caller_does(tmp_path: Path) -> None:
    folder = heads_checkpoint(tmp_path)
    with Encoder(folder) as encoder:
        simple, surest = (encoder.tag(TEXT, aggregation=joining) for joining in ("simple", "max"))
        assert encoder.tag(TEXT) == simple != surest
    write_heads(folder, SEVERAL | {"entities": replace(SEVERAL["entities"], aggregation="max")})
    with Encoder(folder) as encoder:
        assert encoder.tag(TEXT) == surest
        assert encoder.tag(TEXT, aggregation="simple") == simple


def test_widths_are_each_heads_own(folder: Path) -> None:
    loaded = load_checkpoint(folder)
    assert list(loaded.heads) == list(SEVERAL)
    assert {name: loaded.widths[name] for name in ("embed", "mood", "harm", "entities")} == {
        "embed": 16,
        "mood": 3,
        "harm": 1,
        "entities": 5,
    }
    assert loaded.dimensions == 16


def test_prompts_and_lengths_come_from_the_files_that_always_say_them(tmp_path: Path) -> None:
    folder = heads_checkpoint(tmp_path)
    saved = {"prompts": {"query": "q: ", "document": ""}, "default_prompt_name": "document", "truncate_dim": 8}
    write_json(folder / "config_sentence_transformers.json", saved)
    change_json(folder / "tokenizer_config.json", model_max_length=20)
    loaded = load_checkpoint(folder)
    assert (loaded.prompts, loaded.default_prompt) == ({"query": "q: ", "document": ""}, "document")
    assert (loaded.max_length, loaded.dimensions) == (20, 8)


def test_the_file_says_all_heads_whatever_the_architecture_and_the_modules_say(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "embed")
    write_heads(folder, {"plain": HeadSpec("embed", Pool(("first",)))})
    assert list(load_checkpoint(folder).heads) == ["plain"]


def nested(given: Any, *keys: Any) -> Any:
    for key in keys:
        given = given[key]
    return given


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda file: file.update(heads=[]), "sets heads to [], but it must be an object of heads by name"),
        (lambda file: file["heads"].clear(), "sets heads to {}, but it must be an object of heads by name"),
        (
            lambda file: file.update(version=2),
            "has the key 'version', which is not known; known are heads, defaults, moderation",
        ),
        (
            lambda file: file.update(defaults={"feel": "mood"}),
            ": defaults has the task 'feel'; it may have embed, classify, tag, answer, fill, sparse, multivector, "
            "moderate, rerank, log_probs, labels",
        ),
        (
            lambda file: file.update(defaults={"classify": "entities"}),
            ": defaults names the head 'entities' for classify; those that fit are mood, harm, inference, relevance",
        ),
        (
            lambda file: file.update(defaults={"tag": 3}),
            'sets defaults to {"tag": 3}, but it must be an object of strings',
        ),
        (
            lambda file: file.update(moderation=[]),
            "sets moderation to [], but it must be an object of labels by category",
        ),
        (lambda file: file["heads"].update(mood=3), ": head 'mood' is a int, but it must be an object"),
        (
            lambda file: file["heads"]["mood"].update(temperature=2),
            ": head 'mood' has the key 'temperature', which is not known; known are kind, pool, per_token, per_row, "
            "finish, labels, sparse, pairs, aggregation",
        ),
        (
            lambda file: file["heads"]["mood"].update(aggregation="max"),
            ": head 'mood' of the kind 'classify' joins no tokens, so that it has no aggregation",
        ),
        (
            lambda file: file["heads"]["entities"].update(aggregation="none"),
            ": head 'entities': aggregation is \"none\": invalid enum value 'none'",
        ),
        (lambda file: file["heads"]["mood"].pop("pool"), ": head 'mood' lacks the key 'pool'"),
        (
            lambda file: file["heads"]["mood"]["pool"].update(stride=2),
            ": head 'mood': pool has the key 'stride', which is not known; known are kinds, pad_id, skip_prompt, "
            "without",
        ),
        (
            lambda file: file["heads"]["mood"]["pool"].update(kinds=["median"]),
            ": head 'mood': pool: kinds is [\"median\"]: invalid enum value 'median' - at `$[0]`",
        ),
        (
            lambda file: file["heads"]["mood"].update(labels="good"),
            ": head 'mood': labels is \"good\": expected `array`, got `str`",
        ),
        (
            lambda file: file["heads"]["mood"].update(per_row={}),
            ": head 'mood': per_row is a dict, but it must be a list of steps",
        ),
        (
            lambda file: nested(file, "heads", "mood", "per_row", 0).update(step="dropout"),
            ": head 'mood': per_row[0] is the step \"dropout\", which is not known; known are linear, activation, "
            "norm, vocabulary, l2, truncate",
        ),
        (
            lambda file: file["heads"]["mood"].update(per_row=["l2"]),
            ": head 'mood': per_row[0] is the step \"l2\", which is not known; known are linear, activation, norm, "
            "vocabulary, l2, truncate",
        ),
        (
            lambda file: nested(file, "heads", "mood", "per_row", 0).update(scale=2),
            ": head 'mood': per_row[0] has the key 'scale', which is not known; known are weight, bias, residual, "
            "activation",
        ),
        (
            lambda file: file["heads"]["mood"].update(kind="regress"),
            ": head 'mood' is of the kind 'regress', which is not known; known are embed, classify, tag, answer, fill, "
            "next, sparse, multivector",
        ),
        (
            lambda file: file["heads"]["mood"]["pool"].update(kinds=["tokens"]),
            ": head 'mood' pools tokens, but of the kind 'classify' it must give one row for each text",
        ),
        (
            lambda file: file["heads"]["entities"]["pool"].update(kinds=["first"]),
            ": head 'entities' pools first, but of the kind 'tag' it must give every token",
        ),
        (
            lambda file: file["heads"]["embed"]["pool"].update(kinds=[]),
            ": head 'embed' pools nothing, but of the kind 'embed' it must give one row for each text",
        ),
        (
            lambda file: file["heads"]["sparse"].update(sparse=False),
            ": head 'sparse' pools max, but of the kind 'sparse' it must give one row for each text",
        ),
        (
            lambda file: file["heads"]["fill"]["per_token"].pop(),
            ": head 'fill' is of the kind 'fill', so that its last step per token must be vocabulary",
        ),
        (
            lambda file: file["heads"]["mood"].pop("labels"),
            ": head 'mood' has the labels none, but of the kind 'classify' it needs different labels",
        ),
        (
            lambda file: file["heads"]["mood"].update(labels=["a", "b", "a"]),
            ": head 'mood' has the labels a, b, a, but of the kind 'classify' it needs different labels",
        ),
        (
            lambda file: file["heads"]["embed"].update(labels=["a"]),
            ": head 'embed' has the labels a, but of the kind 'embed' it needs none",
        ),
        (
            lambda file: file["heads"]["answer"].update(labels=["begin", "end"]),
            ": head 'answer' has the labels begin, end, but of the kind 'answer' they must be start, end",
        ),
        (
            lambda file: file["heads"]["embed"]["per_row"].append({"step": "truncate", "width": 0}),
            ": head 'embed' truncates to a width of 0; it must be at least 1",
        ),
        (
            lambda file: nested(file, "heads", "fill", "per_token", 2, "spec").update(eps=0),
            ": head 'fill' has a norm whose eps is 0.0; it must be above 0",
        ),
    ],
)  # fmt: skip
def test_a_file_that_says_what_is_not_known(
    folder: Path, tmp_path: Path, change: Callable[[Any], Any], sentence: str
) -> None:
    file = json.loads((folder / FILE).read_text())
    change(file)
    write_json(tmp_path / FILE, file)
    with pytest.raises(BadCheckpoint) as caught:
        read_heads(tmp_path)
    colon = "" if sentence.startswith(":") else " "
    assert str(caught.value) == FILE + colon + sentence


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    folder = heads_checkpoint(tmp_path)
    whole = load_file(folder / "model.safetensors")

    def saved(**changes: torch.Tensor | None) -> None:
        tensors = whole | {name.replace("__", "."): tensor for name, tensor in changes.items()}
        kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        save_file(kept, folder / "model.safetensors")

    saved(mood__0__bias=None)
    assert refused(folder, MissingTensor) == "the weights lack tensor 'mood.0.bias', which config.json promises"
    saved(mood__0__weight=torch.zeros(3, 16))
    assert "'mood.0.weight' has shape [3, 16]" in refused(folder, BadCheckpoint)
    saved(mood__0__weight=torch.zeros(4, 32), mood__0__bias=torch.zeros(4))
    assert refused(folder, BadCheckpoint) == "the classify head has 4 outputs, but 3 labels are named"
    saved(gloom__0__weight=torch.zeros(4, 32))
    assert refused(folder, LeftoverTensor) == (
        "the weights hold tensor 'gloom.0.weight', which config.json does not mention"
    )
    saved()
    file = json.loads((folder / FILE).read_text())
    file["heads"]["fill"]["per_token"][-1]["weight"] = "words.dense.weight"
    file["heads"]["fill"]["per_token"][-1].pop("bias")
    write_json(folder / FILE, file)
    assert "'words.dense.weight' has shape [32, 32], but config.json makes it [" in refused(folder, BadCheckpoint)


def with_defaults(folder: Path, **said: Any) -> Path:
    write_heads(heads_checkpoint(folder), SEVERAL, **said)
    return folder


def test_a_default_answers_where_no_head_is_named(tmp_path: Path) -> None:
    defaults = {"classify": "mood", "moderate": "harm", "rerank": "embed"}
    with Encoder(with_defaults(tmp_path, defaults=defaults)) as encoder:
        assert encoder.classify(TEXT) == encoder.classify(TEXT, head="mood")
        assert encoder.classify(TEXT, head="harm") != encoder.classify(TEXT)
        by_harm = encoder.moderate(TEXT, categories={"harm": ["toxic"]})
        assert by_harm.scores == {"harm": dict(encoder.classify(TEXT, head="harm"))["toxic"]}
        assert encoder.rerank(TEXT, [TEXT, "No."]) == encoder.rerank(TEXT, [TEXT, "No."], head="embed")
        assert encoder.classify(TEXT, labels=["a", "b"]) == encoder.classify(TEXT, labels=["a", "b"], head="inference")
        assert "moderate" not in encoder.tasks


def test_a_checkpoint_may_bring_its_categories(tmp_path: Path) -> None:
    folder = with_defaults(tmp_path, defaults={"moderate": "harm"}, moderation={"harm": ["toxic"]})
    with Encoder(folder) as encoder:
        assert "moderate" in encoder.tasks
        assert encoder.moderate(TEXT) == encoder.moderate(TEXT, categories={"harm": ["toxic"]})
    with Encoder(folder, moderation={"rude": ["toxic"]}) as encoder:
        assert list(encoder.moderate(TEXT).scores) == ["rude"]


def test_categories_that_do_not_fit_the_checkpoint_they_came_with(tmp_path: Path) -> None:
    folder = with_defaults(tmp_path, defaults={"moderate": "harm"}, moderation={"harm": ["rude"]})
    with pytest.raises(BadCheckpoint) as caught:
        Encoder(folder)
    assert str(caught.value) == (
        f"{FILE}: moderation: category 'harm' has the label 'rude', which this model has not; it has toxic"
    )

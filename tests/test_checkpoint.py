"""What load_checkpoint makes of good folders: tensors, tokenizers, limits, labels, prompts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tiny import KINDS, TEXT, USABLE, Family, change_json, tiny_checkpoint, tiny_tokenizer, write_json

from onepass.errors import BadSetting
from onepass.model.checkpoint import Checkpoint, load_checkpoint
from onepass.model.families import FAMILIES

auto: Any = transformers
maskers = pytest.mark.parametrize("family", [family for family in KINDS if "fill" in FAMILIES[family].heads])


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "bert", "bert", "embed")


def tokens(checkpoint: Checkpoint, *text: str) -> list[int]:
    tokenizer: Any = checkpoint.tokenizer.library
    return list(tokenizer.encode(*text).ids)


def same_weights(a: Checkpoint, b: Checkpoint) -> bool:
    return a.weights.keys() == b.weights.keys() and all(np.array_equal(a.weights[k], b.weights[k]) for k in a.weights)


def test_all_minilm(minilm: Path) -> None:
    loaded = load_checkpoint(minilm)
    assert (loaded.family, loaded.revision, loaded.dimensions, loaded.notes) == ("bert", None, 384, ())
    assert (loaded.max_length, loaded.spec.max_tokens, len(loaded.spec.layers)) == (256, 512, 6)
    assert loaded.tokenizer.types
    assert (loaded.heads["embed"].pool.kinds, loaded.heads["embed"].finish) == (("mean",), "l2")


def test_padding_and_truncation_of_the_tokenizer_file_do_not_leak(minilm: Path) -> None:
    baked = json.loads((minilm / "tokenizer.json").read_text())
    assert (baked["truncation"]["max_length"], baked["padding"]["strategy"]) == (128, {"Fixed": 128})
    loaded = load_checkpoint(minilm)
    assert len(tokens(loaded, "hello")) == 3
    assert len(tokens(loaded, "hello " * 300)) == 302


def test_float32_files_are_mapped_not_copied(bert: Path) -> None:
    for name, array in load_checkpoint(bert).weights.items():
        base: Any = array
        while base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert base is not None, name
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert not array.flags.writeable


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_become_float32(bert: Path, dtype: torch.dtype) -> None:
    halved = {name: tensor.to(dtype) for name, tensor in load_file(bert / "model.safetensors").items()}
    save_file(halved, bert / "model.safetensors")
    weights = load_checkpoint(bert).weights
    expected: NDArray[np.float32] = halved["embeddings.word_embeddings.weight"].float().numpy()
    assert np.array_equal(weights["embed.word"], expected)
    assert all(array.dtype == np.float32 for array in weights.values())


def test_sharded_files_equal_a_single_one(bert: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    shutil.copytree(bert, sharded)
    (sharded / "model.safetensors").unlink()
    auto.AutoModel.from_pretrained(bert).save_pretrained(sharded, max_shard_size="40KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    assert same_weights(load_checkpoint(bert), load_checkpoint(sharded))


def test_pickled_weights_are_read_through_torch(bert: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(bert, pickled)
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    assert same_weights(load_checkpoint(bert), load_checkpoint(pickled))


@maskers
def test_a_model_with_a_head_has_the_same_trunk(tmp_path: Path, family: Family) -> None:
    """Its tensors carry a prefix and have heads beside them, which a trunk leaves alone."""
    masked = tiny_checkpoint(tmp_path / "trunk", family, "trunk")
    model = auto.AutoModelForMaskedLM.from_pretrained(masked)
    shutil.copytree(masked, tmp_path / "masked")
    model.save_pretrained(tmp_path / "masked")
    loaded = load_checkpoint(tmp_path / "masked")
    trunk = {name: tensor for name, tensor in loaded.weights.items() if not name.startswith("fill.")}
    assert same_weights(load_checkpoint(masked), replace(loaded, weights=trunk))
    assert set(loaded.heads) == {"embed", "fill", "sparse"}
    assert loaded.notes == ("There is no Pooling module: vectors are the mean over tokens, not normalised.",)


def test_a_masked_language_model_whose_file_is_a_trunk(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "trunk")
    change_json(folder / "config.json", architectures=["BertForMaskedLM"])
    loaded = load_checkpoint(folder)
    assert set(loaded.heads) == {"embed"}
    assert loaded.notes[-1] == "The file has no weights for the head 'fill' of its architecture; it is left out."


def test_old_names_of_norm_weights_and_buffers(bert: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(bert, old)
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in load_file(old / "model.safetensors").items():
        for new, former in names.items():
            name = name.replace(new, former)
        tensors["bert." + name] = tensor
    tensors["bert.embeddings.position_ids"] = torch.arange(USABLE)[None]
    save_file(tensors, old / "model.safetensors")
    assert same_weights(load_checkpoint(bert), load_checkpoint(old))


@pytest.mark.parametrize(
    ("family", "changes", "given"),
    [
        ("bert", {}, True),
        ("electra", {}, True),
        ("distilbert", {}, False),
        ("roberta", {}, False),
        ("xlm-roberta", {}, False),
        ("bert", {"tokenizer_class": "DistilBertTokenizer"}, False),
        ("bert", {"tokenizer_class": "PreTrainedTokenizerFast"}, True),
        ("bert", {"model_input_names": ["input_ids", "attention_mask"]}, False),
    ],
)
def test_who_is_given_token_types(tmp_path: Path, family: Family, changes: dict[str, Any], given: bool) -> None:
    folder = tiny_checkpoint(tmp_path, family, "trunk")
    change_json(folder / "tokenizer_config.json", **changes)
    assert load_checkpoint(folder).tokenizer.types is given


def test_a_table_of_one_type_takes_no_types(tmp_path: Path) -> None:
    assert not load_checkpoint(tiny_checkpoint(tmp_path, "bert", "trunk", type_vocab_size=1)).tokenizer.types


SAMPLES = ["Café ZÜRICH don't", "the [MASK] river", "北京 train", "İstanbul \t ☃ ", TEXT[7]]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": None},
        {"strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
        {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False},
        {"added_tokens_decoder": {"400": {"content": "<river>", "special": False}}},
    ],
)
@pytest.mark.parametrize("source", ["tokenizer.json", "vocab.txt"])
def test_bert_tokenizers_follow_tokenizer_config(tmp_path: Path, source: str, settings: dict[str, Any]) -> None:
    if source == "vocab.txt" and "tokenizer_class" in settings:
        pytest.skip("transformers has no generic tokenizer without tokenizer.json")
    folder = tiny_checkpoint(tmp_path, "bert", "trunk", vocab_size=401)
    change_json(folder / "tokenizer_config.json", **settings)
    if source == "vocab.txt":
        vocabulary = tiny_tokenizer("bert").get_vocab()
        (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")
        (folder / "tokenizer.json").unlink()
    loaded, theirs = load_checkpoint(folder), auto.AutoTokenizer.from_pretrained(folder)
    for text in [*SAMPLES, "the <river> runs"]:
        assert tokens(loaded, text) == theirs(text).input_ids, text
        assert tokens(loaded, text, "a <river>") == theirs(text, "a <river>").input_ids, text


def test_a_disagreement_between_tokenizer_files_is_noted(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "embed")
    change_json(folder / "tokenizer_config.json", do_lower_case=False)
    assert load_checkpoint(folder).notes == (
        "tokenizer_config.json (or its defaults) overrides tokenizer.json: lowercase=False.",
    )


def test_vocab_json_and_merges(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "roberta", "trunk")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    write_json(folder / "vocab.json", model["vocab"] | {"<mask>": 500})
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (folder / "tokenizer.json").unlink()
    loaded, theirs = load_checkpoint(folder), auto.AutoTokenizer.from_pretrained(folder)
    for text in [*SAMPLES, "a <mask> river"]:
        assert tokens(loaded, text) == theirs(text).input_ids
        assert tokens(loaded, text, TEXT[0]) == theirs(text, TEXT[0]).input_ids


def test_sentence_transformers_lowercasing_comes_first(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "roberta", "embed")
    change_json(folder / "sentence_bert_config.json", do_lower_case=True)
    loaded = load_checkpoint(folder)
    assert (
        tokens(loaded, "The RIVER") == tokens(loaded, "the river") == tiny_tokenizer("roberta").encode("the river").ids
    )


@pytest.mark.parametrize(
    ("family", "own", "tokenizer", "expected"),
    [
        ("bert", 20, 64, 20),
        ("bert", None, 30, 30),
        ("bert", None, 10**30, 64),
        ("bert", None, None, 64),
        ("bert", 1000, 64, 64),
        ("roberta", 66, 66, 64),  # as many as there are position rows, of which the first two are no position
        ("roberta", None, 66, 64),
    ],
)
def test_max_length(tmp_path: Path, family: Family, own: int | None, tokenizer: int | None, expected: int) -> None:
    folder = tiny_checkpoint(tmp_path, family, "embed")
    change_json(folder / "sentence_bert_config.json", max_seq_length=own)
    change_json(folder / "tokenizer_config.json", model_max_length=tokenizer)
    assert load_checkpoint(folder).max_length == expected


@pytest.mark.parametrize(
    ("tokenizer", "config", "expected"),
    [(None, {}, 512), (10**30, {"n_positions": 100}, 100), (50, {"n_positions": 100}, 50), (2000, {}, 2000)],
)
def test_max_length_where_positions_do_not_limit_it(
    tmp_path: Path, tokenizer: int | None, config: dict[str, int], expected: int
) -> None:
    folder = tiny_checkpoint(tmp_path, "t5", "trunk")
    change_json(folder / "tokenizer_config.json", model_max_length=tokenizer)
    change_json(folder / "config.json", **config)
    assert load_checkpoint(folder).max_length == expected
    assert load_checkpoint(folder, max_length=5000).max_length == 5000


def test_max_length_as_asked(bert: Path) -> None:
    change_json(bert / "sentence_bert_config.json", max_seq_length=20)
    assert load_checkpoint(bert, max_length=10).max_length == 10
    assert load_checkpoint(bert, max_length=64).max_length == 64
    with pytest.raises(BadSetting) as caught:
        load_checkpoint(bert, max_length=65)
    assert str(caught.value) == ("max_length is 65, but this model takes rows of 1 to 64 tokens; choose one of these")


def test_max_length_beyond_the_positions_is_noted(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "roberta", "embed")
    change_json(folder / "sentence_bert_config.json", max_seq_length=66)
    assert load_checkpoint(folder).notes == (
        "max_seq_length is 66, but there are positions for 64 tokens only, which is the limit.",
    )


def test_prompts(bert: Path) -> None:
    prompts = {"query": "query: ", "passage": "passage: "}
    write_json(bert / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "query"})
    loaded = load_checkpoint(bert)
    assert dict(loaded.prompts) == prompts
    assert loaded.default_prompt == "query"


def test_the_trunk_may_lie_in_a_module_folder(bert: Path) -> None:
    whole = load_checkpoint(bert)
    (bert / "0_Transformer").mkdir()
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
    ):
        shutil.move(bert / name, bert / "0_Transformer" / name)
    modules = json.loads((bert / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write_json(bert / "modules.json", modules)
    moved = load_checkpoint(bert)
    assert same_weights(whole, moved)
    assert moved.max_length == whole.max_length


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"id2label": {"1": "b", "0": "a", "2": "c"}}, ("a", "b", "c")),
        ({"id2label": None, "num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
    ],
)
def test_labels_name_the_columns(tmp_path: Path, changes: dict[str, Any], labels: tuple[str, ...]) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "classify")
    change_json(folder / "config.json", **changes)
    assert load_checkpoint(folder).heads["classify"].labels == labels


def test_identity_over_several_labels_leaves_probabilities_and_is_noted(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "classify")
    identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
    write_json(folder / "config_sentence_transformers.json", identity)
    loaded = load_checkpoint(folder)
    assert loaded.heads["classify"].finish == "softmax"
    assert loaded.notes == (
        "config_sentence_transformers.json sets activation_fn to Identity over 3 labels; scores are finished by "
        "softmax.",
    )


def test_an_activation_that_is_not_torchs_is_not_run(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "rerank")
    write_json(folder / "config_sentence_transformers.json", {"activation_fn": "my.code.Scale"})
    loaded = load_checkpoint(folder)
    assert loaded.heads["classify"].finish == "sigmoid"
    assert loaded.notes == (
        "config_sentence_transformers.json names the activation 'my.code.Scale', which is not torch's; sigmoid is used "
        "instead.",
    )

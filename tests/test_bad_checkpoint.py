"""What cannot be loaded is refused in one sentence that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import change_json, refused, tiny_checkpoint, write_json

from onepass.errors import (
    BadCheckpoint,
    BadSetting,
    OnepassError,
    UnknownFamily,
    UnsupportedOption,
)
from onepass.model.families import FAMILIES

WORD = "embeddings.word_embeddings.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "model", "bert", "embed")


# Folders and JSON


def test_a_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert refused(folder, BadCheckpoint) == (
        f"{folder} has no config.json, so it is no model; give the folder that save_pretrained wrote"
    )


def test_a_file_is_no_model(folder: Path) -> None:
    file = folder / "model.safetensors"
    assert refused(file, BadCheckpoint) == (
        f"{file} is a file, but a model is a folder with config.json and weights, or a hub id"
    )


def test_a_folder_has_no_revision(folder: Path) -> None:
    assert refused(folder, BadSetting, revision="v1") == (
        f"revision is 'v1', but {folder} is a folder; only hub models have revisions"
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "config.json is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[1]", "config.json must hold a JSON object, but holds a list"),
        (b"\xff", "config.json is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[" * 100_000, "config.json is nested too deeply to be read"),
    ],
)
def test_a_config_that_is_no_object(folder: Path, content: bytes, sentence: str) -> None:
    (folder / "config.json").write_bytes(content)
    assert refused(folder, BadCheckpoint) == sentence


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        (
            {"model_type": "funnel"},
            UnknownFamily,
            f"config.json names the model_type 'funnel', but the families here are {', '.join(sorted(FAMILIES))}",
        ),
        (
            {"hidden_size": "wide"},
            BadCheckpoint,
            'config.json sets hidden_size to "wide", but it must be a whole number of at least 1',
        ),
        (
            {"num_hidden_layers": 0},
            BadCheckpoint,
            "config.json sets num_hidden_layers to 0, but it must be a whole number from 1 to 1000",
        ),
        ({"layer_norm_eps": True}, BadCheckpoint, "config.json sets layer_norm_eps to true, but it must be a number"),
        (
            {"num_attention_heads": 5},
            BadCheckpoint,
            "config.json divides a width of 32 among 5 attention heads; that leaves a rest",
        ),
        (
            {"position_embedding_type": "relative_key"},
            UnsupportedOption,
            'config.json sets position_embedding_type to "relative_key", which is not implemented; only "absolute" is',
        ),
        (
            {"is_decoder": True},
            UnsupportedOption,
            "config.json sets is_decoder to true, which is not implemented; only false is",
        ),
        (
            {"hidden_act": "mish"},
            UnsupportedOption,
            "config.json sets hidden_act to 'mish', which is not implemented; known are gelu, gelu_python, gelu_new, "
            "gelu_fast, gelu_pytorch_tanh, gelu_python_tanh, gelu_accurate, quick_gelu, gelu_10, silu, swish, relu, "
            "relu2, tanh, sigmoid",
        ),
        (
            {"quantization_config": {"bits": 4}},
            UnsupportedOption,
            "config.json sets quantization_config; only weights that are not quantised can be loaded",
        ),
        (
            {"auto_map": {"AutoModel": "modeling.Model"}},
            UnsupportedOption,
            "config.json sets auto_map to code of its own, which is never run; no family here covers it",
        ),
    ],
)
def test_a_config_that_cannot_be_run(
    folder: Path, changes: dict[str, Any], kind: type[OnepassError], sentence: str
) -> None:
    change_json(folder / "config.json", **changes)
    assert refused(folder, kind) == sentence


@pytest.mark.parametrize("architecture", ["BertForNextSentencePrediction", "BertForMultipleChoice"])
def test_heads_that_are_not_served(tmp_path: Path, architecture: str) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "trunk")
    change_json(folder / "config.json", architectures=[architecture])
    assert refused(folder, UnsupportedOption) == (
        f"config.json names the architecture '{architecture}', whose head is not served; of the family bert plain "
        "models, ForSequenceClassification, ForTokenClassification, ForQuestionAnswering, ForMaskedLM are"
    )


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        (
            {"id2label": {"0": "a", "2": "b"}},
            BadCheckpoint,
            "config.json numbers id2label [0, 2]; it must count from 0 without gaps",
        ),
        (
            {"id2label": {"first": "a"}},
            BadCheckpoint,
            'config.json sets id2label to {"first": "a"}, but it must be an object from column numbers to names',
        ),
        (
            {"id2label": {"0": "a", "1": "b"}},
            BadCheckpoint,
            "the classify head has 3 outputs, but 2 labels are named",
        ),
        (
            {"problem_type": "ranking"},
            UnsupportedOption,
            'config.json sets problem_type to "ranking", which is not implemented; only "regression" or '
            '"single_label_classification" or "multi_label_classification" is',
        ),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.ELU"}},
            UnsupportedOption,
            "config.json sets activation_fn to 'torch.nn.modules.activation.ELU', which is not implemented; known are "
            "Identity, Sigmoid and Softmax of torch.nn",
        ),
    ],
)
def test_classifiers_that_cannot_be_run(
    tmp_path: Path, changes: dict[str, Any], kind: type[OnepassError], sentence: str
) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "classify")
    change_json(folder / "config.json", **changes)
    assert refused(folder, kind) == sentence


# Tokenizers


def test_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert refused(folder, BadCheckpoint) == (
        f"{folder} holds no tokenizer.json and no vocab.txt; save a fast tokenizer there"
    )


def test_a_tokenizer_that_cannot_be_used(folder: Path) -> None:
    change_json(folder / "tokenizer.json", model={"type": "Telepathy"})
    sentence = refused(folder, BadCheckpoint)
    assert sentence.startswith("tokenizer.json cannot be used (")
    assert sentence.endswith("); save the tokenizer again")


def test_a_vocabulary_without_its_frame(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\nword\n")
    assert refused(folder, BadCheckpoint) == (
        "the vocabulary has no token '[SEP]', which the tokenizer puts around every text"
    )


def test_added_tokens_whose_ids_contradict_each_other(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", added_tokens_decoder={"399": {"content": "<new>"}})
    assert refused(folder, BadCheckpoint) == "the tokenizer's files give token '<new>' the ids 399 and 400"


# sentence-transformers


def set_modules(folder: Path, *modules: tuple[str, str]) -> None:
    write_json(
        folder / "modules.json",
        [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (kind, path) in enumerate(modules)
        ],
    )


@pytest.mark.parametrize(
    ("modules", "sentence"),
    [
        (
            [("Transformer", ""), ("WeightedLayerPooling", "1_W")],
            "modules.json uses the module WeightedLayerPooling as number 1, which is not implemented",
        ),
        (
            [("Transformer", ""), ("Pooling", "1_Pooling"), ("Pooling", "1_Pooling")],
            "modules.json uses the module Pooling as number 2, which is not implemented",
        ),
        (
            [("Transformer", ""), ("Dropout", "1_Dropout")],
            "modules.json has no Pooling module; only checkpoints with one vector per text are served",
        ),
        ([("CLIPModel", "")], "modules.json begins with CLIPModel; only a Transformer module can come first"),
        (
            [("Transformer", ""), ("SpladePooling", "1_SpladePooling")],
            "modules.json chains Transformer, SpladePooling for feature-extraction; of sparse encoders only a masked "
            "language model with SpladePooling is implemented",
        ),
        ([], "modules.json begins with nothing; only a Transformer module can come first"),
    ],
)
def test_modules_that_cannot_be_run(folder: Path, modules: list[tuple[str, str]], sentence: str) -> None:
    set_modules(folder, *modules)
    assert refused(folder, UnsupportedOption) == sentence


def test_modules_stay_inside_the_checkpoint(folder: Path) -> None:
    set_modules(folder, ("Transformer", ""), ("Pooling", "../other/1_Pooling"))
    assert refused(folder, BadCheckpoint) == (
        "modules.json points outside the checkpoint with the path '../other/1_Pooling'"
    )


def test_a_dense_module_that_does_not_fit(folder: Path) -> None:
    set_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"))
    write_json(folder / "2_Dense" / "config.json", {"in_features": 16, "out_features": 8, "bias": False})
    save_file({"linear.weight": torch.ones(8, 16)}, folder / "2_Dense" / "model.safetensors")
    assert refused(folder, BadCheckpoint) == (
        "tensor 'embed.2.weight' has shape [8, 16], but config.json makes it [8, 32]"
    )


@pytest.mark.parametrize(
    ("file", "changes", "kind", "sentence"),
    [
        (
            "1_Pooling/config.json",
            {"pooling_mode": "median"},
            UnsupportedOption,
            "1_Pooling/config.json sets pooling_mode to 'median', which is not implemented; known are cls, max, mean, "
            "mean_sqrt_len_tokens, weightedmean, lasttoken",
        ),
        (
            "sentence_bert_config.json",
            {"transformer_task": "fill-mask"},
            UnsupportedOption,
            "modules.json chains Transformer, Pooling, Normalize for fill-mask; of sparse encoders only a masked "
            "language model with SpladePooling is implemented",
        ),
        (
            "sentence_bert_config.json",
            {"max_seq_length": 0},
            BadCheckpoint,
            "sentence_bert_config.json sets max_seq_length to 0, but it must be a whole number of at least 1",
        ),
        (
            "config_sentence_transformers.json",
            {"model_type": "AudioEncoder"},
            UnsupportedOption,
            'config_sentence_transformers.json sets model_type to "AudioEncoder", which is not implemented; only '
            '"SentenceTransformer" or "CrossEncoder" or "SparseEncoder" or "MultiVectorEncoder" or "ColBERT" is',
        ),
        (
            "config_sentence_transformers.json",
            {"prompts": {"a": ""}, "default_prompt_name": "b"},
            BadCheckpoint,
            "config_sentence_transformers.json names the default prompt 'b', but its prompts are a",
        ),
    ],
)
def test_settings_that_cannot_be_run(
    folder: Path, file: str, changes: dict[str, Any], kind: type[OnepassError], sentence: str
) -> None:
    if not (folder / file).exists():
        write_json(folder / file, {})
    change_json(folder / file, **changes)
    assert refused(folder, kind) == sentence

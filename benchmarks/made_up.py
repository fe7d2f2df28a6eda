"""Checkpoints of MiniLM-L6's shape with random weights and a vocabulary of made-up words: they need no package that
carries a model, and no torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from models import BUILD
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

LAYERS, WIDTH, HEADS, INNER, POSITIONS, WORDS = 6, 384, 12, 1536, 512, 30522
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "vocab_size": WORDS,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
MODULES = ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")


def embedder() -> Path:
    """Mean pooling and normalisation, in the layout of sentence-transformers, made on first use."""
    return written("made-up-embedder", {"architectures": ["BertModel"]}, "")


def reranker() -> Path:
    """A cross-encoder with one label, made on first use."""
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return written("made-up-reranker", {"architectures": ["BertForSequenceClassification"], **labels}, "bert.")


def written(name: str, config: dict[str, object], prefix: str) -> Path:
    folder = BUILD / name
    if folder.exists():
        return folder
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "1_Pooling").mkdir(parents=True)
    (partial / "2_Normalize").mkdir()
    tensors = {prefix + key: values for key, values in trunk()}
    if prefix:
        tensors |= {"classifier.weight": drawn(1, WIDTH), "classifier.bias": drawn(1)}
    else:
        modules = [
            {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for place, (path, kind) in enumerate(MODULES)
        ]
        write(partial / "modules.json", modules)
        write(partial / "sentence_bert_config.json", {"max_seq_length": POSITIONS, "do_lower_case": False})
        pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
        write(partial / "1_Pooling" / "config.json", pooling)
    save_file(tensors, partial / "model.safetensors", {"format": "pt"})
    write(partial / "config.json", CONFIG | config)
    write(partial / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": POSITIONS})
    tokenizer().save(str(partial / "tokenizer.json"))
    partial.rename(folder)
    return folder


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


RANDOM = np.random.default_rng(0)


def drawn(*shape: int) -> NDArray[np.float32]:
    """Values of the size that keeps a row's size."""
    return RANDOM.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)


def trunk() -> Iterator[tuple[str, NDArray[np.float32]]]:
    for name, rows in (("word", WORDS), ("position", POSITIONS), ("token_type", 2)):
        yield f"embeddings.{name}_embeddings.weight", drawn(rows, WIDTH)
    yield from norm("embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", WIDTH, WIDTH)
        yield from linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        yield from norm(f"{layer}.attention.output.LayerNorm")
        yield from linear(f"{layer}.intermediate.dense", INNER, WIDTH)
        yield from linear(f"{layer}.output.dense", WIDTH, INNER)
        yield from norm(f"{layer}.output.LayerNorm")
    yield from linear("pooler.dense", WIDTH, WIDTH)


def linear(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    yield f"{name}.weight", drawn(outputs, inputs)
    yield f"{name}.bias", np.zeros(outputs, np.float32)


def norm(name: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    yield f"{name}.weight", np.ones(WIDTH, np.float32)
    yield f"{name}.bias", np.zeros(WIDTH, np.float32)


def tokenizer() -> Tokenizer:
    """WordPiece over words of 3 to 8 letters, in BERT's arrangement."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    random, words = np.random.default_rng(0), dict.fromkeys(SPECIAL)
    while len(words) < WORDS:
        words["".join(random.choice(letters, random.integers(3, 9)))] = None
    vocabulary = {word: id for id, word in enumerate(words)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    around = [(word, vocabulary[word]) for word in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", around)
    made.add_special_tokens(list(SPECIAL))
    return made

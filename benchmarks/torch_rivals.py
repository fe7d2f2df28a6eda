"""The runtimes on PyTorch: as tutorials write it, as sentence-transformers does it, and in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from batches import Ids, Setting, Vectors, by_length, padded, settings
from models import LONGEST

ROWS = (8, 32, 16, 4)


class Transformers:
    """fp32, batches of 32 in arrival order, mean pooling: the example on the model's own page."""

    settings: Sequence[Setting] = (Setting(32),)
    dtype = torch.float32

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModel.from_pretrained(folder, dtype=self.dtype).eval()

    def ids(self, rows: Ids, setting: Setting) -> Vectors:
        batches = (rows[start : start + setting.rows] for start in range(0, len(rows), setting.rows))
        return np.concatenate([self.embed(batch) for batch in batches])

    def texts(self, texts: list[str], setting: Setting) -> Vectors:
        return self.ids(self.tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"], setting)

    def embed(self, batch: Ids) -> Vectors:
        ids, mask = map(torch.from_numpy, padded(batch))
        with torch.inference_mode():
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            weights = mask.unsqueeze(-1).float()
            pooled = (states * weights).sum(1) / weights.sum(1)
            return np.asarray(torch.nn.functional.normalize(pooled, dim=-1).numpy())


class TorchBf16(Transformers):
    """bf16 weights, sorted by length."""

    settings: Sequence[Setting] = settings(ROWS, [1])
    dtype = torch.bfloat16

    def ids(self, rows: Ids, setting: Setting) -> Vectors:
        return by_length(rows, setting, self.embed)


class SentenceTransformers:
    """fp32, sorted by length, as `encode` does."""

    settings: Sequence[Setting] = settings(ROWS, [1])

    def __init__(self, folder: Path, threads: int) -> None:
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.model: Any = SentenceTransformer(str(folder), device="cpu").eval()
        self.model.max_seq_length = LONGEST

    def ids(self, rows: Ids, setting: Setting) -> Vectors:
        return by_length(rows, setting, self.embed)

    def texts(self, texts: list[str], setting: Setting) -> Vectors:
        return np.asarray(self.model.encode(texts, batch_size=setting.rows))

    def embed(self, batch: Ids) -> Vectors:
        ids, mask = map(torch.from_numpy, padded(batch))
        with torch.inference_mode():
            return np.asarray(self.model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"].numpy())

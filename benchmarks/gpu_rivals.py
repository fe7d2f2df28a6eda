"""Who runs in gpu.py, all in bfloat16 on one device, all giving unit vectors as numpy arrays on the host.

`ids` is timed without tokenising, `texts` with it. What takes rectangles gets rows sorted by length and batches of a
size that is tried out; it is never made to wait for the device between two batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from batches import Ids, Vectors, padded
from torch import Tensor

from onepass import Encoder
from onepass.engines.batch import PackedBatch, Read


class Onepass:
    """Through the public Encoder, which schedules by itself; it puts the special tokens around given ids."""

    name = "onepass"
    sizes: Sequence[int] = (0,)

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def ids(self, rows: Ids, size: int) -> Vectors:
        return np.asarray(self.encoder.embed([list(row[1:-1]) for row in rows]))

    def texts(self, texts: list[str], size: int) -> Vectors:
        return np.asarray(self.encoder.embed(texts))


class Engine:
    """The torch engine alone, called with packed rows: no scheduler, no event loop. size: tokens of a call."""

    name = "onepass engine"
    sizes: Sequence[int] = (1 << 15, 1 << 14, 1 << 16)

    def __init__(self, encoder: Encoder) -> None:
        self.engine = encoder.engine
        (self.head,) = (name for name, head in encoder.heads.items() if head["kind"] == "embed")

    def ids(self, rows: Ids, size: int) -> Vectors:
        return np.concatenate([self.run(part) for part in cut(rows, size)])

    def run(self, rows: Ids) -> Vectors:
        lengths = np.fromiter(map(len, rows), np.int32, len(rows))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        ids = np.fromiter((token for row in rows for token in row), np.int32, offsets[-1])
        batch = PackedBatch(ids, np.zeros_like(ids), offsets, lengths)
        (output,) = self.engine.run(batch, [Read(self.head, np.arange(len(rows), dtype=np.int32))])
        return output.values


def cut(rows: Ids, tokens: int) -> Iterator[Ids]:
    """Rows in their order, in parts of so many tokens."""
    part: list[Sequence[int]] = []
    held = 0
    for row in rows:
        if part and held + len(row) > tokens:
            yield part
            part, held = [], 0
        part.append(row)
        held += len(row)
    yield part


class Transformers:
    """AutoModel with the attention it takes by itself (SDPA, or eager where it has no other), mean pooling."""

    name = "transformers"
    sizes: Sequence[int] = (32, 64, 128)

    def __init__(self, folder: Path, device: str) -> None:
        auto: Any = transformers
        self.device = device
        self.tokenizer = auto.AutoTokenizer.from_pretrained(folder)
        self.model = auto.AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval().to(device)
        self.attention = str(getattr(self.model.config, "_attn_implementation", "unknown"))

    def ids(self, rows: Ids, size: int) -> Vectors:
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
        found = []
        with torch.inference_mode():
            for start in range(0, len(order), size):
                batch = [rows[row] for row in order[start : start + size]]
                found.append(self.embed(*(torch.from_numpy(x).to(self.device) for x in padded(batch))))
            vectors = torch.cat(found).cpu().numpy()
        restored = np.empty_like(vectors)
        restored[order] = vectors
        return restored

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weights = mask.unsqueeze(-1).float()
        return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)


class Compiled(Transformers):
    """The same through torch.compile, for batches of one shape.

    Of one row the whole model, in CUDA graphs, since there its launches take the time; of many the layers, which are
    compiled once for all of them.
    """

    name = "transformers compiled"

    def __init__(self, folder: Path, device: str, size: int) -> None:
        super().__init__(folder, device)
        self.sizes = (size,)
        options: dict[str, Any] = {"dynamic": False}
        if torch.device(device).type != "cuda":
            options["backend"] = "eager"  # there the code is tried, not its speed
        elif size == 1:
            options["mode"] = "reduce-overhead"
        if size == 1:
            self.model = torch.compile(self.model, **options)
        else:
            for layer in self.model.encoder.layer:
                layer.compile(**options)

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return super().embed(ids, mask)


class SentenceTransformers:
    """Its `encode`, which takes texts, sorts them and tokenises each batch."""

    name = "sentence-transformers"
    sizes: Sequence[int] = (32, 128, 64)

    def __init__(self, folder: Path, device: str) -> None:
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": torch.bfloat16}).eval()

    def texts(self, texts: list[str], size: int) -> Vectors:
        vectors = self.model.encode(texts, batch_size=size, convert_to_tensor=True, show_progress_bar=False)
        return vectors.float().cpu().numpy()

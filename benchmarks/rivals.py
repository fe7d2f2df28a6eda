"""The runtimes that are compared, each used as its own documentation shows, all giving unit vectors of MiniLM's width.

Every runtime gets all compute threads. `ids` is timed without tokenising, `texts` with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onepass import Encoder

Vectors = NDArray[np.float32]
Ids = Sequence[Sequence[int]]
LONGEST = 512


class Rival(Protocol):
    """Both give float32 [sequences, width] in the order of the input; ids include special tokens."""

    def ids(self, rows: Ids) -> Vectors: ...

    def texts(self, texts: list[str]) -> Vectors: ...


class Transformers:
    """fp32, batches of 32 in arrival order, mean pooling: the example on the model's own page."""

    batch = 32

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.torch = torch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def ids(self, rows: Ids) -> Vectors:
        batches = (rows[start : start + self.batch] for start in range(0, len(rows), self.batch))
        return np.concatenate([self.embed(*map(self.torch.from_numpy, padded(batch))) for batch in batches])

    def texts(self, texts: list[str]) -> Vectors:
        parts = []
        for start in range(0, len(texts), self.batch):
            encoded = self.tokenizer(
                texts[start : start + self.batch],
                padding=True,
                truncation=True,
                max_length=LONGEST,
                return_tensors="pt",
            )
            parts.append(self.embed(encoded["input_ids"], encoded["attention_mask"]))
        return np.concatenate(parts)

    def embed(self, ids: Any, mask: Any) -> Vectors:
        with self.torch.inference_mode():
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1)
            return np.asarray(self.torch.nn.functional.normalize(pooled, dim=-1).numpy())


class SentenceTransformers:
    """fp32, sorted by length, batches of 32, as `encode` does."""

    batch = 32

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.torch = torch
        self.model = SentenceTransformer(str(folder), device="cpu").eval()
        self.model.max_seq_length = LONGEST

    def ids(self, rows: Ids) -> Vectors:
        return by_length(rows, self.batch, self.embed)

    def texts(self, texts: list[str]) -> Vectors:
        return np.asarray(self.model.encode(texts, batch_size=self.batch))

    def embed(self, batch: Ids) -> Vectors:
        ids, mask = map(self.torch.from_numpy, padded(batch))
        with self.torch.inference_mode():
            return np.asarray(self.model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"].numpy())


class OnnxRuntime:
    """fp32, sorted by length, batches of 8; the graph, pooling included, is exported here from the same weights."""

    batch = 8

    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime  # type: ignore[import-untyped]
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        path = exported(folder)
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)

    def ids(self, rows: Ids) -> Vectors:
        return by_length(rows, self.batch, self.embed)

    def texts(self, texts: list[str]) -> Vectors:
        return self.ids([encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts)])

    def embed(self, batch: Ids) -> Vectors:
        ids, mask = padded(batch)
        return np.asarray(self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0])


class Onepass:
    """Through the public Encoder, which schedules by itself; it puts the special tokens around given ids."""

    dtype = "float32"

    def __init__(self, folder: Path, threads: int) -> None:
        self.encoder = Encoder(folder, dtype=self.dtype, engine="native", max_length=LONGEST, cores=threads)

    def ids(self, rows: Ids) -> Vectors:
        return np.asarray(self.encoder.embed([list(row[1:-1]) for row in rows]))

    def texts(self, texts: list[str]) -> Vectors:
        return np.asarray(self.encoder.embed(texts))


class OnepassBf16(Onepass):
    dtype = "bfloat16"


RIVALS: dict[str, Callable[[Path, int], Rival]] = {
    "transformers fp32": Transformers,
    "sentence-transformers fp32": SentenceTransformers,
    "ONNX Runtime fp32": OnnxRuntime,
    "onepass fp32": Onepass,
    "onepass bf16": OnepassBf16,
}


def padded(batch: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask, [sequences, longest]."""
    shape = len(batch), max(map(len, batch))
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, sequence in enumerate(batch):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def by_length(rows: Ids, batch: int, embed: Callable[[Ids], Vectors]) -> Vectors:
    """Batches of like length, longest first; results in the order of `rows`."""
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    parts = [embed([rows[row] for row in order[start : start + batch]]) for start in range(0, len(order), batch)]
    vectors = np.concatenate(parts)
    restored = np.empty_like(vectors)
    restored[order] = vectors
    return restored


def exported(folder: Path) -> Path:
    """The model with mean pooling and normalisation as an ONNX file under build/, written once."""
    path = Path(__file__).parents[1] / "build" / "benchmarks" / f"{folder.parent.name}.onnx"
    if path.exists():
        return path
    import torch
    import transformers

    class Embedder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager")

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            states = self.trunk(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weights = attention_mask.unsqueeze(-1).to(states.dtype)
            return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    ids, mask = map(torch.from_numpy, padded([[101, 2000, 2001, 102], [101, 2002, 102]]))
    axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Embedder().eval(),
            (ids, mask),
            str(partial),
            input_names=list(axes),
            output_names=["embedding"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    partial.rename(path)
    return path

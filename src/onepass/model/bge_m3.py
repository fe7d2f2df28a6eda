"""BGE-M3's heads beside its vectors: two linear layers in files of their own, as FlagEmbedding's M3 code reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from onepass.errors import UnsafeFormat
from onepass.model.heads import HeadSpec, Linear, Pool
from onepass.model.multivector import MultiVector, Side
from onepass.model.tensor_files import pickled
from onepass.model.weights import gather

LEXICAL = HeadSpec(
    "sparse", Pool(("max_by_token",)), per_token=(Linear("sparse.weight", "sparse.bias", activation="relu"),)
)
"""relu(w . h + b) of each token; of equal ids the largest."""

COLBERT = HeadSpec(
    "multivector",
    Pool(("tokens",)),
    per_token=(Linear("multivector.weight", "multivector.bias"),),
    finish="l2",
)
"""W h + b of each token, as a unit vector."""

COMPARED = MultiVector(Side(start=1), Side(start=1), mean=True)
"""Of queries and documents alike, the vectors but the first; scores are means."""

FILES = {"sparse_linear.pt": LEXICAL, "colbert_linear.pt": COLBERT}
UNWEIGHED = ("<s>", "<pad>", "</s>", "<unk>")  # tokens that have no lexical weight


def read_bge_m3(
    folder: Path, library: Tokenizer, notes: list[str]
) -> tuple[list[HeadSpec], dict[str, NDArray[np.float32]]]:
    """The heads whose files lie in the checkpoint's folder, and their tensors. Raises BadCheckpoint."""
    heads: list[HeadSpec] = []
    tensors: dict[str, NDArray[np.float32]] = {}
    for file, head in FILES.items():
        if not (folder / file).is_file():
            continue
        try:
            stored = pickled(folder / file, file)
        except UnsafeFormat:  # the model can do without
            notes.append(f"{file} is a pickle, which is read only where torch is installed: no head {head.kind!r}.")
            continue
        tensors |= gather(stored, {f"{head.kind}.{part}": part for part in ("weight", "bias")})
        heads.append(_without(head, library) if head is LEXICAL else head)
    return heads, tensors


def _without(head: HeadSpec, library: Tokenizer) -> HeadSpec:
    ids = {id for token in UNWEIGHED if (id := library.token_to_id(token)) is not None}
    return replace(head, pool=replace(head.pool, without=tuple(sorted(ids))))

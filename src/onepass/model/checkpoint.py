"""A model as it lies on disk, read once into one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onepass.model.heads import HeadSpec
from onepass.model.spec import EncoderSpec
from onepass.model.weights import Weights


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What is needed to encode text as the model was trained.

    json: the contents of a tokenizer.json, its own padding and truncation removed, special and added tokens complete.
    types: whether the trunk is given token type ids.  pad_id: of the pad token.
    """

    json: str
    types: bool
    pad_id: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """name: as the user gave it.  revision: the commit of a hub download, or None.  family: its model_type.

    heads: by task name: "embed", "classify" (its labels name the columns; one label also serves rerank).
    weights: float32, under the names of model/weights.py.  max_length: tokens of one row, special tokens included.
    prompts: text put before inputs, by name.  default_prompt: a name in prompts, or None.
    dimensions: width of the embed head's rows after the checkpoint's own truncation, 0 where there is none.
    notes: choices made while loading that a user may want to know, a sentence each.
    """

    name: str
    path: Path
    revision: str | None
    family: str
    spec: EncoderSpec
    heads: Mapping[str, HeadSpec]
    weights: Weights
    tokenizer: TokenizerFiles
    max_length: int
    prompts: Mapping[str, str]
    default_prompt: str | None
    dimensions: int
    notes: tuple[str, ...] = ()


def load_checkpoint(model: str | Path, *, revision: str | None = None, max_length: int | None = None) -> Checkpoint:
    """Read a Hugging Face folder, or download a hub id first.

    Honours HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and proxies as huggingface_hub does. `max_length` lowers the checkpoint's
    own limit and raises BadSetting above what the positions allow. Raises BadCheckpoint and its kinds.
    """
    raise NotImplementedError

"""LLM2Vec (BehnamGhader et al. 2024): decoders that look both ways and pool what follows the instruction.

Its folders hold the decoder's own config.json and weights, and llm2vec_config.json beside them. Semantics as in the
llm2vec package, but for texts longer than its doc_max_length, of which it leaves out words.
"""

from __future__ import annotations

from pathlib import Path

from onepass.errors import UnsupportedOption
from onepass.model.config import Config
from onepass.model.heads import HeadSpec, Pool, PoolKind
from onepass.model.sentence_transformers import Modules

FILE = "llm2vec_config.json"
POOLINGS: dict[str, PoolKind] = {
    "mean": "mean",
    "weighted_mean": "weighted_mean",
    "last_token": "last",
    "bos_token": "first",
}
WITHOUT_INSTRUCTION = ("mean", "last_token")
"""What can leave the instruction out; the package counts a weighted mean's weights from the text on."""

BOTH_WAYS = {"auto_map": None, "is_causal": False}
"""A full mask is all that the code beside the weights does."""


def read_llm2vec(folder: Path, notes: list[str]) -> Modules | None:
    """None where the folder is none. Raises BadCheckpoint, and UnsupportedOption for a pooling by name."""
    if not (folder / FILE).is_file():
        return None
    config = Config.read(folder / FILE, FILE)
    mode, skips = config.text("pooling_mode", "mean"), config.flag("skip_instruction", True)
    known = WITHOUT_INSTRUCTION if skips else tuple(POOLINGS)
    if mode not in known:
        raise UnsupportedOption(
            f"{FILE} sets pooling_mode to {mode!r}, which is not implemented with skip_instruction "
            f"{str(skips).lower()}; known are {', '.join(known)}"
        )
    limit = config.integer("max_length", 512, least=1)
    if (words := config.integer("doc_max_length", 400, least=1)) < limit:
        notes.append(f"{FILE} shortens texts to {words} tokens; here rows are cut at {limit}, instruction included.")
    return Modules(
        max_length=limit,
        head=HeadSpec("embed", Pool((POOLINGS[mode],), skip_prompt=skips)),
        changes=BOTH_WAYS,
        text_only=skips,
    )

"""GritLM (Muennighoff et al. 2024): one Mistral that writes and embeds; here it embeds.

Its folders are known by the code that config.json names. To embed, that code looks both ways without a window, and the
gritlm package averages what follows the prompt and makes it of length 1. A prompt is written out,
"<|user|>\\nINSTRUCTION\\n<|embed|>\\n", or "<|embed|>\\n" where there is no instruction.
"""

from __future__ import annotations

from pathlib import Path

from onepass.model.config import Config
from onepass.model.heads import HeadSpec, Pool
from onepass.model.sentence_transformers import Modules

CODE = "modeling_gritlm"
ARCHITECTURES = (["MistralModel"], ["MistralForCausalLM"])
VLLM = ["GritLM"]  # of copies made for vLLM, which name no code

DEFAULT_PROMPT = "document"
PROMPTS = {DEFAULT_PROMPT: "<|embed|>\n"}
LIMIT = 512  # of tokens, where nobody tells the package another


def read_gritlm(folder: Path, notes: list[str]) -> Modules | None:
    """None where the folder is none. Raises BadCheckpoint."""
    if not _is_gritlm(Config.read_if_there(folder / "config.json", "config.json")):
        return None
    notes.append(f"Rows are cut at {LIMIT} tokens, as in the gritlm package; the setting max_length allows more.")
    return Modules(
        max_length=LIMIT,
        head=HeadSpec("embed", Pool(("mean",), skip_prompt=True), finish="l2"),
        changes={"auto_map": None, "is_causal": False, "sliding_window": None},
        prompts=PROMPTS,
        default_prompt=DEFAULT_PROMPT,
    )


def _is_gritlm(config: Config) -> bool:
    architectures = config.get("architectures")
    return architectures == VLLM or (CODE in str(config.get("auto_map")) and architectures in ARCHITECTURES)

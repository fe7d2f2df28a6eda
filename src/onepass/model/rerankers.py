"""Language models that rerank, but whose files look like any other's: how they are asked, by name."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer

from onepass.errors import BadSetting
from onepass.model.pair_template import DOCUMENT, INSTRUCTION, QUERY, PairTemplate
from onepass.model.sentence_transformers import Modules


def _usually(instruction: str, template: str) -> PairTemplate:
    """The template with an instruction for those who give none."""
    return PairTemplate(template.replace(INSTRUCTION, instruction), template)


QWEN3 = _usually(
    "Given a web search query, retrieve relevant passages that answer the query",
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    f"<Instruct>: {INSTRUCTION}\n<Query>: {QUERY}\n<Document>: {DOCUMENT}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n",
)
BGE_GEMMA = _usually(
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'.",
    f"<bos>A: {QUERY}\nB: {DOCUMENT}\n{INSTRUCTION}",
)


@dataclass(frozen=True, slots=True)
class Reranker:
    """How a language model is asked whose files do not say it.

    yes, no: the token whose score counts, and one whose score is taken off.
    """

    template: PairTemplate
    yes: str
    no: str | None


RERANKERS = {
    "qwen3": Reranker(QWEN3, "yes", "no"),
    "bge-gemma": Reranker(BGE_GEMMA, "Yes", None),
}
"""As the cards of Qwen3-Reranker and bge-reranker-v2-gemma have it."""


def asked_as(name: str | None, modules: Modules | None, architecture: str, tokenizer: Tokenizer) -> Modules | None:
    """`modules`, or what they are of a model that is asked as the reranker `name` is. Raises BadSetting."""
    if name is None:
        return modules
    if name not in RERANKERS:
        raise BadSetting(f"reranker {name!r} is unknown; choose {' or '.join(RERANKERS)}")
    if modules is not None or not architecture.endswith(("ForCausalLM", "LMHeadModel")):
        raise BadSetting(
            f"reranker is {name!r}, but this model's files say what it does; leave the setting out, it is for language "
            "models without modules.json"
        )
    known = RERANKERS[name]

    def id_of(word: str) -> int:
        id: int | None = tokenizer.token_to_id(word)
        if id is None:
            raise BadSetting(f"reranker is {name!r}, but the model has no token {word!r}; it is another kind of model")
        return id

    scored = (id_of(known.yes), None if known.no is None else id_of(known.no))
    return Modules(task="text-generation", scored=scored, pairs=known.template)

"""A model as it lies on disk, read once into one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from onepass.errors import BadCheckpoint, BadSetting, UnsupportedOption
from onepass.model.adapters import with_adapter
from onepass.model.bge_m3 import COLBERT, COMPARED, read_bge_m3
from onepass.model.classification import finish_of, labels_of
from onepass.model.config import Config
from onepass.model.families import family_of
from onepass.model.families.family import Family, Tensors
from onepass.model.gritlm import read_gritlm
from onepass.model.heads import L2, HeadSpec, Linear, Norm, Pool, Step, Truncate, Vocabulary
from onepass.model.hub import locate
from onepass.model.llm2vec import read_llm2vec
from onepass.model.multivector import LATE, MultiVector, fitted, read_multivector
from onepass.model.own_heads import OwnHeads, read_heads, tensors_of
from onepass.model.rerankers import asked_as
from onepass.model.sentence_transformers import Modules, read_modules
from onepass.model.sparse_modules import SPLADE, TokenTable, over_scores, read_table
from onepass.model.spec import EncoderSpec
from onepass.model.stanford import read_stanford, stanford_head
from onepass.model.tensor_files import StoredTensor, open_tensors
from onepass.model.tokenizer_files import NO_LIMIT, TokenizerFiles, read_tokenizer
from onepass.model.weights import Weights, check, gather, has_all, head_width, without_prefix

__all__ = ["Checkpoint", "TokenizerFiles", "load_checkpoint"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """name: as the user gave it.  revision: the commit of a hub download, or None.  family: its model_type.

    heads: by name, which is the head's kind but where the checkpoint gives names of its own.
    widths: of each head's rows, after the checkpoint's own truncation.
    weights: float32, under the names of model/weights.py.  max_length: tokens of one row, special tokens included.
    prompts: text put before inputs, by name.  default_prompt: a name in prompts, or None.
    multivector: how texts become the rows of a multivector head, and which of their tokens have vectors; None where
    there is no such head.
    table: what reads queries for sparse vectors instead of the trunk, or None.  most_weights: of a sparse vector, where
    the checkpoint limits them.
    adapter: the task whose adapter is merged into the weights, of a model that has several.
    own: what onepass_heads.json says, where there is one.
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
    widths: Mapping[str, int]
    multivector: MultiVector | None = None
    table: TokenTable | None = None
    most_weights: int | None = None
    adapter: str | None = None
    own: OwnHeads | None = None
    notes: tuple[str, ...] = ()

    @property
    def defaults(self) -> Mapping[str, str]:
        """By task the head that answers it unless another is asked for, where the checkpoint says so."""
        return {} if self.own is None else self.own.defaults

    @property
    def dimensions(self) -> int:
        """Width of the first embed head's rows, 0 where there is none."""
        return next((self.widths[name] for name, head in self.heads.items() if head.kind == "embed"), 0)


def load_checkpoint(
    model: str | Path,
    *,
    revision: str | None = None,
    max_length: int | None = None,
    adapter: str | None = None,
    reranker: str | None = None,
) -> Checkpoint:
    """Read a Hugging Face folder, or download a hub id first, as HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and proxies say.

    max_length, adapter, reranker: as the settings of these names. Raises BadSetting, BadCheckpoint and its kinds.
    """
    notes: list[str] = []
    path, commit = locate(str(model), revision)
    modules = read_modules(path, notes) or read_llm2vec(path, notes) or read_gritlm(path, notes) or read_stanford(path)
    folder = path if modules is None else path / modules.trunk
    config = _config(folder).changed({} if modules is None else modules.changes)
    spec = (family := family_of(config)).spec(config)
    tokenizer = _tokenizer(folder, config, family, spec, modules, notes)
    saved = Config.read_if_there(path / "config_sentence_transformers.json", "config_sentence_transformers.json")
    modules = asked_as(reranker, modules, _architecture(config), tokenizer.library)
    stored = without_prefix(open_tensors(folder), family.prefixes)
    own = read_heads(path)
    if own is None:
        planned, head_tensors, names = _heads(config, family, modules, saved, notes)
        planned, names = _with_weights(planned, names, stored, notes)
        beside, beside_tensors = read_bge_m3(path, tokenizer.library, notes)
        heads, head_tensors = {head.kind: head for head in planned + beside}, head_tensors | beside_tensors
    else:
        heads = {name: _truncated(head, saved) for name, head in own.heads.items()}
        head_tensors, names = {}, tensors_of(own.heads, spec)
    sources = with_adapter({**family.trunk(spec, config), **names}, stored, config, adapter, notes)
    weights = gather(stored, sources, spec, family.unread) | head_tensors
    if own is None and modules is not None and modules.scored is not None:
        heads["classify"], weights = _logit_score(heads["classify"], modules.scored, weights)
    heads = {name: _without_missing_biases(head, weights) for name, head in heads.items()}
    check(spec, heads, weights)
    prompts, default_prompt = _prompts(saved, config, modules, adapter)
    limit = _max_length(folder, config, spec, modules, max_length, notes)
    compared = _compared(heads, modules, tokenizer, spec, limit, max_length)
    return Checkpoint(
        name=str(model),
        path=path,
        revision=commit,
        family=family.model_type,
        spec=spec,
        heads=MappingProxyType(heads),
        weights=MappingProxyType(weights),
        tokenizer=_used(tokenizer, modules),
        max_length=limit if compared is None else compared.length,
        prompts=MappingProxyType(prompts),
        default_prompt=default_prompt,
        widths=MappingProxyType({name: head_width(head, spec.width, weights) for name, head in heads.items()}),
        multivector=compared,
        table=None if modules is None or modules.table is None else read_table(path, modules.table, config, notes),
        most_weights=saved.integer("max_active_dims", 0, least=1) if saved.get("max_active_dims") else None,
        adapter=adapter,
        own=own,
        notes=tuple(notes),
    )


def _tokenizer(
    folder: Path, config: Config, family: Family, spec: EncoderSpec, modules: Modules | None, notes: list[str]
) -> TokenizerFiles:
    return read_tokenizer(
        folder,
        config,
        types=family.types and spec.embed.types > 1,
        pad_id=config.integer("pad_token_id", family.pad_id),
        lower=modules is not None and modules.lower,
        notes=notes,
    )


def _used(tokenizer: TokenizerFiles, modules: Modules | None) -> TokenizerFiles:
    if modules is None:
        return tokenizer
    return replace(tokenizer, text_only=modules.text_only, pairs=modules.pairs)


def _config(folder: Path) -> Config:
    if not (folder / "config.json").is_file():
        raise BadCheckpoint(
            f"{folder} has no config.json, so it is no model; give the folder that save_pretrained wrote"
        )
    return Config.read(folder / "config.json", "config.json")


HEADS = {
    "ForSequenceClassification": "classify",
    "ForTokenClassification": "tag",
    "ForQuestionAnswering": "answer",
    "ForMaskedLM": "fill",
    "ForCausalLM": "next",
    "LMHeadModel": "next",
    "HF_ColBERT": "multivector",
}
"""What the end of an architecture's name says about its head."""

LABELLED = ("classify", "tag")
TRUNKS = ("Model", "ForPreTraining", "ForMaskedLM", "ForCausalLM", "ForConditionalGeneration", "Encoder")


def _heads(
    config: Config, family: Family, modules: Modules | None, saved: Config, notes: list[str]
) -> tuple[list[HeadSpec], dict[str, NDArray[np.float32]], Tensors]:
    """The heads, their tensors from module folders, and where in the model's own files the others come from.

    A language model's own head comes first; "embed", which comes last, needs no tensors.
    """
    saved.only("model_type", "SentenceTransformer", "CrossEncoder", "SparseEncoder", *LATE)
    architecture = _architecture(config)
    if modules is not None and (modules.head is not None or modules.scored is not None):
        return _module_heads(modules, architecture, config, family, saved, notes)
    name = next((name for end, name in HEADS.items() if architecture.endswith(end)), None)
    reader = stanford_head if name == "multivector" else family.heads.get(name or "")
    if isinstance(reader, str):
        raise UnsupportedOption(f"config.json names the architecture {architecture!r}, which is not served: {reader}")
    if reader is not None:
        head, tensors = reader(config)
        if name in LABELLED:
            labels = labels_of(config)
            head = replace(head, labels=labels)
            if name == "classify":
                head = replace(head, finish=finish_of(config, saved, len(labels), notes))
        if not architecture.endswith(TRUNKS):
            return [head], {}, tensors
        sparse = [over_scores(SPLADE, head)] if name == "fill" else []
        return [head, *sparse, _plain_embed(config, saved, notes)], {}, tensors
    if architecture.endswith(TRUNKS):
        return [_plain_embed(config, saved, notes)], {}, {}
    served = ", ".join(end for end, name in HEADS.items() if callable(family.heads.get(name)))
    raise UnsupportedOption(
        f"config.json names the architecture {architecture!r}, whose head is not served; of the family "
        f"{family.model_type} plain models{', ' if served else ''}{served} are"
    )


def _with_weights(
    planned: list[HeadSpec], names: Tensors, stored: Mapping[str, StoredTensor], notes: list[str]
) -> tuple[list[HeadSpec], Tensors]:
    """Without the head of a language model whose file has no weights for it, where there is another."""
    if len(planned) == 1 or has_all(stored, names):
        return planned, names
    notes.append(f"The file has no weights for the head {planned[0].kind!r} of its architecture; it is left out.")
    return planned[-1:], {}


def _module_heads(
    modules: Modules, architecture: str, config: Config, family: Family, saved: Config, notes: list[str]
) -> tuple[list[HeadSpec], dict[str, NDArray[np.float32]], Tensors]:
    """What modules.json makes of the trunk, or of a language model's own head."""
    if modules.head is not None and modules.task == "fill-mask":
        reader = family.heads.get("fill")
        if reader is None or isinstance(reader, str):
            raise UnsupportedOption(f"modules.json needs scores for masked tokens, which {family.model_type} has not")
        fill, tensors = reader(config)
        return [over_scores(modules.head, fill)], {}, tensors
    if modules.head is not None:
        if isinstance(reason := family.heads.get("embed"), str):
            raise UnsupportedOption(f"modules.json makes a {family.model_type} model an embedder: {reason}")
        return [_truncated(modules.head, saved)], modules.tensors, {}
    # a language model that reranks by what it says next, before _logit_score reads its matrix
    reader = family.heads.get("next")
    if not architecture.endswith(("ForCausalLM", "LMHeadModel")) or reader is None or isinstance(reader, str):
        raise UnsupportedOption(
            f"modules.json's LogitScore needs a language model, but config.json names the architecture {architecture!r}"
        )
    head, tensors = reader(config)
    finish = finish_of(config, saved, 1, notes)
    return [replace(head, kind="classify", finish=finish, labels=("score",))], {}, tensors


def _logit_score(
    head: HeadSpec, tokens: tuple[int, int | None], weights: dict[str, NDArray[np.float32]]
) -> tuple[HeadSpec, dict[str, NDArray[np.float32]]]:
    """sentence-transformers' LogitScore: of the vocabulary's matrix, one row, or one row less another."""
    (step,) = head.per_token
    assert isinstance(step, Vocabulary)
    matrix = weights[step.weight]
    rows = [token for token in tokens if token is not None]
    for token in rows:
        if token >= len(matrix):
            raise BadCheckpoint(
                f"modules.json's LogitScore reads token {token}, but the vocabulary has {len(matrix)} tokens"
            )
    row = matrix[rows[:1]] - matrix[rows[1:]].sum(axis=0)
    kept = {name: tensor for name, tensor in weights.items() if name == "embed.word" or name != step.weight}
    head = replace(head, pool=Pool(("last",)), per_token=(), per_row=(Linear("classify.0.weight"),))
    return head, kept | {"classify.0.weight": row}


def _plain_embed(config: Config, saved: Config, notes: list[str]) -> HeadSpec:
    """What sentence-transformers does without modules.json."""
    last = _architecture(config).endswith("ForCausalLM") and config.get("is_causal") is not False
    notes.append(
        f"There is no Pooling module: vectors are the {'last token' if last else 'mean over tokens'}, not normalised."
    )
    return _truncated(HeadSpec("embed", Pool(("last",) if last else ("mean",))), saved)


def _without_missing_biases(head: HeadSpec, weights: Weights) -> HeadSpec:
    """Steps whose bias the family calls optional and the file lacks have none."""

    def mended(step: Step) -> Step:
        if isinstance(step, Linear | Norm | Vocabulary) and step.bias not in weights:
            return replace(step, bias=None)
        return step

    return replace(head, per_token=tuple(map(mended, head.per_token)), per_row=tuple(map(mended, head.per_row)))


def _architecture(config: Config) -> str:
    names = config.get("architectures") or ["Model"]
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise config.wrong("architectures", "a list of class names")
    return names[0]


def _truncated(head: HeadSpec, saved: Config) -> HeadSpec:
    """sentence-transformers cuts after all modules and does not normalise again."""
    if head.kind != "embed" or saved.get("truncate_dim") is None:
        return head
    width = Truncate(saved.integer("truncate_dim", 0, least=1))
    normalise = (L2(),) if head.finish == "l2" else ()
    return replace(head, per_row=(*head.per_row, *normalise, width), finish="none")


def _compared(
    heads: Mapping[str, HeadSpec],
    modules: Modules | None,
    tokenizer: TokenizerFiles,
    spec: EncoderSpec,
    limit: int,
    asked: int | None,
) -> MultiVector | None:
    """What surrounds the vectors of a multivector head, if there is one."""
    late = [head for head in heads.values() if head.kind == "multivector"]
    if not late:
        return None
    if modules is not None and modules.late is not None:
        return fitted(read_multivector(modules.late, tokenizer), spec, limit, asked)
    return fitted(COMPARED if late == [COLBERT] else MultiVector(), spec, limit, asked)


USUAL_LENGTH = 512  # where neither positions nor any file limit a row


def _max_length(
    folder: Path, config: Config, spec: EncoderSpec, modules: Modules | None, asked: int | None, notes: list[str]
) -> int:
    limit = spec.max_tokens
    if asked is not None:
        if asked < 1 or (limit is not None and asked > limit):
            raise BadSetting(
                f"max_length is {asked}, but this model takes rows of 1 to {limit} tokens; choose one of these"
            )
        return asked
    own = None if modules is None else modules.max_length
    if own is None:
        tokenizer = Config.read_if_there(folder / "tokenizer_config.json", "tokenizer_config.json")
        own = tokenizer.integer("model_max_length", NO_LIMIT, least=1)
        if limit is None:
            trained = [config.integer(key, NO_LIMIT, least=1) for key in ("n_positions", "max_position_embeddings")]
            own = min(own, *trained)
            own = USUAL_LENGTH if own >= NO_LIMIT else own
    elif limit is not None and own > limit:
        notes.append(f"max_seq_length is {own}, but there are positions for {limit} tokens only, which is the limit.")
    return own if limit is None else min(own, limit)


def _prompts(
    saved: Config, config: Config, modules: Modules | None, adapter: str | None
) -> tuple[dict[str, str], str | None]:
    """Texts by name, and the name of the one to use where none is asked for: an adapter goes with its task's prompt."""
    own = Modules() if modules is None else modules
    late = {} if own.late is None else own.late.prompts
    prompts = {**own.prompts, **(saved.texts("prompts") or config.texts("task_instructions")), **late}
    default = saved.text("default_prompt_name", "") or (adapter if adapter in prompts else own.default_prompt)
    if default is not None and default not in prompts:
        raise BadCheckpoint(
            f"{saved.source} names the default prompt {default!r}, but its prompts are {', '.join(prompts) or 'none'}"
        )
    return prompts, default

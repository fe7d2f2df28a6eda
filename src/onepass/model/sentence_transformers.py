"""sentence-transformers' files: modules.json becomes a head, its neighbours prompts and limits.

Semantics as in sentence-transformers 6.2; a module's class is told by the last component of its dotted name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onepass.errors import BadCheckpoint, UnsupportedOption
from onepass.model.config import Config, read_json
from onepass.model.heads import L2, Activation, HeadSpec, Linear, Norm, Pool, PoolKind, Step
from onepass.model.multivector import Said, is_multivector, normalises, said_by_modules
from onepass.model.pair_template import PairTemplate, read_chat, read_pair_template
from onepass.model.sparse_modules import ROUTERS, inside, routes, splade
from onepass.model.spec import ActivationKind, NormSpec
from onepass.model.tensor_files import open_tensors
from onepass.model.weights import gather

POOLINGS: dict[str, PoolKind] = {
    "cls": "first",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
# The old spelling is a flag per mode; several are concatenated in this order.
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
TORCH: dict[str, ActivationKind | None] = {
    "Identity": None,
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}
TRANSFORMERS = {"Transformer": "feature-extraction", "MLMTransformer": "fill-mask"}
"""What a module that runs a model is loaded for."""

TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
MASK = "MultiVectorMask"
LAYER_NORM_EPS = 1e-5  # torch's default, which the LayerNorm module keeps


@dataclass(slots=True)
class Modules:
    """What modules.json says.

    trunk: the folder of config.json, relative to the checkpoint's.  task: what the Transformer module is loaded for.
    head: None where nothing pools (a CrossEncoder); of a SparseEncoder what follows the scores of the model's own head.
    tensors: the head's, by the names its steps use.  table: the folder of what reads queries instead of the trunk.
    scored: of a language model that reranks, the token whose score counts, and one whose score is taken off.
    late: of a late-interaction model, what is said of queries and documents.  pairs: the text that pairs are put into.
    changes: to the trunk's config.json.  text_only: neither a prompt nor special tokens before a text are pooled.
    prompts, default_prompt: beside and instead of those that config_sentence_transformers.json names.
    """

    trunk: str = ""
    task: str = "feature-extraction"
    max_length: int | None = None
    lower: bool = False
    head: HeadSpec | None = None
    scored: tuple[int, int | None] | None = None
    late: Said | None = None
    pairs: PairTemplate | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    text_only: bool = False
    table: str | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    tensors: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def read_modules(folder: Path, notes: list[str]) -> Modules | None:
    """None where the folder has no modules.json. Raises BadCheckpoint, and UnsupportedOption for a module by name."""
    if not (folder / "modules.json").is_file():
        return None
    listed, table = _listed(folder), None
    if listed and listed[0][0] in ROUTERS:
        document, table = routes(folder, listed[0][1])
        listed[:1] = document
    if not listed or listed[0][0] not in TRANSFORMERS:
        first = listed[0][0] if listed else "nothing"
        raise UnsupportedOption(f"modules.json begins with {first}; only a Transformer module can come first")
    said = _transformer_config(folder, listed[0][1])
    modules = _transformer(said, listed[0][1], TRANSFORMERS[listed[0][0]])
    modules.pairs = _pairs(folder / listed[0][1], said, modules.task, [name for name, _ in listed[1:]])
    names = [name for name, _ in listed]
    if modules.task == "fill-mask" or "SpladePooling" in names or table is not None:
        said.only("query_expansion")
        return _sparse(folder, modules, listed, table)
    saved = Config.read_if_there(folder / "config_sentence_transformers.json", "config_sentence_transformers.json")
    if is_multivector(saved):
        return _late(folder, modules, listed, saved, said, notes)
    said.only("query_expansion")
    if names[1:] == ["LogitScore"]:
        modules.scored = _scored(_config(folder, listed[1][1]))
    elif len(listed) > 1:
        modules.head = _head("embed", folder, listed[1:], modules.tensors, notes)
    return modules


def _sparse(folder: Path, modules: Modules, listed: list[tuple[str, str]], table: str | None) -> Modules:
    """Weights of vocabulary tokens."""
    names = [name for name, _ in listed]
    if modules.task != "fill-mask" or names[1:] != ["SpladePooling"]:
        raise UnsupportedOption(
            f"modules.json chains {', '.join(names)} for {modules.task}; of sparse encoders only a masked language "
            "model with SpladePooling is implemented"
        )
    modules.head, modules.table = splade(_config(folder, listed[1][1])), table
    return modules


def _late(
    folder: Path, modules: Modules, listed: list[tuple[str, str]], saved: Config, said: Config, notes: list[str]
) -> Modules:
    """A vector per token, with what is said of the tokens.  said: the config of the module Transformer."""
    mask = next((path for kind, path in listed if kind == MASK), None)
    tokenizer = Config.read_if_there(folder / modules.trunk / "tokenizer_config.json", "tokenizer_config.json")
    modules.late = said_by_modules(saved, said, Config({}, MASK) if mask is None else _config(folder, mask), tokenizer)
    steps = [module for module in listed[1:] if module[0] != MASK]
    modules.head = _head("multivector", folder, steps, modules.tensors, notes)
    if normalises(saved):
        modules.head = replace(modules.head, finish="l2")
    return modules


def _config(folder: Path, path: str) -> Config:
    """A module's own settings."""
    return Config.read_if_there(folder / path / "config.json", f"{path}/config.json")


def _head(
    task: Literal["embed", "multivector"],
    folder: Path,
    listed: list[tuple[str, str]],
    tensors: dict[str, NDArray[np.float32]],
    notes: list[str],
) -> HeadSpec:
    """The modules behind the Transformer as one head, whose tensors go into `tensors`."""
    many = task == "multivector"
    before: list[Step] = []
    after: list[Step] = []
    pool = Pool(("tokens",)) if many else None
    for index, (kind, path) in enumerate(listed, start=1):
        config = _config(folder, path)
        if kind == "Pooling" and pool is None:
            pool = _pooling(config)
        elif kind in ("Dense", "Normalize", "LayerNorm"):
            _same_place(config, "token_embeddings" if many or pool is None else "sentence_embedding", stated=not many)
            steps = before if pool is None else after
            steps += _steps(kind, folder / path, f"{task}.{index}", config, tensors, notes)
        elif kind != "Dropout":  # which does nothing outside training
            raise UnsupportedOption(f"modules.json uses the module {kind} as number {index}, which is not implemented")
    if pool is None:
        raise UnsupportedOption(
            "modules.json has no Pooling module; only checkpoints with one vector per text are served"
        )
    # a last Normalize is the head's finish, so that a caller can ask for the vector without it
    ends_normal = bool(after) and isinstance(after[-1], L2)
    steps_after = tuple(after[:-1] if ends_normal else after)
    return HeadSpec(task, pool, tuple(before), steps_after, "l2" if ends_normal else "none")


def _listed(folder: Path) -> list[tuple[str, str]]:
    """(class, path) of each module, in order."""
    entries = read_json(folder / "modules.json", "modules.json")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadCheckpoint("modules.json must hold a list of modules")
    listed = []
    for entry in entries:
        module = Config(entry, "modules.json")
        listed.append((module.text("type", "").rpartition(".")[2], inside(module.text("path", ""), "modules.json")))
    return listed


def _transformer_config(folder: Path, path: str) -> Config:
    name = next((name for name in TRANSFORMER_CONFIGS if (folder / path / name).is_file()), TRANSFORMER_CONFIGS[0])
    return Config.read_if_there(folder / path / name, name)


def _pairs(folder: Path, said: Config, task: str, followed: list[str]) -> PairTemplate | None:
    """followed: the classes of the modules behind the Transformer."""
    chat = read_chat(said)
    if chat is None:
        return None
    if task not in ("sequence-classification", "text-generation") or followed not in ([], ["LogitScore"]):
        raise UnsupportedOption(f"{said.source} puts single texts into a chat template, which is not done here")
    return read_pair_template(folder, chat)


def _transformer(config: Config, path: str, task: str) -> Modules:
    """task: what the module is loaded for where its file does not say."""
    config.only("transformer_task", "feature-extraction", "sequence-classification", "text-generation", "fill-mask")
    return Modules(
        trunk=path,
        task=config.text("transformer_task", task),
        max_length=None if config.get("max_seq_length") is None else config.integer("max_seq_length", 0, least=1),
        lower=config.flag("do_lower_case", False),
    )


def _scored(config: Config) -> tuple[int, int | None]:
    other = None if config.get("false_token_id") is None else config.integer("false_token_id", 0)
    if config.get("true_token_id") is None:
        raise config.wrong("true_token_id", "a token id")
    return config.integer("true_token_id", 0), other


def _pooling(config: Config) -> Pool:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in FLAGS.items() if config.flag(key, False)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes:
        raise config.wrong("pooling_mode", "a name or a list of names")
    kinds = []
    for mode in modes:
        if not isinstance(mode, str) or mode not in POOLINGS:
            raise UnsupportedOption(
                f"{config.source} sets pooling_mode to {mode!r}, which is not implemented; known are "
                f"{', '.join(POOLINGS)}"
            )
        kinds.append(POOLINGS[mode])
    return Pool(tuple(kinds), skip_prompt=not config.flag("include_prompt", True))


def _same_place(config: Config, place: str, *, stated: bool) -> None:
    """A module reads and writes what the chain has at this point, or it is refused.

    stated: whether its silence means sentence_embedding.
    """
    for key in ("module_input_name", "module_output_name"):
        value = config.text(key, "sentence_embedding" if stated and key == "module_input_name" else place)
        if value != place:
            raise UnsupportedOption(f"{config.source} sets {key} to {value!r}, where only {place!r} is implemented")


def _steps(
    kind: str, folder: Path, name: str, config: Config, tensors: dict[str, NDArray[np.float32]], notes: list[str]
) -> list[Step]:
    """Steps of one module; its tensors go into `tensors` under names that begin with `name`."""
    if kind == "Normalize":
        return [L2()]
    stored = open_tensors(folder, f"{folder.name}/")
    if kind == "LayerNorm":
        tensors |= gather(stored, {f"{name}.weight": "norm.weight", f"{name}.bias": "norm.bias"})
        return [Norm(NormSpec("layer", LAYER_NORM_EPS), f"{name}.weight", f"{name}.bias")]
    bias = f"{name}.bias" if config.flag("bias", True) else None
    residual: bool | str = config.flag("use_residual", False)
    wanted = {f"{name}.weight": "linear.weight"}
    if bias:
        wanted[bias] = "linear.bias"
    if residual and config.get("in_features") != config.get("out_features"):
        residual = f"{name}.residual"
        wanted[residual] = "residual.weight"
    tensors |= gather(stored, wanted)
    activation = _dense_activation(config, notes)
    if residual or activation is None:
        return [Linear(f"{name}.weight", bias, residual, activation)]
    return [Linear(f"{name}.weight", bias), Activation(activation)]


def _dense_activation(config: Config, notes: list[str]) -> ActivationKind | None:
    name = config.text("activation_function", "torch.nn.modules.activation.Tanh")
    if not name.startswith("torch."):
        notes.append(f"{config.source} names the activation {name!r}, which is not torch's; Tanh is used instead.")
        return "tanh"
    kind = name.rpartition(".")[2]
    if kind not in TORCH:
        raise UnsupportedOption(
            f"{config.source} sets activation_function to {name!r}, which is not implemented; known are "
            f"{', '.join(TORCH)} of torch.nn"
        )
    return TORCH[kind]

"""sentence-transformers' modules of a SparseEncoder: SpladePooling, SparseStaticEmbedding, and Router before them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from onepass.errors import BadCheckpoint, UnsupportedOption
from onepass.model.config import Config
from onepass.model.heads import Activation, HeadSpec, Pool
from onepass.model.tensor_files import open_tensors
from onepass.model.tokenizer_files import NO_LIMIT, TokenizerFiles, read_tokenizer
from onepass.model.weights import gather

Chain = list[tuple[str, str]]
"""(class, path) of modules, in order."""

ROUTERS = ("Router", "Asym")  # new name and old


@dataclass(frozen=True, slots=True)
class TokenTable:
    """What reads queries without a forward pass: the distinct ids of a text, each with its weight.

    weights: float32 [vocabulary].  tokenizer: puts no special tokens around a text.  max_length: of a query, in tokens.
    """

    weights: NDArray[np.float32]
    tokenizer: TokenizerFiles
    max_length: int


def splade(config: Config) -> HeadSpec:
    """SpladePooling, as what follows the vocabulary's scores: log(1 + relu(x)), once or twice, then max or sum."""
    config.only("pooling_strategy", "max", "sum")
    config.only("activation_function", "relu", "log1p_relu")
    twice = config.get("activation_function") == "log1p_relu"
    pool = Pool(("sum" if config.get("pooling_strategy") == "sum" else "max",))
    return HeadSpec("sparse", pool, per_token=(Activation("relu_log1p"),) * (1 + twice), sparse=True)


SPLADE = splade(Config({}, ""))
"""What sentence-transformers reads from a masked language model without modules."""


def over_scores(head: HeadSpec, fill: HeadSpec) -> HeadSpec:
    """A sparse head over the scores that a "fill" head gives each token."""
    return replace(head, per_token=(*fill.per_token, *head.per_token))


def routes(folder: Path, router: str) -> tuple[Chain, str | None]:
    """What a Router makes of documents, and the folder of the SparseStaticEmbedding that reads queries.

    None where queries go the way of documents. Raises UnsupportedOption for other ways.
    """
    source = joined(router, "router_config.json")
    if router and not (folder / source).is_file():  # as it was saved at first
        source = joined(router, "config.json")
    config = Config.read(folder / source, source)
    document, query = (_route(config, task, router) for task in ("document", "query"))
    if query == document:
        return document, None
    if [kind for kind, _ in query] == ["SparseStaticEmbedding"]:
        return document, query[0][1]
    ways = " and ".join(kind for kind, _ in query)
    raise UnsupportedOption(
        f"{source} sends queries through {ways}; only the way of documents and SparseStaticEmbedding are implemented"
    )


def _route(config: Config, task: str, router: str) -> Chain:
    """The modules for texts of a task, as Router looks them up: by its mappings, by the task, by the modality."""
    types, ways = config.texts("types"), config.get("structure")
    if not isinstance(ways, dict):
        raise config.wrong("structure", "an object of lists of module names")
    if not isinstance(parameters := config.get("parameters") or {}, dict):
        raise config.wrong("parameters", "an object")
    mappings = Config(parameters, config.source).texts("route_mappings")
    keys = [str(key) for key in ((task, "text"), (task, None), (None, "text"), (None, None))]
    name = next((mappings[key] for key in keys if key in mappings), None)
    name = name or next((name for name in (task, "text") if name in ways), None)
    if name is None:
        raise UnsupportedOption(f"{config.source} has no route for a text that is a {task}; it has {', '.join(ways)}")
    modules = ways.get(name)
    if not isinstance(modules, list) or not all(isinstance(module, str) and module in types for module in modules):
        raise BadCheckpoint(f"{config.source} names modules in the route {name!r} that it gives no type")
    return [(types[module].rpartition(".")[2], inside(joined(router, module), config.source)) for module in modules]


def joined(*parts: str) -> str:
    return "/".join(filter(None, parts))


def inside(path: str, source: str) -> str:
    """A path that a file names. Raises BadCheckpoint where it leads out of the checkpoint."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise BadCheckpoint(f"{source} points outside the checkpoint with the path {path!r}")
    return path


def read_table(folder: Path, path: str, config: Config, notes: list[str]) -> TokenTable:
    """SparseStaticEmbedding: its own tokenizer, and weights in a tensor or in a JSON object by token.

    path: of the module in the checkpoint's `folder`.  config: the model's.
    """
    module = folder / path
    tokenizer = read_tokenizer(module, config, types=False, pad_id=0, lower=False, notes=notes)
    tokenizer.library.post_processor = None  # special tokens would get weights, too
    own = Config.read_if_there(module / "config.json", f"{path}/config.json")
    if own.text("path", "").endswith(".json"):
        weights = _weights_by_token(folder, path, own, tokenizer)
    else:
        weights = gather(open_tensors(module, f"{path}/"), {"weights": "weight"})["weights"]
    if weights.ndim != 1:
        raise BadCheckpoint(f"{path} holds weights of shape {list(weights.shape)}; there must be one for each token")
    settings = Config.read_if_there(module / "tokenizer_config.json", f"{path}/tokenizer_config.json")
    return TokenTable(weights, tokenizer, settings.integer("model_max_length", NO_LIMIT, least=1))


def _weights_by_token(folder: Path, path: str, config: Config, tokenizer: TokenizerFiles) -> NDArray[np.float32]:
    name = inside(config.text("path", ""), config.source)
    places = (joined(path, name), name)
    source = next((place for place in places if (folder / place).is_file()), None)
    if source is None:
        raise BadCheckpoint(f"{config.source} names the file {name!r}, which is not in {folder}; download it again")
    table = Config.read(folder / source, source)
    weights = np.zeros(tokenizer.library.get_vocab_size(), np.float32)
    for token in table.values:
        if (id := tokenizer.library.token_to_id(token)) is None:
            raise BadCheckpoint(f"{source} weighs {token!r}, which is no token of {path}")
        weights[id] = table.number(token, 0.0)
    return weights

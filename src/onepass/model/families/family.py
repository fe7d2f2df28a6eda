"""What a family file says: how a config.json becomes a spec, where its tensors come from, what its heads are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onepass.errors import UnsupportedOption
from onepass.model.config import Config
from onepass.model.heads import Activation, HeadSpec, Linear, Norm, Pool, Step, Vocabulary
from onepass.model.spec import ActivationKind, EncoderSpec, NormSpec
from onepass.model.weights import IfThere, OneOf, Source, renamed, shapes

Tensors = Mapping[str, Source]
Head = tuple[HeadSpec, Tensors]
"""A head without its labels, and where its tensors come from."""

HeadReader = Callable[[Config], Head]


@dataclass(frozen=True, slots=True)
class Family:
    """One model_type.

    spec: reads config.json; raises UnsupportedOption for what it does not implement.
    prefixes: put before the trunk's tensors by models with a head; the first that matches is cut off.
    tensors: our name -> where it comes from, or a function of the config that says so; `{}` stands for the layer's
    weight group, a last `*` for weight and bias, a last `?` for weight and, if the file has one, bias.
    heads: by the name that tasks know them by: classify (a row's labels), tag (a token's), answer (where an answer
    starts and ends), fill (a masked token), next (what follows a token); a str says why one is not served,
    under "embed" why a sentence-transformers model is not.
    unread: parts of names of tensors that files carry although nothing reads them.
    pad_id: where config.json says none.  types: whether its tokenizer gives token type ids.
    """

    model_type: str
    spec: Callable[[Config], EncoderSpec]
    prefixes: tuple[str, ...]
    tensors: Tensors | Callable[[Config], Tensors]
    pad_id: int
    types: bool
    heads: Mapping[str, HeadReader | str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    def trunk(self, spec: EncoderSpec, config: Config) -> dict[str, Source]:
        """Our name -> where it comes from, for each tensor that this spec needs."""
        possible = shapes(spec)
        groups = {layer.weights for layer in spec.layers}
        tensors = self.tensors(config) if callable(self.tensors) else self.tensors
        names: dict[str, Source] = {}
        for ours, source in tensors.items():
            for group in groups if "{}" in ours else {0}:
                for name, file in parts(ours.replace("{}", str(group)), at_layer(source, group)):
                    if name in possible:
                        names[name] = file
        return names


def at_layer(source: Source, group: int) -> Source:
    return renamed(source, lambda name: name.replace("{}", str(group)))


def parts(ours: str, source: Source) -> list[tuple[str, Source]]:
    """`ours` with its last `*` or `?` written out as weight and bias, each with its source."""
    stem, mark = ours[:-1], ours[-1]
    if mark not in "*?":
        return [(ours, source)]
    weight, bias = renamed(source, lambda name: name[:-1] + "weight"), renamed(source, lambda name: name[:-1] + "bias")
    if mark == "?":
        assert not isinstance(bias, OneOf | IfThere)
        bias = IfThere(bias)
    return [(f"{stem}weight", weight), (f"{stem}bias", bias)]


# Heads, as most families have them. A step is (linear layer's name in the file, what follows it); `?` after the name
# means that its bias may be missing.

Layer = tuple[str, ActivationKind | None]


def linears(head: str, layers: tuple[Layer, ...]) -> tuple[tuple[Step, ...], dict[str, Source]]:
    """Steps over linear layers of the file, and their tensors as {head}.{index}.weight and .bias."""
    steps: list[Step] = []
    tensors: dict[str, Source] = {}
    for index, (linear, activation) in enumerate(layers):
        mark = "?" if linear.endswith("?") else "*"
        steps.append(Linear(f"{head}.{index}.weight", f"{head}.{index}.bias"))
        tensors |= dict(parts(f"{head}.{index}.{mark}", f"{linear.removesuffix('?')}.{mark}"))
        if activation is not None:
            steps.append(Activation(activation))
    return tuple(steps), tensors


def classifier(*layers: Layer, pool: Pool | None = None) -> HeadReader:
    """ForSequenceClassification: linear layers over a pooled row, the first token's where nothing else is said."""

    def read(config: Config) -> Head:
        steps, tensors = linears("classify", layers)
        return HeadSpec("classify", pool or Pool(("first",)), per_row=steps), tensors

    return read


def tagger(*layers: Layer) -> HeadReader:
    """ForTokenClassification: linear layers over every token."""

    def read(config: Config) -> Head:
        steps, tensors = linears("tag", layers or (("classifier", None),))
        return HeadSpec("tag", Pool(("tokens",)), per_token=steps, finish="softmax"), tensors

    return read


def answerer(*layers: Layer) -> HeadReader:
    """ForQuestionAnswering: two logits per token, that an answer starts and that it ends there."""

    def read(config: Config) -> Head:
        steps, tensors = linears("answer", layers or (("qa_outputs", None),))
        return HeadSpec("answer", Pool(("tokens",)), per_token=steps, labels=("start", "end")), tensors

    return read


def filler(
    dense: str,
    norm: Source,
    *biases: str,
    activation: ActivationKind | None = None,
    default_activation: str = "gelu",
    eps: float | None = None,
    matrix: Source | None = None,
    untied: str | None = None,
) -> HeadReader:
    """ForMaskedLM: dense, activation, norm, then scores against the word table, or against `matrix` if there is one.

    biases: names that the vocabulary's bias may have.  activation None: the config's hidden_act, or
    `default_activation`.  eps None: its layer_norm_eps.  untied: the name of the matrix where config.json says that it
    is not the word table.
    """

    def read(config: Config) -> Head:
        act = activation or config.activation("hidden_act", default_activation)
        spec = NormSpec("layer", config.number("layer_norm_eps", 1e-12) if eps is None else eps)
        weight, tensors = vocabulary_matrix(config, "fill", untied) if matrix is None else own_matrix("fill", matrix)
        steps = (
            Linear("fill.dense.weight", "fill.dense.bias"),
            Activation(act),
            Norm(spec, "fill.norm.weight", "fill.norm.bias"),
            Vocabulary(weight, "fill.vocabulary.bias"),
        )
        tensors |= {
            **dict(parts("fill.dense.*", f"{dense}.*")),
            **dict(parts("fill.norm.*", renamed(norm, lambda name: f"{name}.*"))),
            "fill.vocabulary.bias": OneOf(biases),
        }
        return HeadSpec("fill", Pool(("tokens",)), per_token=steps), tensors

    return read


def vocabulary_matrix(config: Config, head: str, untied: str | None) -> tuple[str, dict[str, Source]]:
    """Our name of the vocabulary's matrix and its source: the word table, or `untied` where config.json says so."""
    if untied is None:
        config.only("tie_word_embeddings", True)
    if untied is None or config.flag("tie_word_embeddings", True):
        return "embed.word", {}
    return own_matrix(head, untied)


def own_matrix(head: str, matrix: Source) -> tuple[str, dict[str, Source]]:
    return f"{head}.vocabulary.weight", {f"{head}.vocabulary.weight": matrix}


def predictor(matrix: str, word: str, *, tied: bool) -> HeadReader:
    """ForCausalLM: after each token, scores for the one that follows, of every token or of the read's `vocabulary`.

    matrix, word: names in the file of the vocabulary's matrix and of the word table.  tied: whether they are one where
    config.json does not say.
    """

    def read(config: Config) -> Head:
        step, tensors = bare_vocabulary(config, "next", matrix, word, tied=tied)
        return HeadSpec("next", Pool(("tokens",)), per_token=(step,)), tensors

    return read


def bare_vocabulary(config: Config, head: str, matrix: str, word: str, *, tied: bool) -> tuple[Vocabulary, Tensors]:
    """Scores without a bias, as predictor says; a file without the matrix means the word table, too."""
    if config.flag("tie_word_embeddings", tied):
        return Vocabulary(), {}
    name = f"{head}.vocabulary.weight"
    return Vocabulary(name), {name: OneOf((matrix, word))}


def refuse_foreign(config: Config, *, positions: str = "absolute", own_code: bool = False) -> None:
    """Options that no family here implements, whatever the model_type. Raises UnsupportedOption with the key.

    positions: the position_embedding_type that the family implements.  own_code: whether it implements the code that
    its files name under auto_map.
    """
    config.only("is_decoder", False)
    config.only("add_cross_attention", False)
    config.only("pruned_heads", {})
    config.only("position_embedding_type", positions)
    refuse_quantised(config)
    code = config.get("auto_map")
    if not own_code and isinstance(code, dict) and any(name.startswith("AutoModel") for name in code):
        raise UnsupportedOption(
            "config.json sets auto_map to code of its own, which is never run; no family here covers it"
        )


def refuse_quantised(config: Config) -> None:
    for key in ("quantization_config", "compression_config"):
        if config.get(key):
            raise UnsupportedOption(f"config.json sets {key}; only weights that are not quantised can be loaded")

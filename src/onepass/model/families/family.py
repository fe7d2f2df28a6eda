"""What a family file says: how a config.json becomes a spec, how tensors are named, how it classifies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onepass.errors import UnsupportedOption
from onepass.model.config import Config
from onepass.model.heads import Activation, HeadSpec, Linear, Pool, Step
from onepass.model.spec import ActivationKind, EncoderSpec
from onepass.model.weights import shapes


@dataclass(frozen=True, slots=True)
class Family:
    """One model_type.

    spec: reads config.json; raises UnsupportedOption for what it does not implement.
    prefixes: put before the trunk's tensors by models with a head; the first that matches is cut off.
    tensors: our name -> name in the file, `{}` standing for the layer and `*` for weight and bias.
    classifier: of a ForSequenceClassification, over the first token: linear layers and what follows each.
    pad_id: where config.json says none.  types: whether its tokenizer gives token type ids.
    """

    model_type: str
    spec: Callable[[Config], EncoderSpec]
    prefixes: tuple[str, ...]
    tensors: Mapping[str, str]
    classifier: tuple[tuple[str, ActivationKind | None], ...]
    pad_id: int
    types: bool

    def trunk(self, spec: EncoderSpec) -> dict[str, str]:
        """Our name -> name in the file, for each tensor that this spec needs."""
        possible = shapes(spec)
        names: dict[str, str] = {}
        for ours, theirs in self.tensors.items():
            for group in {layer.weights for layer in spec.layers} if "{}" in ours else {0}:
                for part in ("weight", "bias") if "*" in ours else ("",):
                    name = ours.replace("{}", str(group)).replace("*", part)
                    if name in possible:
                        names[name] = theirs.replace("{}", str(group)).replace("*", part)
        return names

    def classify(self, labels: tuple[str, ...]) -> tuple[HeadSpec, dict[str, str]]:
        """The head "classify" without its finish, and its tensors: our name -> name in the file."""
        steps: list[Step] = []
        names: dict[str, str] = {}
        for index, (linear, activation) in enumerate(self.classifier):
            weight, bias = f"classify.{index}.weight", f"classify.{index}.bias"
            steps.append(Linear(weight, bias))
            names |= {weight: f"{linear}.weight", bias: f"{linear}.bias"}
            if activation is not None:
                steps.append(Activation(activation))
        return HeadSpec("classify", Pool(("first",)), per_row=tuple(steps), labels=labels), names


def refuse_foreign(config: Config) -> None:
    """Options that no family here implements, whatever the model_type. Raises UnsupportedOption with the key."""
    config.only("is_decoder", False)
    config.only("add_cross_attention", False)
    config.only("pruned_heads", {})
    config.only("position_embedding_type", "absolute")
    for key in ("quantization_config", "compression_config"):
        if config.get(key):
            raise UnsupportedOption(f"config.json sets {key}; only weights that are not quantised can be loaded")
    code = config.get("auto_map")
    if isinstance(code, dict) and any(name.startswith("AutoModel") for name in code):
        raise UnsupportedOption(
            "config.json sets auto_map to code of its own, which is never run; no family here covers it"
        )

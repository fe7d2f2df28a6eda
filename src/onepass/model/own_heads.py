"""onepass_heads.json: the heads of a checkpoint that has several, each under a name of its own.

    {"heads": {"mood": {"kind": "classify", "pool": {"kinds": ["first"]},
                        "per_row": [{"step": "linear", "weight": "mood.0.weight", "bias": "mood.0.bias"}],
                        "finish": "softmax", "labels": ["good", "bad"]}},
     "defaults": {"classify": "mood"}}

Keys and values are the fields of the dataclasses in model/heads.py; a step says under "step" which of STEPS it is. A
tensor is named as in the file of weights, or is one of the trunk's under its name in model/weights.py ("embed.word").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from onepass.errors import BadCheckpoint
from onepass.model.config import Config
from onepass.model.families.family import Tensors
from onepass.model.heads import L2, SEVERAL, Activation, HeadSpec, Linear, Norm, Step, Truncate, Vocabulary
from onepass.model.spec import EncoderSpec
from onepass.model.weights import shapes, tensors_of_head

FILE = "onepass_heads.json"
STEPS: dict[str, type[Step]] = {
    "linear": Linear,
    "activation": Activation,
    "norm": Norm,
    "vocabulary": Vocabulary,
    "l2": L2,
    "truncate": Truncate,
}
KINDS = ("embed", "classify", "tag", "answer", "fill", "next", "sparse", "multivector")
OF_TOKENS = ("tag", "answer", "fill", "next", "multivector")
LABELLED = ("classify", "tag", "answer")
OF_VOCABULARY = ("fill", "next")
DEFAULTS = {
    **{kind: (kind,) for kind in ("embed", "classify", "tag", "answer", "fill", "sparse", "multivector")},
    "moderate": ("classify",),
    "rerank": ("classify", "multivector", "embed"),
    "log_probs": ("fill", "next"),
    "labels": ("classify", "embed", "fill", "next"),
}
"""Tasks that a file may give a head, with the kinds it may have."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OwnHeads:
    """heads: by name, in the file's order.  defaults: the head that answers a task unless another is asked for.

    moderation: labels by category, as `tasks.moderate` takes them, or None.
    """

    heads: Mapping[str, HeadSpec]
    defaults: Mapping[str, str] = field(default_factory=dict)
    moderation: Mapping[str, Any] | None = None


def read_heads(folder: Path) -> OwnHeads | None:
    """What the file says; None where there is none. Raises BadCheckpoint."""
    if not (folder / FILE).is_file():
        return None
    file = Config.read(folder / FILE, FILE)
    _known_keys(file.values, ["heads", "defaults", "moderation"], FILE)
    given = file.get("heads")
    if not isinstance(given, dict) or not given or "" in given:
        raise file.wrong("heads", "an object of heads by name")
    heads = {name: _made(HeadSpec, value, f"{FILE}: head {name!r}") for name, value in given.items()}
    for name, head in heads.items():
        for wrong in _wrong(head):
            raise BadCheckpoint(f"{FILE}: head {name!r} {wrong}")
    moderation = file.get("moderation")
    if moderation is not None and not isinstance(moderation, dict):
        raise file.wrong("moderation", "an object of labels by category")
    return OwnHeads(heads, _defaults(file, heads), moderation)


def _defaults(file: Config, heads: Mapping[str, HeadSpec]) -> dict[str, str]:
    defaults = file.texts("defaults")
    for task, name in defaults.items():
        if task not in DEFAULTS:
            raise BadCheckpoint(f"{FILE}: defaults has the task {task!r}; it may have {', '.join(DEFAULTS)}")
        if name not in heads or heads[name].kind not in DEFAULTS[task]:
            fitting = ", ".join(own for own, head in heads.items() if head.kind in DEFAULTS[task]) or "none"
            raise BadCheckpoint(f"{FILE}: defaults names the head {name!r} for {task}; those that fit are {fitting}")
    return defaults


def write_heads(
    folder: Path,
    heads: Mapping[str, HeadSpec],
    *,
    defaults: Mapping[str, str] | None = None,
    moderation: Mapping[str, Any] | None = None,
) -> None:
    """Write the file that `read_heads` reads. Fields that have their default are left out."""
    file: dict[str, Any] = {"heads": {name: _plain(head) for name, head in heads.items()}}
    file |= {"defaults": dict(defaults)} if defaults else {}
    file |= {"moderation": dict(moderation)} if moderation else {}
    (folder / FILE).write_text(json.dumps(file, indent=2) + "\n", encoding="utf-8")


def tensors_of(heads: Mapping[str, HeadSpec], spec: EncoderSpec) -> Tensors:
    """Our name -> the same name in the file, for each tensor that only the heads read."""
    of_trunk = shapes(spec)
    return {name: name for head in heads.values() for name in tensors_of_head(head) if name not in of_trunk}


def _plain(value: Any) -> Any:
    """A dataclass as JSON has it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not is_dataclass(value):
        return value
    named = next(({"step": name} for name, step in STEPS.items() if type(value) is step), {})
    set_here = [field.name for field in fields(value) if getattr(value, field.name) != field.default]
    return named | {name: _plain(getattr(value, name)) for name in set_here}


def _made(kind: type[T], given: object, where: str) -> T:
    """A dataclass from the JSON object that has its fields as keys."""
    if not isinstance(given, dict):
        raise BadCheckpoint(f"{where} is a {type(given).__name__}, but it must be an object")
    types, all_fields = types_of(kind), fields(kind)  # type: ignore[arg-type]
    _known_keys(given, list(types), where)
    if missing := [field.name for field in all_fields if _required(field) and field.name not in given]:
        raise BadCheckpoint(f"{where} lacks the key {missing[0]!r}")
    return kind(**{key: _value(types[key], value, f"{where}: {key}") for key, value in given.items()})


types_of = cache(get_type_hints)  # a file of ten heads asks for a few types many times


def _value(kind: Any, given: object, where: str) -> Any:
    if kind == tuple[Step, ...]:
        if not isinstance(given, list):
            raise BadCheckpoint(f"{where} is a {type(given).__name__}, but it must be a list of steps")
        return tuple(_step(step, f"{where}[{index}]") for index, step in enumerate(given))
    if is_dataclass(kind):
        return _made(kind, given, where)  # type: ignore[arg-type]
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise BadCheckpoint(f"{where} is {json.dumps(given)}: {str(error)[0].lower()}{str(error)[1:]}") from None


def _step(given: object, where: str) -> Step:
    if not isinstance(given, dict) or given.get("step") not in STEPS:
        shown = given.get("step") if isinstance(given, dict) else given
        raise BadCheckpoint(
            f"{where} is the step {json.dumps(shown)}, which is not known; known are {', '.join(STEPS)}"
        )
    return _made(STEPS[given["step"]], {key: value for key, value in given.items() if key != "step"}, where)


def _known_keys(given: Mapping[str, object], known: list[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise BadCheckpoint(
                f"{where} has the key {key!r}, which is not known; known are {', '.join(known) or 'none'}"
            )


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _wrong(head: HeadSpec) -> Iterator[str]:
    """What keeps the tasks of its kind from reading a head."""
    kind, pools, labels = f"of the kind {head.kind!r}", " and ".join(head.pool.kinds), ", ".join(head.labels)
    if head.kind not in KINDS:
        yield f"is {kind}, which is not known; known are {', '.join(KINDS)}"
    if not _pools_well(head):
        wanted = "every token" if head.kind in OF_TOKENS else "one row for each text"
        yield f"pools {pools or 'nothing'}, but {kind} it must give {wanted}"
    if head.kind in OF_VOCABULARY and not isinstance(next(reversed(head.per_token), None), Vocabulary):
        yield f"is {kind}, so that its last step per token must be vocabulary"
    if head.kind == "answer" and head.labels != ("start", "end"):
        yield f"has the labels {labels or 'none'}, but {kind} they must be start, end"
    if (head.kind in LABELLED) != bool(labels) or len({*head.labels}) < len(head.labels):
        wanted = "different labels" if head.kind in LABELLED else "none"
        yield f"has the labels {labels or 'none'}, but {kind} it needs {wanted}"
    if head.kind != "tag" and head.aggregation != "simple":
        yield f"{kind} joins no tokens, so that it has no aggregation"
    if head.kind == "tag" and head.aggregation == "viterbi" and "O" not in head.labels:
        yield "has the aggregation 'viterbi', which needs a label 'O' of words outside all names"
    yield from _wrong_steps((*head.per_token, *head.per_row))


def _wrong_steps(steps: Iterable[Step]) -> Iterator[str]:
    for step in steps:
        if isinstance(step, Truncate) and step.width < 1:
            yield f"truncates to a width of {step.width}; it must be at least 1"
        if isinstance(step, Norm) and not step.spec.eps > 0:
            yield f"has a norm whose eps is {step.spec.eps}; it must be above 0"


def _pools_well(head: HeadSpec) -> bool:
    pools = head.pool.kinds
    if head.kind in OF_TOKENS:
        return pools == ("tokens",)
    if head.kind == "sparse" and not head.sparse:
        return pools == ("max_by_token",)
    return bool(pools) and not SEVERAL.intersection(pools)

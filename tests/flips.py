"""Values with one field changed, and whether anything notices."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from running import start
from tiny import USABLE

from onepass.engines.batch import Engine
from onepass.errors import OnepassError
from onepass.model.checkpoint import Checkpoint
from onepass.model.heads import Activation
from onepass.model.spec import ActivationKind, BottleneckSpec, ConvSpec, NormSpec, PositionSpec, RopeSpec, T5Buckets
from onepass.model.weights import check

NORM = NormSpec("layer", 1e-5)
SAMPLES: dict[Any, Any] = {
    NormSpec: NORM,
    PositionSpec: PositionSpec("arange", 0, USABLE),
    BottleneckSpec: BottleneckSpec(16, "all"),
    ConvSpec: ConvSpec(3, 1, "tanh", NORM),
    T5Buckets: T5Buckets(32, 128),
    RopeSpec: RopeSpec(8, 10_000.0),
    Activation: Activation("tanh"),
    tuple[str, float | tuple[float, ...]]: ("factor", 2.0),
    bool: True,
    int: 3,
    float: 1.5,
    str: "embed.word",
}
"""What a field becomes that was None, and what an empty tuple gets."""


def flips(value: Any, hint: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path of one field, the value with that field changed), for every field inside; kinds become each other kind."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None:
        yield path, _sample(next(option for option in options if option is not type(None)))
        return
    if type(None) in options:
        yield path, None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        for part in dataclasses.fields(value):
            inner = getattr(value, part.name)
            for name, changed in flips(inner, hints[part.name], f"{path}.{part.name}".lstrip(".")):
                yield name, replace(value, **{part.name: changed})
    elif isinstance(value, tuple):
        yield from _tuple_flips(value, next(option for option in options if get_origin(option) is tuple), path)
    else:
        literals = [option for option in options if get_origin(option) is Literal]
        yield from ((path, changed) for changed in _others(value, get_args(literals[0]) if literals else ()))


def _tuple_flips(value: tuple[Any, ...], hint: Any, path: str) -> Iterator[tuple[str, Any]]:
    inner = get_args(hint)
    many = inner[1:] == (...,)
    if many:
        yield path, value[:-1] if len(value) > 1 else (value or (_sample(inner[0]),)) * 2
        if len(set(value)) > 1 and not path.endswith("options"):
            yield path, value[::-1]
    for index, item in enumerate(value):
        kind = type(item) if dataclasses.is_dataclass(item) else inner[0 if many else index]
        for name, changed in flips(item, kind, f"{path}.{index}"):
            yield name, (*value[:index], changed, *value[index + 1 :])


def _others(value: Any, literals: tuple[Any, ...]) -> list[Any]:
    if literals:
        return [other for other in literals if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return [value + "x"]
    return [value * 2 or 1]


def _sample(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    if hint in SAMPLES:
        return SAMPLES[hint]
    options = get_args(hint)
    if options and options[1:] == (...,):
        return (_sample(options[0]),)
    return next(SAMPLES[option] for option in options if option in SAMPLES)


def kinds(hint: Any) -> set[str]:
    """Every field that a value of this type can set, and each word that it can have but for activations."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType, tuple) else (hint,)
    found: set[str] = set()
    for option in options:
        if get_origin(option) in (Union, types.UnionType, tuple):
            found |= kinds(option)
        if not dataclasses.is_dataclass(option):
            continue
        hints = get_type_hints(option)
        for part in dataclasses.fields(option):
            name = f"{option.__name__}.{part.name}"  # type: ignore[union-attr]
            words = [word for word in (hints[part.name], *get_args(hints[part.name])) if get_origin(word) is Literal]
            listed = bool(words) and words[0] != ActivationKind
            found |= {f"{name}={word}" for word in get_args(words[0])} if listed else {name}
            found |= kinds(hints[part.name])
    return found


def used(value: Any) -> set[str]:
    """Those of `kinds` that this value sets: fields that differ from their default, and words."""
    if isinstance(value, tuple):
        return set().union(*map(used, value))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return set()
    found: set[str] = set()
    for part in dataclasses.fields(value):
        name, inner = f"{type(value).__name__}.{part.name}", getattr(value, part.name)
        found |= {f"{name}={inner}"} | used(inner)
        if inner != part.default:
            found.add(name)
    return found


Flip = tuple[str, dict[str, Any]]
"""The path of one field, and what to replace in a checkpoint to change it."""


@dataclass
class Trial:
    """A checkpoint, an engine, and a verdict over a changed copy of it: whether something is wrong with that."""

    checkpoint: Checkpoint
    wrong: Callable[[Checkpoint, Engine], bool]
    engine: str

    def noticed(self, **changes: Any) -> bool:
        try:
            changed = replace(self.checkpoint, **changes)
            check(changed.spec, changed.heads, changed.weights)
            return self.wrong(changed, start(self.engine, changed))
        except OnepassError:
            return True

    def unnoticed(self, found: Iterable[Flip]) -> list[Flip]:
        assert not self.noticed(), "the unchanged checkpoint must agree"
        return [(path, changes) for path, changes in found if not self.noticed(**changes)]

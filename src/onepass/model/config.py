"""config.json and its kin, read key by key, so that a wrong value is named with its file and key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onepass.errors import BadCheckpoint, UnsupportedOption
from onepass.model.spec import ActivationKind

ACTIVATIONS: Mapping[str, ActivationKind] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "gelu_10": "gelu_clipped",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu2",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}


class Config:
    """One JSON object of a checkpoint. A missing or null key means the default; one of the wrong type is refused.

    Every reader raises BadCheckpoint with the file's name, the key and the value.
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values = values
        self.source = source

    @classmethod
    def read(cls, path: Path, source: str) -> Config:
        """`source` is what messages call the file."""
        values = read_json(path, source)
        if not isinstance(values, dict):
            raise BadCheckpoint(f"{source} must hold a JSON object, but holds a {type(values).__name__}")
        return cls(values, source)

    @classmethod
    def read_if_there(cls, path: Path, source: str) -> Config:
        return cls.read(path, source) if path.is_file() else cls({}, source)

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def is_null(self, key: str) -> bool:
        """Whether the key is there and null, which a few classes tell from a missing one."""
        return key in self.values and self.values[key] is None

    def without(self, key: str) -> Config:
        return Config({name: value for name, value in self.values.items() if name != key}, self.source)

    def changed(self, changes: Mapping[str, Any]) -> Config:
        """The object with these keys set."""
        return Config({**self.values, **changes}, self.source)

    def first(self, *keys: str) -> str:
        """The first of a key's spellings that the file has, or the first of all."""
        return next((key for key in keys if self.get(key) is not None), keys[0])

    def integer(self, key: str, default: int, *, least: int = 0, most: int | None = None) -> int:
        value = self._value(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < least or (most and value > most):
            raise self.wrong(key, f"a whole number {f'from {least} to {most}' if most else f'of at least {least}'}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.wrong(key, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str, default: str) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def texts(self, key: str) -> dict[str, str]:
        """An object of strings, empty where the key is missing."""
        value = self._value(key, {})
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise self.wrong(key, "an object of strings")
        return dict(value)

    def activation(self, key: str, default: str) -> ActivationKind:
        name = self.text(key, default)
        if name not in ACTIVATIONS:
            raise UnsupportedOption(
                f"{self.source} sets {key} to {name!r}, which is not implemented; known are {', '.join(ACTIVATIONS)}"
            )
        return ACTIVATIONS[name]

    def only(self, key: str, *allowed: Any) -> None:
        """Refuse a key that is set to anything but null or one of `allowed`."""
        value = self.values.get(key)
        if value is not None and value not in allowed:
            known = " or ".join(json.dumps(item) for item in allowed)
            raise UnsupportedOption(
                f"{self.source} sets {key} to {_shown(value)}, which is not implemented; only {known} is"
            )

    def wrong(self, key: str, wanted: str) -> BadCheckpoint:
        return BadCheckpoint(f"{self.source} sets {key} to {_shown(self.values.get(key))}, but it must be {wanted}")

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value


def read_json(path: Path, source: str) -> Any:
    """Raises BadCheckpoint where the file cannot be read or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadCheckpoint(f"{source} cannot be read: {error.strerror}") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise BadCheckpoint(f"{source} is not JSON: {error}") from error
    except RecursionError as error:
        raise BadCheckpoint(f"{source} is nested too deeply to be read") from error


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."

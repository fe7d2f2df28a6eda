"""Models on a command line: what looks like one, and under which name a server offers each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from onepass.errors import BadSetting
from onepass.model.hub import HUB_ID


def named_models(arguments: Sequence[str]) -> dict[str, str]:
    """Model path or hub id by name. Raises BadSetting where two would have the same name."""
    named: dict[str, str] = {}
    for argument in arguments:
        name, model = split(argument)
        if name in named:
            raise BadSetting(f'two models are named "{name}": {named[name]} and {model}; write NAME=MODEL for one')
        named[name] = model
    return named


def split(argument: str) -> tuple[str, str]:
    path = Path(argument).expanduser()
    if path.is_dir():  # a folder may have an = in its path
        return Path(os.path.abspath(path)).name, str(path)  # noqa: PTH100 - not through symbolic links
    name, equals, model = argument.partition("=")
    if not equals:
        return argument, argument
    if not name or not model:
        raise BadSetting(f"{argument} is not NAME=MODEL; both sides need a value")
    return name, model


def is_model(text: str) -> bool:
    """Whether it is a model's folder, or written as a hub id with an owner."""
    folder = os.path.isfile(os.path.join(text, "config.json"))  # noqa: PTH113, PTH118 - a text may be too long for a path
    return folder or ("/" in text and HUB_ID.fullmatch(text) is not None)

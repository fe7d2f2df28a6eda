"""Under which name a server offers each model of its command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from onepass.errors import BadSetting


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

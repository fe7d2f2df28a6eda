"""Writes docs/settings.md and docs/cli.md from the settings and the commands; a test checks that they are current."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from onepass.cli import cli
from onepass.settings import KINDS, Option, options

DOCS = Path(__file__).parent
SHARED = {"config", *(row.name for kind in KINDS for row in options(kind))}

SETTINGS = """# Settings

Every setting has a flag, an environment variable and a key of `onepass.toml`. A flag wins over the environment, the
environment over the file, the file over the default. The file is `onepass.toml` of the working folder, or the one that
`--config` or `ONEPASS_CONFIG` names; it holds `name = value` lines without tables:

```toml
port = 9000
api_key = "change-me"
max_length = 256
```

One variable has no flag: `ONEPASS_ISA` (`amx`, `avx512bf16`, `avx512`, `avx2` or `portable`) forces the instruction
set of the native engine, which otherwise takes the widest the machine has, but `amx` only when asked, because it was
checked on an emulator only. The first two multiply bfloat16, which with them is what `dtype` "auto" means.
`onepass info` shows what was chosen and why.

A value that cannot be read, and a key that no setting has, is an error that names it. Kubernetes sets `ONEPASS_PORT` in
every pod beside a Service called `onepass`; set `enableServiceLinks: false` or choose another name for the Service."""

COMMANDS = """# Commands

Results go to standard output, words to standard error. Every command also takes `--config FILE` and the settings named
below it, which [settings.md](settings.md) explains. `onepass --traceback COMMAND ...` shows where an error arose.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the input or the model is at fault |
| 2 | the command line or a setting is at fault |
| 130 | stopped by Ctrl-C |
| 141 | the reader of standard output left |

Texts come from arguments, from a file (`--input`) or from standard input. Files are read while results are written, so
they may be of any size; `txt` holds one text a line, `csv` has a header, `jsonl` holds an object or a string a line,
`parquet` needs `pip install 'onepass[parquet]'`. With standard error on a terminal and the results elsewhere, a bar
shows texts and tokens per second."""


def pages() -> dict[Path, str]:
    """Text of each generated page."""
    return {DOCS / "settings.md": settings_page(), DOCS / "cli.md": cli_page()}


def settings_page() -> str:
    parts = [SETTINGS]
    for kind in KINDS:
        rows = [setting_row(row) for row in options(kind)]
        parts += [f"## {kind.__name__}", str(kind.__doc__), table(["name", "type", "default", "meaning"], rows)]
    return "\n\n".join(parts) + "\n"


def setting_row(row: Option) -> list[str]:
    kind = " or ".join(f"`{choice}`" for choice in row.choices) if row.choices else row.type.__name__
    default = "none" if row.default is None else f"`{str(row.default).lower() if row.type is bool else row.default}`"
    return [f"`{row.flag}`<br>`{row.variable}`<br>`{row.name}`", kind, default, row.help]


def cli_page() -> str:
    parts = [COMMANDS]
    root = click.Context(cli, info_name="onepass")
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root)
        arguments = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
        own = [p for p in command.params if isinstance(p, click.Option) and p.name not in SHARED]
        kinds = [kind for kind in KINDS if {row.name for row in options(kind)} <= {p.name for p in command.params}]
        parts += [f"## onepass {name}", f"`onepass {name} [OPTIONS] {' '.join(arguments)}`"]
        parts += inspect.cleandoc(str(command.help)).split("\n\n")
        parts += [table(["option", "meaning"], [option_row(option, context) for option in own])] if own else []
        parts += [
            "Takes all of " + " and ".join(kind.__name__ for kind in kinds) + "." if kinds else "Takes --revision."
        ]
    return "\n\n".join(parts) + "\n"


def option_row(option: click.Option, context: click.Context) -> list[str]:
    names = ", ".join([*option.opts, *option.secondary_opts])
    metavar = "" if option.is_flag else " " + option.make_metavar(context).replace("|", "\\|")
    default = f" Default: {option.default}." if option.show_default else ""
    return [f"`{names}{metavar}`", str(option.help).replace("|", "\\|") + default]


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")

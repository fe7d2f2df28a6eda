"""The settings table and the shared input and output options as click options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from onepass.settings import CONFIG_FILE, CONFIG_VARIABLE, Kind, ModelSettings, Option, ServerSettings, options, resolve

Command = TypeVar("Command", bound=Callable[..., Any])
METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT"}
SHORT = {"model": "-m"}


def stack(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Several click decorators as one, shown by --help in the order given."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def settings_options(*rows: Option) -> Callable[[Command], Command]:
    """A flag for each setting, and --config; values stay text until `chosen` reads them."""
    config = click.option(
        "--config",
        type=click.Path(path_type=Path),
        help=f"Settings file. [env: {CONFIG_VARIABLE}; default: {CONFIG_FILE} of this folder, if there is one]",
    )
    return stack(*map(settings_option, rows), config)


def settings_option(row: Option) -> Callable[[Any], Any]:
    facts = [f"env: {row.variable}"]
    if row.default is not None:
        facts.append(f"default: {str(row.default).lower() if row.type is bool else row.default}")
    help = f"{row.help} [{'; '.join(facts)}]"
    if row.type is bool:
        return click.option(f"{row.flag}/--no-{row.flag[2:]}", row.name, default=None, help=help)
    metavar = f"[{'|'.join(row.choices)}]" if row.choices else METAVARS[row.type]
    flags = [SHORT[row.name]] if row.name in SHORT else []
    return click.option(*flags, row.flag, row.name, metavar=metavar, help=help)


def chosen(kind: type[Kind], flags: Mapping[str, Any]) -> Kind:
    """The settings that a command line, the environment and the settings file give together."""
    texts = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in flags.items()
        if name != "config"
    }
    return resolve(kind, texts, file=flags.get("config"))


def loading(settings: ModelSettings) -> dict[str, Any]:
    """The options of Encoder. The table of categories is for one command only, which gives it to its task."""
    return {row.name: getattr(settings, row.name) for row in options(ModelSettings)}


def categories_of(given: Sequence[str]) -> dict[str, list[str]]:
    """Labels by category, from NAME=LABEL,LABEL each."""
    found: dict[str, list[str]] = {}
    for text in given:
        name, equals, labels = text.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--category {text} is not NAME=LABEL,LABEL.")
        found.setdefault(name, []).extend(filter(None, labels.split(",")))
    return found


HOW = [row for row in options(ModelSettings) if row.name != "model"]
model_argument = click.argument("model", required=False)
"""The setting of this name, of a command that takes no texts."""

model_options = settings_options(*options(ModelSettings))
loading_options = settings_options(*HOW)
serve_options = settings_options(*options(ServerSettings), *HOW)
revision_option = settings_options(*(row for row in HOW if row.name == "revision"))

input_options = stack(
    click.option("-i", "--input", "file", metavar="FILE", help="Read texts from FILE; - is standard input."),
    click.option(
        "--input-format",
        type=click.Choice(["txt", "csv", "jsonl", "parquet"]),
        help="Default: by the file's ending; txt for standard input. txt is one text a line.",
    ),
    click.option("--column", metavar="NAME", help="Column or key that holds the text. [default: text]"),
)

rerank_options = stack(
    click.option("--top-n", metavar="INTEGER", type=click.IntRange(min=1), help="Only the best this many."),
    click.option(
        "--prompt", metavar="NAME", help="Prompt of the model, or its text: an instruction, or put before QUERY."
    ),
    click.option(
        "--document-tokens",
        metavar="INTEGER",
        type=click.IntRange(min=1),
        help="Leave out of each document what comes after so many tokens.",
    ),
    click.option(
        "--long",
        type=click.Choice(["cut", "windows"]),
        default="cut",
        show_default=True,
        help="Cut long documents, or read them in windows of which the best counts.",
    ),
)

moderate_options = stack(
    click.option(
        "--category",
        "categories",
        metavar="NAME=LABEL,...",
        multiple=True,
        help="A category's labels; may be repeated.",
    ),
    click.option(
        "--long",
        type=click.Choice(["windows", "cut"]),
        default="windows",
        show_default=True,
        help="Read long texts in windows of which the worst counts, or cut them.",
    ),
)

tag_options = stack(
    click.option(
        "--aggregation",
        type=click.Choice(["none", "simple", "first", "average", "max", "viterbi"]),
        help="How tokens become entities; none labels each token. Default: what the model says, else simple.",
    ),
    click.option(
        "--ignore-label",
        "ignore_labels",
        metavar="LABEL",
        multiple=True,
        default=["O"],
        help="Leave this label out; may be repeated. [default: O]",
    ),
)

answer_options = stack(
    click.option("--no-answer", is_flag=True, help="One of the answers may be that there is none."),
    click.option(
        "--answer-tokens",
        metavar="INTEGER",
        type=click.IntRange(min=1),
        default=15,
        show_default=True,
        help="Most tokens of an answer.",
    ),
    click.option(
        "--align-to-words/--no-align-to-words",
        default=True,
        help="Answers begin and end with a word, or anywhere. [default: with a word]",
    ),
)

pair_option = click.option(
    "--pair-column", metavar="NAME", help="Column or key that holds the second text of each pair."
)

prompt_option = click.option("--prompt", metavar="NAME", help="Prompt of the model to put before each text.")

input_type_option = click.option(
    "--input-type",
    type=click.Choice(["document", "query"]),
    default="document",
    show_default=True,
    help="What the texts are.",
)

dimensions_option = click.option(
    "--dimensions",
    metavar="INTEGER",
    type=click.IntRange(min=1),
    help="Cut vectors to this width and normalise them again.",
)

vector_options = stack(
    prompt_option,
    click.option(
        "--input-type",
        type=click.Choice(["query", "document"]),
        help="Put the model's prompt for these before each text, if it has one.",
    ),
    dimensions_option,
    click.option(
        "--normalize/--no-normalize",
        default=None,
        help="Scale vectors to length 1, or not. [default: as the model says]",
    ),
    click.option(
        "--precision",
        type=click.Choice(["float32", "int8", "uint8", "binary", "ubinary"]),
        default="float32",
        show_default=True,
        help="Type of the numbers; binary and ubinary pack eight signs into a byte.",
    ),
)

raw_scores_option = click.option("--raw-scores", is_flag=True, help="Scores as the last layer gives them.")


def top_k_option(default: int | None, help: str) -> Callable[[Command], Command]:
    at_least_1 = click.IntRange(min=1)
    return click.option(
        "--top-k", metavar="INTEGER", type=at_least_1, default=default, show_default=default is not None, help=help
    )


window_options = stack(
    click.option("--window", metavar="INTEGER", type=click.IntRange(min=1), help="Tokens of a window of a long text."),
    click.option(
        "--overlap",
        metavar="INTEGER",
        type=click.IntRange(min=0),
        help="Tokens that a window shares with the one before. [default: half a window, at most 128]",
    ),
)

head_option = click.option("--head", metavar="NAME", help="Head to read, of a model that has several for this.")

truncate_option = click.option(
    "--truncate",
    type=click.Choice(["right", "left", "none"]),
    default="right",
    show_default=True,
    help="Side on which over-long inputs are cut; none refuses them.",
)

output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write to FILE instead of standard output."
)

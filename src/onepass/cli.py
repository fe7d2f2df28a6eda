"""The command line, a command a function: parse, call, print.

Results go to standard output, words to standard error. Exit codes: 1 where the input or the model is at fault, 2 where
the command line or a setting is, 130 after Ctrl-C, 141 where the reader of standard output has left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from onepass.errors import BadSetting, OnepassError
from onepass.settings import ModelSettings, ServerSettings
from onepass.shell.options import (
    answer_options,
    chosen,
    dimensions_option,
    head_option,
    input_options,
    input_type_option,
    loading_options,
    model_argument,
    model_options,
    moderate_options,
    output_option,
    pair_option,
    prompt_option,
    raw_scores_option,
    rerank_options,
    revision_option,
    serve_options,
    stack,
    tag_options,
    top_k_option,
    truncate_option,
    vector_options,
    window_options,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="onepass", message="%(prog)s %(version)s")
@click.option("--traceback", is_flag=True, help="Show where an error arose, for a bug report.")
def cli(traceback: bool) -> None:
    """Run encoder models on the CPU: embeddings, reranking, labels, tags, answers and more.

    The model is the one that comes with onepass; --model names another, a Hugging Face folder or hub id. Results go
    to standard output, words to standard error.
    """


of_texts = stack(cli.command(), click.argument("texts", nargs=-1), input_options, output_option)
"""A command that asks a model about texts, before the options of its own."""


@cli.command()
@click.argument("models", nargs=-1, metavar="[[NAME=]MODEL]...")
@serve_options
def serve(models: tuple[str, ...], **options: Any) -> None:
    """Serve models over HTTP: those named, or the one that comes with onepass.

    A request chooses one by NAME; without NAME= that is the hub id, or the folder's own name.
    """
    from onepass.server.serve import serve as run
    from onepass.shell.names import named_models

    settings = chosen(ModelSettings, options)
    run(named_models(models or [settings.model]), settings, chosen(ServerSettings, options))


@of_texts
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["jsonl", "npy"]),
    default="jsonl",
    show_default=True,
    help="JSON lines, or one array of a row a text.",
)
@vector_options
@head_option
@truncate_option
@model_options
def embed(texts: tuple[str, ...], **options: Any) -> None:
    """Turn texts into vectors.

    Writes {"index", "embedding"} for each, in the order given.
    """
    from onepass.shell import ask

    ask.embed(chosen(ModelSettings, options), texts, options)


@of_texts
@click.option("--separator", metavar="TEXT", default="\n", help="What chunks end with. [default: a line break]")
@vector_options
@click.option("--overlap", metavar="INTEGER", type=click.IntRange(min=0), help="Tokens before a chunk in a window.")
@head_option
@model_options
def embed_chunks(texts: tuple[str, ...], **options: Any) -> None:
    """Turn the chunks of texts into vectors that know of the whole text.

    Writes {"index", "chunks": [{"start", "stop", "embedding"}, ...]} for each, in order.
    """
    from onepass.shell import ask

    ask.embed_chunks(chosen(ModelSettings, options), texts, options)


@cli.command()
@click.argument("query")
@click.argument("documents", nargs=-1)
@input_options
@output_option
@rerank_options
@window_options
@raw_scores_option
@head_option
@truncate_option
@model_options
def rerank(query: str, documents: tuple[str, ...], **options: Any) -> None:
    """Order documents by how well they answer QUERY.

    Writes {"index", "score", "text"} for each, best first.
    """
    from onepass.shell import ask

    ask.rerank(chosen(ModelSettings, options), query, documents, options)


@of_texts
@pair_option
@click.option("--label", "labels", metavar="LABEL", multiple=True, help="A label of your own; may be repeated.")
@click.option("--template", metavar="TEXT", help="Where your labels stand: as {}, or at the mask beside the text's {}.")
@click.option("--multi-label/--one-label", default=None, help="Score each label by itself, or all against each other.")
@click.option(
    "--long",
    type=click.Choice(["cut", "mean", "max"]),
    default="cut",
    show_default=True,
    help="Cut long texts, or read them in windows and take each label's mean or largest logit.",
)
@raw_scores_option
@head_option
@truncate_option
@model_options
def classify(texts: tuple[str, ...], **options: Any) -> None:
    """Label texts, or pairs of texts.

    Writes {"index", "labels": [{"label", "score"}, ...]} for each, best label first.
    """
    from onepass.shell import ask

    ask.classify(chosen(ModelSettings, options), texts, options)


@of_texts
@moderate_options
@window_options
@head_option
@truncate_option
@model_options
def moderate(texts: tuple[str, ...], **options: Any) -> None:
    """Flag texts that fall into categories.

    A category is made of the model's labels, as --category or the table [moderation] of the settings file says. Writes
    {"index", "moderation": {"flagged", "categories", "scores"}} for each.
    """
    from onepass.shell import ask

    ask.moderate(chosen(ModelSettings, options), texts, options)


@of_texts
@tag_options
@window_options
@head_option
@model_options
def tag(texts: tuple[str, ...], **options: Any) -> None:
    """Find names, places and other labelled stretches in texts.

    Writes {"index", "entities": [{"label", "score", "text", "start", "stop", "words"}, ...]} for each, in order.
    """
    from onepass.shell import ask

    ask.tag(chosen(ModelSettings, options), texts, options)


@of_texts
@top_k_option(5, "Tokens for each mask.")
@click.option(
    "--candidate", "candidates", metavar="WORD", multiple=True, help="Only this token; may be repeated. [default: all]"
)
@head_option
@truncate_option
@model_options
def fill(texts: tuple[str, ...], **options: Any) -> None:
    """Guess what stands behind each mask of texts.

    Writes {"index", "masks": [[{"token", "id", "score", "sequence"}, ...], ...]} for each, best token first.
    """
    from onepass.shell import ask

    ask.fill(chosen(ModelSettings, options), texts, options)


@of_texts
@head_option
@truncate_option
@model_options
def log_probs(texts: tuple[str, ...], **options: Any) -> None:
    """Say how likely each token of texts is to a language model.

    Writes {"index", "tokens": [{"text", "id", "start", "stop", "log_prob"}, ...]} for each, in order.
    """
    from onepass.shell import ask

    ask.log_probs(chosen(ModelSettings, options), texts, options)


@of_texts
@input_type_option
@dimensions_option
@head_option
@truncate_option
@model_options
def multivector(texts: tuple[str, ...], **options: Any) -> None:
    """Turn texts into a vector for each token, as late interaction compares them.

    Writes {"index", "vectors": [[...], ...]} for each, in the order given.
    """
    from onepass.shell import ask

    ask.multivector(chosen(ModelSettings, options), texts, options)


@of_texts
@input_type_option
@top_k_option(None, "Most weights of a text. [default: as the model says]")
@click.option(
    "--threshold",
    metavar="NUMBER",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Leave out weights up to this.",
)
@prompt_option
@head_option
@truncate_option
@model_options
def sparse(texts: tuple[str, ...], **options: Any) -> None:
    """Weigh the tokens of a vocabulary for texts.

    Writes {"index", "weights": [{"token", "id", "weight"}, ...]} for each, largest weight first.
    """
    from onepass.shell import ask

    ask.sparse(chosen(ModelSettings, options), texts, options)


@of_texts
@click.option("--head", "heads", metavar="NAME", multiple=True, required=True, help="A head to read; may be repeated.")
@click.option("--prompt", metavar="NAME", help="Prompt of the model to put before each text, for all heads.")
@truncate_option
@model_options
def run(texts: tuple[str, ...], **options: Any) -> None:
    """Ask several heads of a model about texts, in one pass.

    Writes {"index", "heads": {NAME: ...}} for each, with what the head's own command writes.
    """
    from onepass.shell import ask

    ask.run_heads(chosen(ModelSettings, options), texts, options)


@cli.command()
@click.argument("question")
@click.argument("contexts", nargs=-1)
@input_options
@output_option
@top_k_option(1, "Most answers for each context.")
@answer_options
@window_options
@head_option
@model_options
def answer(question: str, contexts: tuple[str, ...], **options: Any) -> None:
    """Find the stretch of each context that answers QUESTION.

    Writes {"index", "answers": [{"text", "score", "start", "stop"}, ...]} for each, best first.
    """
    from onepass.shell import ask

    ask.answer(chosen(ModelSettings, options), question, contexts, options)


@cli.command()
@model_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@loading_options
def info(as_json: bool, **options: Any) -> None:
    """Load MODEL, or the one that comes with onepass, and say what it is, how it would run, and why."""
    from onepass.shell import ask

    ask.info(chosen(ModelSettings, options), as_json)


@cli.command()
@click.argument("model")
@revision_option
def pull(model: str, **options: Any) -> None:
    """Download MODEL, so that it later loads without a network, and print its folder."""
    from onepass.model.hub import locate

    folder, _ = locate(model, chosen(ModelSettings, options).revision)
    click.echo(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit. Every failure is one sentence on stderr, unless --traceback asks for more."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        # Not cli.main: that has an exit code of its own for a reader who left.
        with cli.make_context("onepass", list(arguments)) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if "--traceback" in arguments[:1]:
            raise
        sys.exit(report(error))


def report(error: BaseException) -> int:
    """Say what went wrong; returns the exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, BrokenPipeError | KeyboardInterrupt):
        # Python flushes standard output at exit, which would fail again, or wait for a reader who waits for us.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141 if isinstance(error, BrokenPipeError) else 130
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return 2
    code, words = 1, "; ".join([str(error), *getattr(error, "__notes__", [])])
    if isinstance(error, click.ClickException):
        code, words = error.exit_code, error.format_message().rstrip(".") + hint(error)
    elif isinstance(error, BadSetting):
        code = 2
    elif isinstance(error, OSError):
        words = f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror or error}"
    elif not isinstance(error, OnepassError):
        words = f"internal error, please report it ({type(error).__name__}: {error}); onepass --traceback shows where"
    click.echo(f"onepass: {words}", err=True)
    return code


def hint(error: click.ClickException) -> str:
    """Where a usage error can be looked up."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"; see {error.ctx.command_path} --help"
    return ""

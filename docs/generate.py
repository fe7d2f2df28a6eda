"""Writes the pages that come from the program itself; a test checks that they are current."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import click

from onepass.cli import cli
from onepass.model.families import FAMILIES
from onepass.model.families.family import Family
from onepass.settings import KINDS, Option, options

DOCS = Path(__file__).parent
SHARED = {"config", *(row.name for kind in KINDS for row in options(kind))}

SETTINGS = """# Settings

Every setting has a flag, an environment variable and a key of `onepass.toml`. A flag wins over the environment, the
environment over the file, the file over the default. The file is `onepass.toml` of the working folder, or the one that
`--config` or `ONEPASS_CONFIG` names; it holds `name = value` lines:

```toml
port = 9000
api_key = "change-me"
max_length = 256
```

A table has neither flag nor variable. `[moderation]` names the labels that make up each category of
[`moderate`](tasks/moderate.md), and with several models it is one for each, `[moderation.NAME]`. A server refuses at
its start one that does not fit the model; of the commands only `moderate` reads it.

One variable has no flag: `ONEPASS_ISA` (`amx`, `avx512bf16`, `avx512`, `avx2` or `portable`) forces the instruction
set of the native engine, which otherwise takes the widest the machine has. The first two multiply bfloat16, which with
them is what `dtype` "auto" means. `onepass info` shows what was chosen and why.

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

Commands run with the model that comes with onepass, or with the one that `--model` (`-m`) names, a folder or a hub id.
Arguments are texts; only `serve`, `info` and `pull`, which take no texts, have models as arguments.

Texts come from arguments, from a file (`--input`) or from standard input. Files are read while results are written, so
they may be of any size; `txt` holds one text a line, `csv` has a header, `jsonl` holds an object or a string a line,
`parquet` needs `pip install 'onepass[parquet]'`. With standard error on a terminal and the results elsewhere, a bar
shows texts and tokens per second."""


MODELS = """# Models

A model is a folder or a hub id with a `config.json`, whose `model_type` says the family, safetensors (or, where torch
is installed, a PyTorch file), and a tokenizer ([tokenizers.md](tokenizers.md)); one comes with onepass
([embedded-model.md](embedded-model.md)). `onepass info MODEL` says in words what it is. Models embed with the modules
of sentence-transformers where a checkpoint has them, LLM2Vec and GritLM as their own packages do. The heads below are
those of transformers: classify (a row's labels, also rerank), tag (a token's), answer (where an answer starts and
ends), fill (a masked token), next (what follows a token); a checkpoint of onepass's own may have several
([checkpoints.md](checkpoints.md)). What is not implemented is refused by name, never approximated.
[adding-a-family.md](adding-a-family.md) says how another family joins."""

CHECKED = """## What was checked

Every family, with every head and every option that changes its path, in tiny checkpoints that transformers {version}
writes with redrawn parameters: loaded from disk, at rows of 1, 2, 3, 17 and {longest} tokens, each beside transformers
on that row alone. `reference` and `native` are the largest relative deviation of any token's numbers in float32, the
latter over the instruction sets {sets}; `bfloat16` is the smallest cosine of a
row's mean over the same sets, options apart. Parameters are drawn twice as large as trained ones, so that mistakes
show; but in bfloat16, which could not follow, those of MobileBERT (no norms with statistics) and T5 (scores not scaled)
are a little smaller. `python benchmarks/parity.py` measures all this; the tests hold it below 1e-4 and above 0.999."""

OWN_CODE = """The code of `llama_bidirec`, `new` and `jina_bert_v2` lies beside their weights and not in transformers:
they are compared with transformers' nearest model, the missing part put in (`tests/own_code.py`). So are the experts of
`nomic_bert` and the adapters of `jina_embeddings_v3` (`tests/test_own_code.py`), which the figures here are without."""

EXAMPLES = {
    "bert": "all-MiniLM-L6-v2, bge-base-en-v1.5, e5-base-v2, mxbai-embed-large-v1",
    "roberta": "all-distilroberta-v1, roberta-large-mnli",
    "xlm-roberta": "multilingual-e5-base, bge-m3, bge-reranker-v2-m3",
    "camembert": "sentence-camembert-base, camembert-ner",
    "distilbert": "distilbert-base-uncased-finetuned-sst-2-english",
    "electra": "ms-marco-electra-base",
    "ernie": "ernie-2.0-base-en, ernie-3.0-base-zh",
    "albert": "albert-base-v2, paraphrase-albert-small-v2",
    "rembert": "rembert",
    "xlm-roberta-xl": "xlm-roberta-xl",
    "eurobert": "EuroBERT-210m",
    "llama": "LLM2Vec-Meta-Llama-3, Llama with label words",
    "llama_bidirec": "llama-embed-nemotron-8b",
    "mistral": "e5-mistral-7b-instruct, SFR-Embedding-Mistral, GritLM-7B",
    "qwen2": "gte-Qwen2-1.5B-instruct",
    "qwen3": "Qwen3-Embedding-0.6B, Qwen3-Reranker-0.6B",
    "gemma": "bge-reranker-v2-gemma",
    "gemma2": "bge-multilingual-gemma2",
    "gemma3_text": "embeddinggemma-300m",
    "gpt2": "gpt2 with label words",
    "t5": "sentence-t5-base, gtr-t5-base",
    "mt5": "encoders of mT5",
    "umt5": "encoders of UMT5",
    "bart": "encoders of BART",
    "mbart": "encoders of mBART",
    "m2m_100": "encoders of M2M-100 and NLLB",
    "mpnet": "all-mpnet-base-v2",
    "modernbert": "ModernBERT-base, gte-modernbert-base, modernbert-embed-base",
    "deberta": "deberta-base-mnli",
    "deberta-v2": "nli-deberta-v3-base, mxbai-rerank-base-v1, mdeberta-v3-base",
    "nomic_bert": "nomic-embed-text-v1.5, nomic-embed-text-v2-moe",
    "gte": "gte-base-en-v1.5 as transformers saves it",
    "new": "gte-multilingual-base, snowflake-arctic-embed-m-v2.0",
    "mobilebert": "mobilebert-uncased",
    "jina_bert_v2": "jina-embeddings-v2-base-en",
    "jina_embeddings_v3": "jina-embeddings-v3",
}
"""Well-known models of each family."""


def pages() -> dict[Path, str]:
    """Text of each generated page."""
    return {
        DOCS / "settings.md": settings_page(),
        DOCS / "cli.md": cli_page(),
        DOCS / "models.md": models_page(),
    }


def models_page() -> str:
    found = json.loads((DOCS / "models.json").read_text())
    head = ["model_type", "for example", "heads", "checkpoints", "reference", "native", "bfloat16"]
    rows = [family_row(family, found["families"][family.model_type]) for family in FAMILIES.values()]
    checked = CHECKED.format(
        version=found["transformers"], longest=found["longest"], sets=", ".join(found["instruction_sets"])
    )
    refused = "\n".join(line for family in FAMILIES.values() for line in refusals(family))
    families = [MODELS, "## Families", table(head, rows), OWN_CODE]
    return "\n\n".join([*families, checked, "## Heads that are refused", refused]) + "\n"


def refusals(family: Family) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for head, reason in family.heads.items():
        if isinstance(reason, str):
            reasons.setdefault(reason, []).append(head)
    return [f"- `{family.model_type}`, {', '.join(heads)}: {reason}." for reason, heads in reasons.items()]


def family_row(family: Family, found: dict[str, float]) -> list[str]:
    heads = [name for name, reader in family.heads.items() if callable(reader)]
    deviations = [f"{found[engine]:.1e}" for engine in ("reference", "native")]
    figures = [str(found["checkpoints"]), *deviations, f"{found['bfloat16']:.5f}"]
    return [f"`{family.model_type}`", EXAMPLES[family.model_type], ", ".join(heads), *figures]


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
        there = {"model", *(p.name for p in command.params)}
        kinds = [kind for kind in KINDS if {row.name for row in options(kind)} <= there]
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

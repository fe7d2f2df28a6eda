"""Do real vocabularies give the ids that transformers gives? Prints the table of docs/tokenizers.md.

    python benchmarks/tokenizer_ids.py VOCABULARIES TEXT... [--lines 10000]

VOCABULARIES holds one folder per vocabulary, named as in REPOSITORIES below. TEXT are files of lines, or of JSON
objects with a "text", gzipped or not; the lines are drawn evenly from all of them. Each repository is laid out as on
the hub and read by transformers and by onepass; every line is encoded alone, and as a pair with the next one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import click
import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2

from onepass.model.config import Config
from onepass.model.tokenizer_files import read_tokenizer
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.tokenizer import Tokenizer

EVERYTHING = 1_000_000_000
DEBERTA = {"do_lower_case": False, "vocab_type": "spm"}


@dataclass(frozen=True)
class Repository:
    """vocabulary: its folder.  files: which of it are there.  settings: tokenizer_config.json.

    saved: tokenizer.json as transformers writes it, in place of the files.  trained: what sentencepiece's own ids must
    be given, and what is added to them, for models that were trained with it.
    """

    name: str
    vocabulary: str
    files: tuple[str, ...]
    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)
    saved: bool = False
    trained: tuple[Callable[[str], str], int] | None = None


def as_it_is(text: str) -> str:
    return text


def albert_text(text: str) -> str:
    """Quotes, accents and case as in google-research/albert, tokenization.py, preprocess_text."""
    plain = unicodedata.normalize("NFKD", text.replace("``", '"').replace("''", '"'))
    return "".join(character for character in plain if not unicodedata.combining(character)).lower()


PLAIN_BERT, CASED = {"tokenizer_class": "BertTokenizer"}, {"do_lower_case": False}
GENERIC = {"tokenizer_class": "PreTrainedTokenizerFast"}
MULTILINGUAL = "bert-base-multilingual-cased"
BYTES = ("vocab.json", "merges.txt")
XLM = ("xlm-roberta-base", ("sentencepiece.bpe.model",), "xlm-roberta", {"tokenizer_class": "XLMRobertaTokenizer"})
REPOSITORIES = (
    Repository("BERT uncased", "bert-base-uncased", ("tokenizer.json",), "bert"),
    Repository("BERT uncased", "bert-base-uncased", ("vocab.txt",), "bert"),
    Repository("BERT cased", "bert-base-cased", ("vocab.txt",), "bert", CASED),
    Repository("BERT multilingual", MULTILINGUAL, ("tokenizer.json",), "bert", CASED),
    Repository("BERT multilingual", MULTILINGUAL, ("vocab.txt",), "bert", CASED),
    Repository("BGE small", "baai-bge-small-en", ("tokenizer.json",), "bert", PLAIN_BERT),
    Repository("all-MiniLM-L6-v2", "all-MiniLM-L6-v2", ("tokenizer.json",), "bert", PLAIN_BERT),
    Repository("RoBERTa", "roberta-base", ("tokenizer.json",), "roberta"),
    Repository("RoBERTa", "roberta-base", BYTES, "roberta"),
    Repository("ModernBERT", "modernbert", ("tokenizer.json",), "modernbert", GENERIC),
    Repository("DeBERTa v3", "deberta-v3", ("spm.model",), "deberta-v2", DEBERTA, trained=(as_it_is, 0)),
    Repository("DeBERTa v3", "deberta-v3", ("spm.model",), "deberta-v2", DEBERTA, saved=True),
    Repository("ALBERT", "albert-base", ("spiece.model",), "albert", trained=(albert_text, 0)),
    Repository("ALBERT", "albert-base", ("spiece.model",), "albert", saved=True),
    Repository("XLM-R", *XLM, trained=(as_it_is, 1)),
    Repository("XLM-R", *XLM, saved=True),
    Repository("T5", "t5-small", ("tokenizer.json",), "t5"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabularies", type=Path)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--lines", type=int, default=10_000)
    options = parser.parse_args()
    lines = drawn(options.text, options.lines)
    odd = sum(not line.isascii() for line in lines)
    click.echo(f"{len(lines):,} lines from {len(options.text)} files, {odd:,} of them not plain ASCII\n")
    click.echo("| vocabulary | read from | lines as in transformers | pairs | lines as in sentencepiece |")
    click.echo("|---|---|--:|--:|--:|")
    for repository in REPOSITORIES:
        with tempfile.TemporaryDirectory() as folder:
            click.echo(row(repository, lay_out(repository, options.vocabularies, Path(folder)), lines))


def drawn(files: list[Path], count: int) -> list[str]:
    """`count` lines, as many from each file, in a random order that is always the same."""
    random = Random(0)
    chosen: list[str] = []
    for index, file in enumerate(sorted(files)):
        lines = list(dict.fromkeys(lines_of(file)))
        share = count * (index + 1) // len(files) - count * index // len(files)
        chosen += random.sample(lines, min(share, len(lines)))
    random.shuffle(chosen)
    return chosen


def lines_of(file: Path) -> Iterator[str]:
    content = file.read_bytes()
    for line in (gzip.decompress(content) if file.suffix == ".gz" else content).decode(errors="replace").split("\n"):
        texts = str(json.loads(line).get("text", "")).split("\n") if ".jsonl" in file.name and line else [line]
        yield from (text for text in texts if text.strip())


def lay_out(repository: Repository, vocabularies: Path, folder: Path) -> Path:
    source = vocabularies / repository.vocabulary
    for file in repository.files:
        if (source / file).is_file():
            shutil.copy(source / file, folder)
        else:
            xlm_roberta(source, vocabularies / "albert-base" / "spiece.model", folder / file)
    (folder / "config.json").write_text(json.dumps({"model_type": repository.model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps(repository.settings))
    if repository.saved:
        transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        for file in repository.files:
            (folder / file).unlink()
    return folder


def xlm_roberta(source: Path, other: Path, target: Path) -> None:
    """XLM-R's sentencepiece file, put together from BlingFire's list of its pieces and ALBERT's character map.

    Both maps are sentencepiece's nmt_nfkc.
    """
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(other.read_bytes())
    del model.pieces[:]
    for text, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3)):
        model.pieces.add(piece=text, score=0, type=kind)
    with zipfile.ZipFile(source / "pos.dict.utf8.zip") as archive:
        listed = [line.split("\t") for line in archive.read("pos.dict.utf8").decode().split("\n") if line]
    for text, _, score in listed[3:-1]:  # <pad>, </s>, <unk> first, <mask> last
        model.pieces.add(piece=text, score=float(score))
    model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id = 0, 1, 2
    model.trainer_spec.pad_id = -1
    target.write_bytes(model.SerializeToString())


def row(repository: Repository, folder: Path, lines: list[str]) -> str:
    theirs: Any = transformers.AutoTokenizer.from_pretrained(folder)
    files = read_tokenizer(
        folder, Config.read(folder / "config.json", "config.json"), types=True, pad_id=0, lower=False, notes=[]
    )
    ours = Tokenizer(files, vocabulary=EVERYTHING, max_length=EVERYTHING)
    pairs = list(zip(lines, lines[1:] + lines[:1], strict=True))
    singles = same(ours, lines, theirs(lines))
    double = same(ours, pairs, theirs([first for first, _ in pairs], [second for _, second in pairs]))
    trained = "" if repository.trained is None else f"{as_trained(repository, folder, files.library, lines):,}"
    source = "tokenizer.json of transformers 5.23" if repository.saved else ", ".join(repository.files)
    return f"| {repository.name} | {source} | {singles:,} | {double:,} | {trained} |"


def same(ours: Tokenizer, items: list[Any], theirs: Any) -> int:
    """How many have transformers' ids, and its token types where it gives any."""
    rows = ours.encode(items, EncodeOptions())
    types = theirs.get("token_type_ids", [list(row.types) for row in rows])
    expected = zip(theirs["input_ids"], types, strict=True)
    return sum((list(row.ids), list(row.types)) == pair for row, pair in zip(rows, expected, strict=True))


def as_trained(repository: Repository, folder: Path, ours: Any, lines: list[str]) -> int:
    assert repository.trained is not None
    before, shift = repository.trained
    pieces: Any = sentencepiece.SentencePieceProcessor(model_file=str(folder / repository.files[0]))
    unknown = {pieces.unk_id(): 3} if shift else {}
    return sum(
        ours.encode(line, add_special_tokens=False).ids
        == [unknown.get(index, index + shift) for index in pieces.encode(before(line))]
        for line in lines
    )


if __name__ == "__main__":
    main()

"""Questions with their answers, tasks with their commands, sentences said twice."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from json import loads
from pathlib import Path
from typing import NamedTuple

from training.data.files import read_json_lines, read_lines, read_text
from training.data.pages import Pair
from training.data.prose import cut
from training.data.splits import Split, split_of

LONGEST = 800  # characters of an answer


class CommandPage(NamedTuple):
    command: str
    description: str
    examples: list[tuple[str, str]]  # task, command line
    split: Split


def command_pages(folder: Path) -> Iterator[CommandPage]:
    """Pages of tldr, except those that only point to another. A page is held out by its name, on every platform."""
    for row in read_json_lines(folder / "retrieval" / "tldr" / "tldr_en.jsonl"):
        description = re.sub(r"\s*(?:See also|Note|More information)\b:?.*$", "", row["description"]).replace("`", "")
        examples = [
            (re.sub(r"\[(\w+)\]", r"\1", example["task"]).replace("`", ""), unbrace(example["command"]))
            for example in row["examples"]
        ]
        if examples and description and not re.search("alias of|superseded", description):
            name = Path(row["path"]).stem
            yield CommandPage(row["command"], description.rstrip(". "), examples, split_of(f"tldr {name}"))


def unbrace(command: str) -> str:
    """The command line with its placeholders as plain words; of alternatives, the first."""
    command = re.sub(r"\{\{\[([^|\]]*)\|[^\]]*\]\}\}", r"\1", command)
    command = re.sub(r"\{\{([^{}|]*)(?:\|[^{}]*)?\}\}", r"\1", command)
    return re.sub(r"\s+", " ", command.replace("{{", "").replace("}}", "").replace("\\", "")).strip()


def tldr_pairs(folder: Path, split: Split) -> Iterator[Pair]:
    """Two kinds. "tldr": what a command is for, beside "command: tasks of its examples". "tldr-tasks": the task of an
    example, beside "command: what it is for" with the other tasks, or in training the command line, or both.
    Held out there is at most one pair of each kind per page, and the query's own words are never quoted in the text."""
    found = _tldr_pairs(folder, split)
    return found if split == "train" else _unseen(found, _tldr_pairs(folder, "train"))


def _unseen(held: Iterator[Pair], train: Iterator[Pair]) -> Iterator[Pair]:
    """Without queries and texts that occur in training, too ("Uninstall a package")."""
    known = {text for pair in train for text in (pair.query.lower(), pair.text)}
    return (pair for pair in held if pair.query.lower() not in known and pair.text not in known)


def _tldr_pairs(folder: Path, split: Split) -> Iterator[Pair]:
    seen: set[str] = set()
    for page in command_pages(folder):
        tasks = [(task, line) for task, line in page.examples if not says_nothing(task)]
        if page.split != split or not tasks or page.description in seen:
            continue
        seen.add(page.description)
        yield Pair(
            page.description, f"{page.command}: {'. '.join(task for task, _ in tasks)}.", page.command, "tldr", split
        )
        head = f"{page.command}: {page.description}."
        for number, (task, line) in enumerate(tasks[:1] if split == "held" else tasks):
            others = " ".join(f"{other}." for other, _ in tasks if other != task)
            text = [f"{head} {others}".strip(), f"{line} ({page.description})", line, head][number % 4]
            yield Pair(task, text, page.command, "tldr-tasks", split)


def says_nothing(task: str) -> bool:
    return bool(re.match(r"(?i)(display|show|print|list) (the )?(help|version|available options|usage)", task))


def question_of(raw: str) -> str:
    return " ".join(raw.replace("(are)", "").replace(" ?", "?").split())


def answer_of(raw: str) -> str:
    """On one line, without the headings and the question that it may begin with."""
    answer = re.sub(r"^(?:Key Points|Summary)\W+", "", " ".join(raw.split()))
    return re.sub(r"^(?:How|What|Is|Are|Can|Who|Do|Does)\b[^.?!]{5,150}\?\s+", "", answer)


def medquad_pairs(folder: Path, split: Split) -> Iterator[Pair]:
    """Medical questions and their answers, cut to 800 characters. Held out by what the question is about, so no disease
    of a held-out question is asked about in training. An answer that serves several questions stays with the first."""
    found = _medquad_pairs(folder, split)
    return found if split == "train" else _unseen(found, _medquad_pairs(folder, "train"))


def _medquad_pairs(folder: Path, split: Split) -> Iterator[Pair]:
    seen: set[str] = set()
    for row in read_json_lines(folder / "retrieval" / "medquad" / "medquad.jsonl"):
        if split_of(f"medquad {row['focus']}") != split:
            continue
        question, answer = question_of(row["question"]), cut(answer_of(row["answer"]), LONGEST)
        if len(answer) < 40 or answer in seen or question.lower() in seen:
            continue
        seen |= {answer, question.lower()}
        yield Pair(question, answer, row["focus"], "medquad", split)


def nl2bash_pairs(folder: Path, split: Split) -> Iterator[Pair]:
    """What a command line does, and the command line. Held out by the command line."""
    folder = folder / "pairs" / "nl2bash"
    seen: set[str] = set()
    for said, line in zip(read_lines(folder / "all.nl"), read_lines(folder / "all.cm"), strict=True):
        if said and line and said.lower() not in seen and split_of(f"nl2bash {line}") == split and len(line) <= LONGEST:
            seen.add(said.lower())
            yield Pair(said.strip(), line.strip(), line.strip(), "nl2bash", split)


def disfl_pairs(folder: Path, split: Split) -> Iterator[Pair]:
    """A question as it was spoken, with slips, and as it was meant. The official test part is held out."""
    for name in ("test",) if split == "held" else ("train", "dev"):
        for row in loads(read_text(folder / "pairs" / "disfl-qa" / f"{name}.json")).values():
            yield Pair(row["disfluent"], row["original"], row["original"], "disfl-qa", split)


class QuestionPair(NamedTuple):
    asked: str
    known: str
    same: bool  # an answer to `known` answers `asked`
    split: Split


def rqe_pairs(folder: Path, split: Split) -> Iterator[QuestionPair]:
    """Questions to doctors with a shorter question that is entailed, or is not. The official test part is held out."""
    name = "RQE_Test_302_pairs_AMIA2016.xml" if split == "held" else "RQE_Train_8588_AMIA2016.xml"
    root = ElementTree.fromstring(read_text(folder / "nli" / "rqe-questions" / name).encode())
    for pair in root.iter("pair"):
        asked, known = (" ".join((pair.findtext(part) or "").split()) for part in ("chq", "faq"))
        if asked and known and (split == "held" or asked != known):
            yield QuestionPair(asked, known, pair.get("value") == "true", split)

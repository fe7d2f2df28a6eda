"""Documentation pages and books: plain passages, and what a title or a heading says of the text below it."""

import html
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from training.data.files import read_json_lines
from training.data.markup import Block, markdown_blocks, plain, rst_blocks
from training.data.prose import cut, pieces
from training.data.splits import Split, split_of

DOCUMENTATION = ("ms-cpp-docs", "ms-powershell-docs", "peps", "eips", "18f-site", "18f-handbook")
SHORTEST, LONGEST = 20, 1200  # characters of a passage
PAIRED = 600  # characters of the text beside a title


class Pair(NamedTuple):
    """A query and a text that answers it. Two pairs of one group may answer each other: no negatives of each other."""

    query: str
    text: str
    group: str
    source: str
    split: Split


class Page(NamedTuple):
    source: str
    title: str
    blocks: list[Block]


# Sections that say the same on many pages, or point elsewhere.
_EMPTY_SECTIONS = re.compile(
    r"(?i)(see also|related (links|articles|topics)|requirements?|copyright.*|references|in this section|syntax|inputs"
    r"|commonparameters|notes|footnotes|acknowledge?ments?|abstract from|changelog|outputs|parameters|-whatif"
    r"|-confirm)$"
)
_BOILERPLATE = re.compile(
    r"(?i)(the microsoft foundation classes \(mfc\) library continues|copyright and related rights waived|this document"
    r" (is|has been) placed in the public domain|this cmdlet supports the common parameters|for more information,? see"
    r"|applies to:|in this article|microsoft specific|end microsoft specific|this article|none\.?$|the following table"
    r"|some information relates to prerelease)"
)
# Titles that are only a number: nothing in them says what the page is about.
_NUMBERED = re.compile(r"(?i)(error|warning|message|errors?:?)\b.*\b[a-z]*\d{3,}|^[A-Z]+\d+$|[0-9]{2,} ?sample")


@cache
def pages(folder: Path, source: str, split: Split) -> list[Page]:
    """All pages of a source that have a title. A page is held out by its title."""
    found = []
    for row in read_json_lines(folder / "text" / f"{source}.jsonl"):
        title, text = row["title"], row["text"]
        if source == "peps":
            header, _, text = text.partition("\n\n")
            match = re.search(r"^Title:\s*(.*)$", header, re.M)
            title = match[1] if match else ""
        title = clean_title(title)
        if title and split_of(f"title {title}") == split:
            blocks = list(rst_blocks(text) if row["path"].endswith(".rst") else markdown_blocks(text))
            found.append(Page(source, title, blocks))
    return found


def clean_title(title: str) -> str:
    title = plain(html.unescape(title)).strip(" >'\"")
    title = re.sub(r"\s*[|]\s*Microsoft (Docs|Learn)$|^(PEP|EIP|ERC|RFC)[ -]?\d+\s*[-–:]+\s*", "", title)
    return title.replace("about_", "About ").replace("_", " ") if title.startswith("about_") else title


def passages(folder: Path) -> Iterator[str]:
    """Paragraphs of books and of documentation that is not held out, each once, 20 to 1,200 characters long."""
    seen = {hash(text) for text in _held_texts(folder)}
    for block in _all_blocks(folder):
        for piece in pieces(block.text, LONGEST):
            if len(piece) < SHORTEST or hash(piece) in seen or not _is_prose(piece):
                continue
            seen.add(hash(piece))
            yield piece


def _held_texts(folder: Path) -> Iterator[str]:
    """Every longer paragraph of the held-out pages: some stand on other pages, too."""
    for source in DOCUMENTATION:
        for page in pages(folder, source, "held"):
            yield from (block.text for block in page.blocks if len(block.text) > PAIRED // 10)


def _all_blocks(folder: Path) -> Iterator[Block]:
    for source in DOCUMENTATION:
        for page in pages(folder, source, "train"):
            yield from page.blocks
    for row in read_json_lines(folder / "text" / "classic-books-subset.jsonl"):
        yield from book_blocks(row["text"])


def book_blocks(text: str) -> Iterator[Block]:
    """Paragraphs of a book: its lines are long, and indented ones are text, too."""
    body = text.partition("\n-------\n")[2].replace("\r\n", "\n")
    for paragraph in re.split(r"\n\s*\n", body):
        if not paragraph.lstrip().startswith("#"):
            yield Block("", re.sub(r"\s+", " ", re.sub(r"(?<!\w)_([^_]+)_(?!\w)", r"\1", paragraph)).strip())


def _is_prose(text: str) -> bool:
    """At least two thirds letters and spaces."""
    return 3 * sum(char.isalpha() or char == " " for char in text) >= 2 * len(text)


def title_pairs(folder: Path, split: Split) -> Iterator[Pair]:
    """The title of a page and the text it begins with, up to 600 characters; each title and each text once."""
    titles: set[str] = set()
    texts = {pair.text for pair in title_pairs(folder, "held")} if split == "train" else set()
    for source in DOCUMENTATION:
        for page in pages(folder, source, split):
            if len(page.title) < 3 or _NUMBERED.search(page.title):
                continue
            text = _opening(page)
            if len(text) < 60 or text in texts or page.title.lower() in titles:
                continue
            titles.add(page.title.lower())
            texts.add(text)
            yield Pair(page.title, text, page.title, source, split)


def _opening(page: Page) -> str:
    """The first paragraphs that say something, which do not repeat the title."""
    taken = ""
    for heading, text in page.blocks:
        if _EMPTY_SECTIONS.match(heading) or _BOILERPLATE.match(text) or not _is_prose(text):
            continue
        if len(text) < 20 or text.lower().rstrip(".:") == page.title.lower():
            continue
        taken = f"{taken} {text}".strip()
        if len(taken) >= 250:
            break
    return cut(taken, PAIRED)


def section_pairs(folder: Path) -> Iterator[Pair]:
    """A heading and the text below it, of pages that are not held out; headings that recur say too little alone and
    come with their page's title."""
    sections: list[tuple[str, str, str, str]] = []
    for source in DOCUMENTATION:
        for page in pages(folder, source, "train"):
            sections += ((source, page.title, *section) for section in _sections(page))
    often: dict[str, int] = {}
    for _, _, heading, _ in sections:
        often[heading.lower()] = often.get(heading.lower(), 0) + 1
    texts = {pair.text for pair in title_pairs(folder, "held")} | set(_held_texts(folder))
    for source, title, heading, text in sections:
        recurs = often[heading.lower()] > 3
        if text in texts or (recurs and _NUMBERED.search(title)):
            continue
        texts.add(text)
        yield Pair(f"{title}: {heading}" if recurs else heading, text, title, source, "train")


def _sections(page: Page) -> Iterator[tuple[str, str]]:
    gathered: dict[str, str] = {}
    for heading, text in page.blocks:
        if len(text) < 20 or _BOILERPLATE.match(text) or not _is_prose(text):
            continue
        if len(gathered.get(heading, "")) < 250:
            gathered[heading] = f"{gathered.get(heading, '')} {text}".strip()
    for heading, text in gathered.items():
        if len(heading) > 2 and heading != page.title and len(text) >= 60 and not _EMPTY_SECTIONS.match(heading):
            yield heading, cut(text, PAIRED)

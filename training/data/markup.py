"""Markdown and reStructuredText to paragraphs of plain text, each under its heading. Code and tables are left out."""

import html
import re
from collections.abc import Iterator
from typing import NamedTuple


class Block(NamedTuple):
    heading: str  # "" above the first
    text: str


_COMMENT = re.compile(r"<!--.*?-->|^---\n.*?\n---\n|\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.S)
_FENCE = re.compile(r"^[ \t>]*(`{3,}|~{3,}|:::+).*?(?:^[ \t>]*\1[ \t]*$|\Z)", re.S | re.M)
_INLINE = [
    (re.compile(r"!\[[^\]]*\]\([^)]*\)|\[!\w+[^\]]*\](?:\([^)]*\))?|\[\^[^\]]+\]:?"), ""),  # images, notes, includes
    (re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\](?:\([^)\s]*(?:\s+\"[^\"]*\")?\)|\[[^\]]*\])"), r"\1"),  # links
    (re.compile(r"<(?:https?|mailto):[^>]*>|</?[a-zA-Z][^<>]*>|\{:?[.#][^}]*\}"), " "),  # addresses, tags, attributes
    (re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*])([*_])(?=[^\s*_])([^*_]*?[^\s*_])\1(?![\w*])"), r"\2"),
    (re.compile(r"`+"), ""),
    (re.compile(r"\\([^\w\s])"), r"\1"),
    (re.compile(r"\\$"), ""),
]
_MARKER = re.compile(r"^\s*(?:>\s?)*(?:[-*+]|\d+[.)])\s+|^\s*(?:>\s?)+")
_BLANKS = re.compile(r"\s+")
_WORD = re.compile(r"[^\W\d_]{2,}")


def plain(markdown: str) -> str:
    """One paragraph without its marks."""
    for pattern, replacement in _INLINE:
        markdown = pattern.sub(replacement, markdown)
    return _BLANKS.sub(" ", html.unescape(markdown)).strip()


def markdown_blocks(text: str) -> Iterator[Block]:
    """Paragraphs and items of lists of a page in Markdown."""
    text = _FENCE.sub("\n", _COMMENT.sub("", text.replace("\r\n", "\n")))
    heading, lines, in_list = "", [], False

    def paragraph() -> Iterator[Block]:
        found = plain(" ".join(lines))
        lines.clear()
        if _WORD.search(found):
            yield Block(heading, found)

    for line in text.split("\n"):
        bare = line.strip()
        if match := re.match(r"#{1,6}\s+(.*?)[\s#]*$", bare):
            yield from paragraph()
            heading, in_list = plain(match[1]), False
        elif not bare or set(bare) <= set("-=*_ "):
            yield from paragraph()
        elif bare.startswith("|") or re.search(r"\|\s*:?--", bare) or (bare.startswith("[") and "]: " in bare):
            continue  # a table's row, a link's target
        elif not lines and not in_list and re.match(r" {4}|\t", line) and not _MARKER.match(line):
            continue  # code by indentation
        else:
            if _MARKER.match(line):
                yield from paragraph()
                in_list = bool(re.match(r"\s*(?:[-*+]|\d+[.)])\s", line))
            elif not line.startswith((" ", "\t")) and not lines:
                in_list = False
            lines.append(_MARKER.sub("", line))
            if re.search(r"(?:\\|<br\s*/?>)$", bare):
                yield from paragraph()
    yield from paragraph()


_ROLE = re.compile(r":(\w+):`([^`<]*?)(?:\s*<[^`]*>)?`")
_RST_INLINE = [
    (re.compile(r"`([^`<]*?)\s*<[^`]*>`__?"), r"\1"),
    (re.compile(r"\s*\[[#\w*-]+\]_"), ""),  # footnotes
    (re.compile(r"\|([^|]+)\|_{0,2}"), r"\1"),
    (re.compile(r"`+([^`]*)`+_{0,2}"), r"\1"),
    (re.compile(r"(?<!\w)\*{1,2}(?=\S)([^*]+?)\*{1,2}(?!\w)"), r"\1"),
    (re.compile(r"(\w)_{1,2}(?=[\s.,;:)]|$)"), r"\1"),
    (re.compile(r"\\(.)"), r"\1"),
]


def plain_rst(text: str) -> str:
    text = _ROLE.sub(lambda match: f"{match[1].upper()} {match[2]}" if match[1] in ("pep", "rfc") else match[2], text)
    for pattern, replacement in _RST_INLINE:
        text = pattern.sub(replacement, text)
    return _BLANKS.sub(" ", text).strip().removesuffix("::")


def rst_blocks(text: str) -> Iterator[Block]:
    """Paragraphs and items of lists of a page in reStructuredText."""
    heading, skip_deeper_than = "", -1
    previous = ""
    for chunk in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        lines = chunk.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        if 0 <= skip_deeper_than < indent:
            continue  # what belongs to a directive, or code behind "::"
        skip_deeper_than = -1
        lines = [line.strip() for line in lines]
        if len(lines) > 2 and _underline(lines[0]) and _underline(lines[2]):
            lines = lines[1:]
        if len(lines) > 1 and _underline(lines[1]):
            heading, lines = plain_rst(lines[0]), lines[2:]
        if not lines or not lines[0]:
            continue
        if lines[0].startswith((".. ", "__ ")) or lines[0] == "..":
            skip_deeper_than = indent
            continue
        if re.match(r"[=+-]{3,}", lines[0]) or lines[0].startswith((">>>", "|", "$ ")):
            continue  # tables, sessions
        if lines[-1].endswith("::"):
            skip_deeper_than = indent
        elif indent >= 4 and previous.endswith("::"):
            continue
        previous = lines[-1]
        for item in _items(lines):
            found = plain_rst(item)
            if _WORD.search(found):
                yield Block(heading, found)


def _underline(line: str) -> bool:
    return len(line) >= 3 and len(set(line)) == 1 and line[0] in "=-~^\"'*+#`:.,"


def _items(lines: list[str]) -> Iterator[str]:
    taken: list[str] = []
    for line in lines:
        if re.match(r"(?:[-*+•]|\(?\d+[.)]|#\.)\s+", line):
            if taken:
                yield " ".join(taken)
            taken = []
        taken.append(re.sub(r"^(?:[-*+•]|\(?\d+[.)]|#\.)\s+", "", line))
    if taken:
        yield " ".join(taken)

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
_TITLE = re.compile(r"#{1,6}\s+(.*?)[\s#]*$")
_RULE = re.compile(r"[-=*_ ]*")  # or nothing at all
_NOT_TEXT = re.compile(r"^\||\|\s*:?--|^\[.*\]: ")  # rows of tables, targets of links
_BREAK = re.compile(r"(?:\\|<br\s*/?>)$")
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
    heading, in_list = "", False
    lines: list[str] = []
    for line in [*text.split("\n"), ""]:
        bare, marker = line.strip(), _MARKER.match(line)
        title = _TITLE.match(bare)
        if lines and (title or marker or _RULE.fullmatch(bare)):
            yield from _paragraph(heading, lines)
            lines = []
        if title:
            heading, in_list = plain(title[1]), False
        elif not _RULE.fullmatch(bare) and not _NOT_TEXT.search(bare):
            if not lines:
                if not marker and not in_list and line.startswith(("    ", "\t")):
                    continue  # code by indentation
                in_list = (line.startswith((" ", "\t")) and in_list) or bool(marker and not bare.startswith(">"))
            lines.append(line[marker.end() :] if marker else line)
            if _BREAK.search(bare):
                yield from _paragraph(heading, lines)
                lines = []


def _paragraph(heading: str, lines: list[str]) -> Iterator[Block]:
    found = plain(" ".join(lines))
    if _WORD.search(found):
        yield Block(heading, found)


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
    for chunk in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        lines = chunk.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        if 0 <= skip_deeper_than < indent:
            continue  # what belongs to a directive, or code behind "::"
        lines = [line.strip() for line in lines]
        title, lines = _titled(lines)
        heading = title or heading
        skip_deeper_than = indent if lines and (lines[-1].endswith("::") or _DIRECTIVE.match(lines[0])) else -1
        if not lines or _DIRECTIVE.match(lines[0]) or _NOT_RST_TEXT.match(lines[0]):
            continue
        for item in _items(lines):
            found = plain_rst(item)
            if _WORD.search(found):
                yield Block(heading, found)


_DIRECTIVE = re.compile(r"\.\.(?: |$)|__ ")
_NOT_RST_TEXT = re.compile(r"$|[=+-]{3,}|>>>|\||\$ ")  # nothing, tables, sessions


def _titled(lines: list[str]) -> tuple[str, list[str]]:
    """The title that a chunk begins with, underlined and perhaps overlined, and its other lines."""
    if len(lines) > 2 and _underline(lines[0]) and _underline(lines[2]):
        lines = lines[1:]
    return (plain_rst(lines[0]), lines[2:]) if len(lines) > 1 and _underline(lines[1]) else ("", lines)


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

"""Markdown (CommonMark): the text is the source itself, so that offsets are offsets in the source.

Front matter is metadata, not text: it is blanked out, character by character, and receipted.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

from trivet.parse import ParseLimits
from trivet.parse.text import read_text
from trivet.values import Document, Heading, Skipped

_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(?:(.*?)\r?\n)?(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"^([A-Za-z][\w-]{0,40}):[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
#: markdown-it's own idea of a line end.
_LINE_END = re.compile(r"\r\n?|\n")


class MarkdownParser:
    """Reads `text/markdown`."""

    def parse(self, path: Path, media_type: str, charset: str, limits: ParseLimits) -> Document:
        """See `trivet.parse.Parser`."""
        decoded = read_text(path, charset, limits)
        text, fields, skipped = _front_matter(decoded.text)
        headings = _headings(text)
        first = next((heading.title for heading in headings if heading.level == 1), "")
        metadata = {"encoding": decoded.encoding}
        if language := fields.get("lang") or fields.get("language"):
            metadata["lang"] = language
        return Document(
            text=text,
            media_type=media_type,
            title=fields.get("title", "") or first,
            headings=headings,
            skipped=(*decoded.skipped, *skipped),
            metadata=metadata,
        )


def _front_matter(text: str) -> tuple[str, dict[str, str], tuple[Skipped, ...]]:
    """Text of the same length without its front matter, the simple fields of that, and a receipt."""
    match = _FRONT_MATTER.match(text)
    # A rule between two blank lines also starts with ---; only lines such as `title: x` make front matter.
    if match is None or not _FIELD.search(match[1] or ""):
        return text, {}, ()
    fields = {name.lower(): value.strip("\"'") for name, value in _FIELD.findall(match[1])}
    blank = re.sub(r"[^\r\n]", " ", match[0])
    receipt = Skipped(what="front matter", reason="metadata, not text", count=1)
    return blank + text[match.end() :], fields, (receipt,)


def _headings(text: str) -> tuple[Heading, ...]:
    starts = [0, *(match.end() for match in _LINE_END.finditer(text))]
    reader = MarkdownIt("commonmark")
    # Inline parsing is the costly part, and only headings need it.
    reader.core.ruler.enableOnly(["normalize", "block"])
    inline = MarkdownIt("commonmark")
    tokens = reader.parse(text)
    found = []
    for opening, content in pairwise(tokens):
        if opening.type != "heading_open" or opening.map is None:
            continue
        children = inline.parseInline(content.content)[0].children or []
        title = "".join(child.content or " " * (child.type == "softbreak") for child in children)
        title = " ".join(title.split())
        if title:
            start = starts[opening.map[0]]
            indent = len(text[start : start + 200]) - len(text[start : start + 200].lstrip(" \t>"))
            found.append(Heading(level=int(opening.tag[1:]), title=title, start=start + indent))
    return tuple(found)

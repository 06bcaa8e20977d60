"""An HTML tree, or trafilatura's own, as text with headings; iterative, since pages may nest deeper than the stack."""

from __future__ import annotations

from typing import Any

from lxml import etree

from trivet.parse.blocks import TextBuilder
from trivet.values import Heading

_INVISIBLE = frozenset(
    (
        "script",
        "style",
        "noscript",
        "template",
        "head",
        "svg",
        "math",
        "iframe",
        "object",
        "canvas",
        "audio",
        "video",
        "button",
        "select",
        "textarea",
        "input",
        "datalist",
        "map",
        "graphic",
    )
)
#: What surrounds content on a page.
FURNITURE = frozenset(("nav", "header", "footer", "aside", "form", "dialog", "menu"))
_FURNITURE_ROLES = frozenset(("navigation", "banner", "contentinfo", "search", "complementary", "dialog"))
_BLOCKS = frozenset(
    (
        "p",
        "div",
        "section",
        "article",
        "main",
        "header",
        "footer",
        "aside",
        "nav",
        "ul",
        "ol",
        "dl",
        "dt",
        "dd",
        "list",
        "blockquote",
        "quote",
        "figure",
        "figcaption",
        "table",
        "thead",
        "tbody",
        "tfoot",
        "caption",
        "address",
        "details",
        "summary",
        "fieldset",
        "hr",
        "form",
        "center",
        "body",
        "html",
    )
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_ITEMS = frozenset(("li", "item"))
_ROWS = frozenset(("tr", "row"))
_CELLS = frozenset(("td", "th", "cell"))
_BREAKS = frozenset(("br", "lb"))
#: Stands for a line break until white space is collapsed; no decoded text has it.
_BREAK = "\x00"


class HtmlText:
    """Collects the text of elements into a `TextBuilder`."""

    def __init__(self, max_text_bytes: int, skip: frozenset[str] = frozenset()) -> None:
        self.builder = TextBuilder(max_text_bytes)
        self._max_text_bytes = max_text_bytes
        self._skip = skip
        self._inline: list[str] = []
        self._cells: list[str] = []
        self._rows = 0
        self._in_cell = 0
        self._verbatim = 0
        self._items = 0
        self._separator = "\n\n"
        self._prefix = ""

    @property
    def characters(self) -> int:
        """Characters so far that are no white space."""
        return sum(map(len, self.builder.text.split()))

    def read(self, root: Any) -> None:
        """Append everything visible under `root`."""
        walker = etree.iterwalk(root, events=("start", "end"))
        for event, element in walker:
            tag = element.tag
            if not isinstance(tag, str):
                continue
            name = tag.rpartition("}")[2].lower()
            if event == "start":
                if element is not root and _hidden(element, name, self._skip):
                    walker.skip_subtree()
                    continue
                self._start("pre" if _is_code_block(name, element, root) else name)
                self._inline.append(element.text or "")
            else:
                if element is root or not _hidden(element, name, self._skip):
                    self._end("pre" if _is_code_block(name, element, root) else name, element)
                if element is not root:
                    self._inline.append(element.tail or "")
        self._flush()

    def prepend(self, first: HtmlText) -> None:
        """Put the text of `first` before this one's."""
        merged = TextBuilder(self._max_text_bytes)
        merged.add(first.builder.text)
        start = merged.add(self.builder.text)
        merged.headings = [*first.builder.headings, *(_moved(heading, start) for heading in self.builder.headings)]
        self.builder = merged

    def _start(self, name: str) -> None:
        if name in _BREAKS:
            self._inline.append(_BREAK if not self._in_cell else " ")
        elif self._in_cell:
            self._rows += name in _ROWS
            self._in_cell += name in _CELLS
            self._inline.append(" " if name in _BLOCKS or name in _ITEMS or name in _ROWS or name in _CELLS else "")
        elif name in _ROWS:
            self._flush()
            self._rows += 1
            self._cells = []
        elif name in _CELLS and self._rows:
            self._inline.clear()
            self._in_cell = 1
        elif name in _ITEMS:
            self._flush()
            self._items += 1
            self._prefix = "- "
        elif name == "pre":
            self._flush()
            self._verbatim += 1
        elif name in _BLOCKS or name in _HEADINGS or name == "head":
            self._flush()

    def _end(self, name: str, element: Any) -> None:
        if name in _CELLS and self._in_cell:
            self._in_cell -= 1
            if not self._in_cell:
                self._cells.append(" ".join("".join(self._inline).split()))
                self._inline.clear()
        elif self._in_cell:
            self._rows -= name in _ROWS
            self._inline.append(" " if name in _BLOCKS or name in _ITEMS or name in _ROWS else "")
        elif name in _ROWS:
            self._row()
        elif name in _HEADINGS or name == "head":
            self._heading(_HEADINGS.get(name) or _HEADINGS.get(element.get("rend") or "", 2))
        elif name in _ITEMS:
            self._flush()
            self._items = max(self._items - 1, 0)
            self._prefix = ""
        elif name == "pre":
            self._flush()
            self._verbatim -= 1
        elif name in _BLOCKS:
            self._flush()
            if name in ("ul", "ol", "list", "table") and not self._items:
                self._separator = "\n\n"

    def _row(self) -> None:
        self._rows = max(self._rows - 1, 0)
        row = " | ".join(self._cells)
        if row.strip(" |"):
            self.builder.add(row, self._separator)
            self._separator = "\n"
        self._cells = []
        self._inline.clear()

    def _heading(self, level: int) -> None:
        title = "".join(self._inline).replace(_BREAK, " ")
        self._inline.clear()
        self._separator = "\n\n"
        self.builder.heading(level, title)

    def _flush(self) -> None:
        text = "".join(self._inline)
        self._inline.clear()
        if self._verbatim:
            text = text.replace(_BREAK, "\n")
        else:
            lines = (" ".join(line.split()) for line in text.split(_BREAK))
            text = "\n".join(line for line in lines if line)
        if not text.strip():
            return
        self.builder.add(self._prefix + text.strip("\n"), self._separator)
        self._separator = "\n" if self._items else "\n\n"
        self._prefix = ""


def _moved(heading: Heading, offset: int) -> Heading:
    return Heading(level=heading.level, title=heading.title, start=heading.start + offset)


def _is_code_block(name: str, element: Any, root: Any) -> bool:
    """trafilatura makes code blocks of `pre`, as children of its body."""
    return name == "code" and element.getparent() is root


def _hidden(element: Any, name: str, skip: frozenset[str]) -> bool:
    # trafilatura calls its headings "head", as HTML calls what is never shown.
    if name in _INVISIBLE and not (name == "head" and element.get("rend")):
        return True
    return name in skip or bool(skip and (element.get("role") or "") in _FURNITURE_ROLES)


def is_hidden(element: Any) -> bool:
    """Whether an HTML element says of itself that it is not shown."""
    style = (element.get("style") or "").replace(" ", "").lower()
    return element.get("hidden") is not None or "display:none" in style


def visible_length(root: Any) -> int:
    """Characters under `root`, furniture included, that are neither white space nor invisible."""
    whole = HtmlText(1 << 62)
    whole.read(root)
    return whole.characters

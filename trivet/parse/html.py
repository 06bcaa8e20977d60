"""HTML: the main content (trafilatura), or the whole body where that finds too little."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import trafilatura
from lxml import etree
from lxml import html as lxml_html
from lxml.html import HtmlElement

from trivet.errors import CorruptDocument, EmptyDocument
from trivet.parse import ParseLimits
from trivet.parse.html_text import FURNITURE, HtmlText, is_hidden, visible_length
from trivet.parse.text import read_text
from trivet.values import Document, Skipped

_META_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([A-Za-z0-9._:-]+)", re.IGNORECASE)
_XML_CHARSET = re.compile(rb"^\s*<\?xml[^>]+encoding\s*=\s*[\"']([A-Za-z0-9._:-]+)", re.IGNORECASE)
#: Main content shorter than this share of the body without its furniture is a wrong guess.
_MIN_SHARE = 0.4
#: Headings that are looked for in the main content.
_LOOKED_AT = 50
#: trafilatura's heuristics stumble over some pages; the whole body is read then.
_STUMBLES = (
    etree.LxmlError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    AssertionError,
    RecursionError,
)


class HtmlParser:
    """Reads `text/html` and `application/xhtml+xml`."""

    def __init__(self) -> None:
        # Its second opinion builds lists of stop words when first asked, which takes 0.3 s: once, not in every fork.
        trafilatura.bare_extraction("<html><body><p>Short.</p><p>Page.</p></body></html>")

    def parse(self, path: Path, media_type: str, charset: str, limits: ParseLimits) -> Document:
        """See `trivet.parse.Parser`."""
        decoded = read_text(path, charset or _declared_charset(path), limits)
        tree = _tree(decoded.text)
        title, language = _title(tree), _language(tree)
        content, skipped = _content(tree, limits)
        text = content.builder.text
        if not text:
            raise EmptyDocument("The page has no text in it.", hint="Pages that scripts fill are not rendered.")
        metadata = {"encoding": decoded.encoding}
        if language:
            metadata["lang"] = language
        return Document(
            text=text,
            media_type=media_type,
            title=title or next((heading.title for heading in content.builder.headings), ""),
            headings=tuple(content.builder.headings),
            skipped=(*decoded.skipped, *skipped),
            metadata=metadata,
        )


def _declared_charset(path: Path) -> str:
    """The charset that the page itself states in its first 4 KiB, or empty."""
    with path.open("rb") as file:
        head = file.read(4096)
    match = _XML_CHARSET.search(head) or _META_CHARSET.search(head)
    # A page whose tags can be read byte by byte is not UTF-16, whatever it says.
    return "" if match is None or match[1].lower().startswith(b"utf-16") else match[1].decode("ascii")


def _tree(text: str) -> Any:
    parser = lxml_html.HTMLParser(encoding="utf-8", remove_pis=True, remove_comments=True)
    try:
        tree = lxml_html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.LxmlError, ValueError, AssertionError) as error:
        raise CorruptDocument(f"The HTML cannot be read ({type(error).__name__}).") from None
    for element in [element for element in tree.iter() if element is not tree and is_hidden(element)]:
        if element.getparent() is not None:
            element.drop_tree()
    return tree


def _content(tree: Any, limits: ParseLimits) -> tuple[HtmlText, tuple[Skipped, ...]]:
    """The text to ingest, and a receipt for the visible text that was left out."""
    body = tree.find("body")
    root = body if body is not None else tree
    everything = visible_length(root)
    whole = HtmlText(limits.max_text_bytes, skip=FURNITURE)
    whole.read(_marked_main(root, everything))
    main = _main_content(tree, limits)
    if main is not None and main.characters >= _MIN_SHARE * whole.characters and _keeps_headings(main, whole):
        chosen, reason = main, "outside the main content (navigation, footer and the like)"
    else:
        if not whole.builder.text:
            whole = HtmlText(limits.max_text_bytes)
            whole.read(root)
        chosen, reason = whole, "page furniture (navigation, footer and the like)"
    _restore_title(chosen, whole, root, limits)
    skipped = list(chosen.builder.skipped())
    if (left_out := everything - chosen.characters) > 0:
        skipped.append(Skipped(what="characters of the page", reason=reason, count=left_out))
    return chosen, tuple(skipped)


def _keeps_headings(main: HtmlText, whole: HtmlText) -> bool:
    """Whether no heading is lost whose text was kept: the extraction flattens short pages. A lone h1 is restored."""
    titles = {heading.title for heading in main.builder.headings}
    tops = sum(heading.level == 1 for heading in whole.builder.headings)
    lost = [
        heading
        for heading in whole.builder.headings
        if heading.title not in titles and not (heading.level == 1 and tops == 1)
    ]
    kept, text = "".join(main.builder.text.split()), whole.builder.text
    for heading in lost[:_LOOKED_AT]:
        start = heading.start + len(heading.title)
        following = "".join(text[start : start + 200].split())[:40]
        if following and following in kept:
            return False
    return True


def _main_content(tree: Any, limits: ParseLimits) -> HtmlText | None:
    try:
        found = trafilatura.bare_extraction(tree, include_comments=False, include_tables=True, include_formatting=True)
    except _STUMBLES:
        return None
    body = getattr(found, "body", None)
    if body is None:
        return None
    content = HtmlText(limits.max_text_bytes)
    content.read(body)
    return content if content.builder.text else None


def _marked_main(root: Any, everything: int) -> Any:
    """The element that the page itself marks as its main content, if that is one and holds enough; else `root`."""
    marked = root.xpath(".//main | .//*[@role='main']")
    if len(marked) == 1 and visible_length(marked[0]) >= _MIN_SHARE * everything:
        return marked[0]
    return root


def _restore_title(content: HtmlText, whole: HtmlText, root: Any, limits: ParseLimits) -> None:
    """Put the page's only h1 first if it was lost: the path of every other heading begins there."""
    tops = [heading.title for heading in whole.builder.headings if heading.level == 1]
    # Many pages keep it in their header.
    tops = tops or [title for title in (" ".join("".join(top.itertext()).split()) for top in root.iter("h1")) if title]
    if len(tops) != 1 or tops[0] in content.builder.text[: 2000 + len(tops[0])]:
        return
    first = HtmlText(limits.max_text_bytes)
    first.builder.heading(1, tops[0])
    content.prepend(first)


def _title(tree: Any) -> str:
    for expression in ("string(.//head/title)", "string(.//meta[@property='og:title']/@content)"):
        if title := " ".join(str(tree.xpath(expression)).split()):
            return title[:500]
    return ""


def _language(tree: HtmlElement) -> str:
    language = tree.get("lang") or tree.get("{http://www.w3.org/XML/1998/namespace}lang") or tree.get("xml:lang") or ""
    return language.strip()[:35]

"""DOCX: headings by style or outline level, tables as rows, notes at the end; no page headers and footers."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import docx
from docx.opc.exceptions import OpcError
from docx.oxml.ns import qn
from lxml import etree

from trivet.errors import CorruptDocument, EmptyDocument, EncryptedDocument, SourceTooLarge
from trivet.parse import ParseLimits
from trivet.parse.blocks import TextBuilder
from trivet.parse.docx_text import Styles, blocks, paragraph_text
from trivet.values import Document, Skipped

_MAX_ENTRIES = 20_000
_MAX_RATIO = 100
#: Entries smaller than this may compress as well as they like.
_RATIO_FLOOR = 10 << 20
#: What python-docx lets through from zipfile, lxml and its own assumptions about the parts.
_VENDOR_ERRORS = (
    OpcError,
    zipfile.BadZipFile,
    etree.LxmlError,
    KeyError,
    ValueError,
    AttributeError,
    AssertionError,
    IndexError,
    TypeError,
    OSError,
    NotImplementedError,
    EOFError,
)


class DocxParser:
    """Reads Office Open XML text documents."""

    def parse(self, path: Path, media_type: str, charset: str, limits: ParseLimits) -> Document:  # noqa: ARG002 - XML states its own encoding
        """See `trivet.parse.Parser`."""
        _check_container(path, limits)
        try:
            document = docx.Document(str(path))
            styles = Styles(document.styles.element)
        except _VENDOR_ERRORS as error:
            raise _corrupt(error) from None
        builder = TextBuilder(limits.max_text_bytes)
        try:
            _read(document, styles, builder)
            title, language = _properties(document)
        except _VENDOR_ERRORS as error:
            raise _corrupt(error) from None
        if not builder.text:
            raise EmptyDocument("The document has no text in it.")
        return Document(
            text=builder.text,
            media_type=media_type,
            title=title or next((heading.title for heading in builder.headings), ""),
            headings=tuple(builder.headings),
            skipped=(*builder.skipped(), *_left_out(document)),
            metadata={"lang": language} if language else {},
        )


def _corrupt(error: Exception) -> CorruptDocument:
    return CorruptDocument(f"The DOCX file cannot be read: it is truncated or damaged ({type(error).__name__}).")


def _check_container(path: Path, limits: ParseLimits) -> None:
    """Refuse a zip bomb by its directory; `zipfile` reads no more of an entry than that states."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise _corrupt(error) from None
    if any(entry.flag_bits & 1 for entry in entries):
        raise EncryptedDocument("The DOCX file needs a password.", hint="Remove the password and ingest again.")
    if len(entries) > _MAX_ENTRIES:
        raise SourceTooLarge(f"The DOCX file has {len(entries)} parts, more than the limit of {_MAX_ENTRIES}.")
    expanded = sum(entry.file_size for entry in entries)
    packed = max(sum(entry.compress_size for entry in entries), 1)
    if expanded > limits.max_text_bytes:
        raise SourceTooLarge(
            f"The DOCX file expands to {expanded} bytes, more than the limit of {limits.max_text_bytes}."
        )
    if expanded > _RATIO_FLOOR and expanded > _MAX_RATIO * packed:
        raise SourceTooLarge(
            f"The DOCX file expands {expanded // packed} times, to {expanded} bytes; the limit is {_MAX_RATIO} times."
        )


def _read(document: Any, styles: Styles, builder: TextBuilder) -> None:
    previous = ""
    for block in blocks(document.element.body, styles):
        if block.level:
            builder.heading(block.level, block.text)
        else:
            together = block.kind == previous and block.kind in ("item", "row")
            builder.add(block.text, "\n" if together else "\n\n")
        previous = "" if block.level else block.kind
    for part in _parts(document, ("footnotes", "endnotes")):
        for note in etree.fromstring(part.blob, _safe_parser()):
            if note.get(qn("w:type")) is None:
                lines = [paragraph_text(paragraph)[0].strip() for paragraph in note.iter(qn("w:p"))]
                builder.add("\n".join(line for line in lines if line))


def _safe_parser() -> etree.XMLParser:
    return etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)


def _parts(document: Any, kinds: tuple[str, ...]) -> list[Any]:
    """Parts that the document refers to, by the last word of the relation's type."""
    relations = sorted(document.part.rels.items())
    found = [
        relation.target_part
        for kind in kinds
        for _, relation in relations
        if not relation.is_external and relation.reltype.rpartition("/")[2] == kind
    ]
    return [part for part in found if part.blob]


def _left_out(document: Any) -> list[Skipped]:
    """A receipt for page headers, page footers and comments that have text."""
    try:
        furniture = sum(_has_text(part) for part in _parts(document, ("header", "footer")))
        comments = sum(_has_text(part) for part in _parts(document, ("comments",)))
    except _VENDOR_ERRORS:
        return []
    skipped = []
    if furniture:
        skipped.append(Skipped(what="page headers and footers", reason="repeated on every page", count=furniture))
    if comments:
        skipped.append(Skipped(what="comments", reason="not part of the text", count=comments))
    return skipped


def _has_text(part: Any) -> bool:
    root = etree.fromstring(part.blob, _safe_parser())
    return any((element.text or "").strip() for element in root.iter(qn("w:t")))


def _properties(document: Any) -> tuple[str, str]:
    """Title and language that the document states; either may be empty."""
    properties = document.core_properties
    language = (properties.language or "").strip()
    if not language:
        found = document.styles.element.find(f".//{qn('w:docDefaults')}//{qn('w:lang')}")
        language = (found.get(qn("w:val")) or "") if found is not None else ""
    return " ".join((properties.title or "").split())[:500], language[:35]

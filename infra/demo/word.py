"""Saves an HTML page as a Word file: headings stay headings, paragraphs stay paragraphs."""

from __future__ import annotations

import io

import docx
from lxml import html

_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4}


def html_to_docx(page: bytes) -> bytes:
    """A DOCX with the page's headings, paragraphs and list items in their order, and nothing else."""
    tree = html.document_fromstring(page.decode("utf-8"))
    document = docx.Document()
    for element in tree.body.iter("h1", "h2", "h3", "h4", "p", "li"):
        text = " ".join(element.text_content().split())
        if not text or (element.tag == "li" and element.find(".//p") is not None):
            continue
        if element.tag in _HEADINGS:
            document.add_heading(text, _HEADINGS[element.tag])
        else:
            document.add_paragraph(text, style="List Number" if element.tag == "li" else None)
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()

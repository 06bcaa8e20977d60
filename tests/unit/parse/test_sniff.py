"""What a file is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.corpus.documents import DOCX, REPORTS, as_docx, as_html
from tests.corpus.pdf import page_of, pdf
from trivet.errors import UnsupportedType
from trivet.parse.sniff import sniff

_PDF = pdf([page_of(["x"])])
_HTML = as_html(REPORTS[0])
_WORD = as_docx(REPORTS[0])


@pytest.mark.parametrize(
    ("data", "stated", "name", "expected"),
    [
        (_PDF, "", "", "application/pdf"),
        (b"\r\n" * 9 + _PDF, "text/html", "a.html", "application/pdf"),
        (_HTML, "", "", "text/html"),
        (_HTML, "application/pdf", "a.pdf", "text/html"),
        (_HTML, "text/plain", "a.txt", "text/html"),
        (b"\xef\xbb\xbf <!-- c --> <HTML><p>x", "", "", "text/html"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "x">', "", "", "text/html"),
        (b'<?xml version="1.0"?>\n<html>', "application/xhtml+xml", "", "application/xhtml+xml"),
        ("<html><p>x".encode("utf-16"), "", "", "text/html"),
        (_WORD, "application/octet-stream", "", DOCX),
        (_WORD, "application/zip", "a.zip", DOCX),
        (b"# Title", "text/markdown", "", "text/markdown"),
        (b"# Title", "text/plain", "README.md", "text/markdown"),
        (b"# Title", "text/plain; charset=utf-8", "a.MD", "text/markdown"),
        (b"# Title", "text/plain", "", "text/plain"),
        (b'<p align="center">Logo</p>\n\n# Title', "text/plain", "README.md", "text/markdown"),
        (b'<p align="center">Logo</p>\n\n# Title', "text/markdown", "", "text/markdown"),
        (b"<p>A fragment</p>", "", "", "text/html"),
        (b"<p>A fragment</p>", "text/plain", "", "text/plain"),
        (b"words", "application/octet-stream", "", "text/plain"),
        (b"words", "text/csv", "a.csv", "text/plain"),
        (b"words", "text/html", "", "text/html"),
        (b"words", "application/pdf", "a.txt", "text/plain"),
    ],
)
def test_content_comes_first_then_statement_then_name(
    tmp_path: Path, data: bytes, stated: str, name: str, expected: str
) -> None:
    path = tmp_path / "source"
    path.write_bytes(data)
    assert sniff(path, stated, name) == expected


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(20), "image/jpeg"),
        (b"PK\x03\x04" + bytes(40), "application/zip"),
        (b"\x1f\x8b\x08" + bytes(40), "application/gzip"),
        (b"....ftypmp42" + bytes(40), "video/mp4"),
        (b"{\\rtf1 words}", "application/rtf"),
    ],
)
def test_what_no_parser_reads_is_named(tmp_path: Path, data: bytes, named: str) -> None:
    path = tmp_path / "source"
    path.write_bytes(data)
    with pytest.raises(UnsupportedType, match=named):
        sniff(path, "text/plain", "a.txt")


def test_a_hostile_beginning_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"<!---->" * 9000)
    before = time.process_time()
    assert sniff(path, "", "") == "text/plain"
    # Exponential, if it were read in every possible way: this is a bound on that, not on speed.
    assert time.process_time() - before < 30

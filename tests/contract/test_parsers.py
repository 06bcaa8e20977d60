"""What every parser must hold, over documents in four languages, damaged ones, and the bad-input corpus."""

from __future__ import annotations

import contextlib
import io
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.corpus.documents import DOCX, REPORTS, WRITERS, Report, as_docx, as_html
from tests.corpus.pdf import Text, page_of, pdf
from trivet.errors import (
    CorruptDocument,
    EmptyDocument,
    EncryptedDocument,
    SourceError,
    SourceTooLarge,
    TrivetError,
    UnsupportedType,
)
from trivet.parse import PARSERS, ParseLimits, load_parser, sandbox
from trivet.parse.sniff import sniff
from trivet.settings import Settings
from trivet.values import Document

_EXTENSIONS = {"application/pdf": ".pdf", "text/html": ".html", DOCX: ".docx", "text/markdown": ".md"}
_LIMITS = ParseLimits(max_pages=50, max_text_bytes=20 << 20)
_FUZZ_CASES = 60


@pytest.fixture
def limits() -> Settings:
    return Settings(document_max_pages=50, document_max_bytes=20 << 20, parse_cpu_seconds=20, parse_wall_seconds=60)


@pytest.fixture(scope="module", autouse=True)
def _helpers_end() -> Iterator[None]:
    yield
    sandbox.shutdown()


@pytest.fixture(params=sorted(WRITERS))
def media_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=REPORTS, ids=lambda report: report.language)
def report(request: pytest.FixtureRequest) -> Report:
    found = request.param
    assert isinstance(found, Report)
    return found


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _parse(
    settings: Settings, folder: Path, data: bytes, stated: str = "", name: str = "", charset: str = ""
) -> Document:
    """Sniff and parse, as the prepare stage does."""
    path = folder / "source"
    path.write_bytes(data)
    return sandbox.parse(settings, path, sniff(path, stated, name), charset)


def _assert_sound(document: Document) -> None:
    """What chunking relies on."""
    size = len(document.text)
    assert document.text.strip()
    document.text.encode()
    starts = [heading.start for heading in document.headings]
    assert starts == sorted(set(starts))
    assert all(0 <= start < size for start in starts)
    places = [place for page in document.pages for place in (page.start, page.end)]
    assert places == sorted(places)
    assert all(0 <= place <= size for place in places)
    assert not set(document.text) & {"\x00", "\x02", "\x1f"}


def test_every_parser_is_in_the_contract() -> None:
    assert set(PARSERS) - {"application/xhtml+xml"} == set(WRITERS)


def test_text_and_headings_survive(limits: Settings, tmp_path: Path, media_type: str, report: Report) -> None:
    data = WRITERS[media_type](report)
    document = _parse(limits, tmp_path, data, media_type, "report" + _EXTENSIONS.get(media_type, ".txt"))
    _assert_sound(document)
    assert document.media_type == media_type
    squeezed = _squeezed(document.text)
    for paragraph in report.paragraphs:
        assert _squeezed(paragraph) in squeezed
    if media_type == "text/plain":
        assert not document.headings
        return
    assert document.title == report.title
    expected = [(1, report.title), *((2, heading) for heading, _ in report.sections)]
    assert [(heading.level, heading.title) for heading in document.headings] == expected
    for heading in document.headings:
        line = document.text[heading.start :].split("\n", 1)[0]
        assert heading.title in line


def test_paragraphs_stay_apart(limits: Settings, tmp_path: Path, media_type: str, report: Report) -> None:
    document = _parse(limits, tmp_path, WRITERS[media_type](report), media_type)
    paragraphs = {_squeezed(block) for block in document.text.split("\n\n")}
    assert {_squeezed(paragraph) for paragraph in report.paragraphs} <= paragraphs


def test_furniture_is_left_out_and_receipted(limits: Settings, tmp_path: Path, report: Report) -> None:
    for writer in (as_html, as_docx):
        document = _parse(limits, tmp_path, writer(report))
        assert report.furniture not in document.text
        assert any(note.count > 0 for note in document.skipped)


def test_the_sandbox_gives_what_the_parser_gives(
    limits: Settings, tmp_path: Path, media_type: str, report: Report
) -> None:
    path = tmp_path / "source"
    path.write_bytes(WRITERS[media_type](report))
    direct = load_parser(media_type).parse(path, media_type, "", _LIMITS)
    assert sandbox.parse(limits, path, media_type, "") == direct


def test_damaged_documents_give_a_document_or_a_clear_error(limits: Settings, tmp_path: Path, media_type: str) -> None:
    rng = random.Random(media_type)
    path = tmp_path / "source"
    outcomes = set()
    messages: list[str] = []
    for number in range(_FUZZ_CASES):
        whole = WRITERS[media_type](REPORTS[number % len(REPORTS)])
        if media_type == DOCX and number % 2:
            # Damage under the checksums of the container, where the parser itself must hold.
            path.write_bytes(_docx_with(_damaged(_docx_part(whole), number, rng)))
        else:
            path.write_bytes(_damaged(whole, number, rng))
        try:
            _assert_sound(sandbox.parse(limits, path, media_type, ""))
            outcomes.add("document")
        except SourceError as error:
            outcomes.add(error.code)
            messages.append(error.message)
    assert all(len(message.splitlines()) == 1 and message.endswith(".") for message in messages)
    # A checksum finds all damage to a DOCX file, and XML has no repair.
    assert outcomes >= ({"corrupt_document"} if media_type == DOCX else {"document"})


def _damaged(whole: bytes, number: int, rng: random.Random) -> bytes:
    """Cut off, with changed bytes, or with a hole."""
    data = bytearray(whole)
    if number % 3 == 0:
        del data[rng.randrange(1, len(data)) :]
    elif number % 3 == 1:
        for _ in range(rng.randrange(1, 64)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    else:
        start = rng.randrange(len(data))
        del data[start : start + rng.randrange(1, 2000)]
    return bytes(data) or b" "


# ---------------------------------------------------------------- the bad-input corpus


def _docx_part(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read("word/document.xml")


def _zip(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def _docx_with(document_xml: bytes) -> bytes:
    """A real DOCX with another main part."""
    with zipfile.ZipFile(io.BytesIO(as_docx(REPORTS[0]))) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    return _zip(entries | {"word/document.xml": document_xml})


def _zip_bomb() -> bytes:
    return _docx_with(b"<x>" + b" " * (15 << 20) + b"</x>")


def _billion_laughs() -> bytes:
    entities = b"".join(b'<!ENTITY l%d "%s">' % (n + 1, b"&l%d;" % n * 10) for n in range(9))
    return _docx_with(
        b'<?xml version="1.0"?><!DOCTYPE w [<!ENTITY l0 "lol">' + entities + b"]>"
        b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r>'
        b"<w:t>before</w:t><w:t>&l9;</w:t></w:r></w:p></w:body></w:document>"
    )


def _encrypted_zip() -> bytes:
    data = bytearray(as_docx(REPORTS[0]))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(signature)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(signature, place + 4)
    return bytes(data)


def _english_pdf() -> bytes:
    return pdf([page_of(["A page of text."])])


_REFUSED: dict[str, tuple[Callable[[], bytes], str, str, type[TrivetError], str]] = {
    "empty file": (lambda: b"", "text/plain", "a.txt", EmptyDocument, "no bytes"),
    "white space alone": (lambda: b" \n\t\n", "text/plain", "a.txt", EmptyDocument, "no text"),
    "PDF cut after its header": (lambda: _english_pdf()[:60], "application/pdf", "a.pdf", CorruptDocument, "damaged"),
    "PDF that needs a password": (
        lambda: pdf([page_of(["x"])], encrypted=True),
        "application/pdf",
        "a.pdf",
        EncryptedDocument,
        "password",
    ),
    "PDF without text": (lambda: pdf([[], []]), "application/pdf", "a.pdf", EmptyDocument, "all of its 2|any of its 2"),
    "PDF with too many pages": (lambda: pdf([[]] * 51), "application/pdf", "a.pdf", SourceTooLarge, "51 pages"),
    "PDF in name alone": (lambda: b"\x00\x01\x02\x03" * 999, "application/pdf", "a.pdf", CorruptDocument, "PDF"),
    "DOCX cut in the middle": (
        lambda: as_docx(REPORTS[0])[:9000],
        DOCX,
        "a.docx",
        CorruptDocument,
        "truncated or damaged",
    ),
    "DOCX that needs a password (zip)": (_encrypted_zip, DOCX, "a.docx", EncryptedDocument, "password"),
    "DOCX that needs a password (OLE)": (
        lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000) + "EncryptedPackage".encode("utf-16-le"),
        DOCX,
        "a.docx",
        EncryptedDocument,
        "password",
    ),
    "DOCX zip bomb": (_zip_bomb, DOCX, "a.docx", SourceTooLarge, "expands"),
    "DOCX without its main part": (
        lambda: _zip({"[Content_Types].xml": b"<Types/>", "word/x": b"x"}),
        DOCX,
        "a.docx",
        CorruptDocument,
        "truncated or damaged",
    ),
    "old Word file": (
        lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000),
        "application/msword",
        "a.doc",
        UnsupportedType,
        "ole",
    ),
    "spreadsheet": (
        lambda: _zip({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"x"}),
        "",
        "a.xlsx",
        UnsupportedType,
        "spreadsheetml",
    ),
    "image": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), "text/html", "a.html", UnsupportedType, "image/png"),
    "unknown binary": (lambda: bytes(range(256)) * 20, "", "a", UnsupportedType, "octet-stream"),
    "binary said to be text": (lambda: bytes(range(256)) * 20, "text/plain", "a.txt", UnsupportedType, "octet-stream"),
    "JSON": (lambda: b'{"a": 1}', "application/json", "a.json", UnsupportedType, "application/json"),
    "text over the limit": (lambda: b"word " * (5 << 20), "text/plain", "a.txt", SourceTooLarge, "limit"),
    "HTML of scripts": (
        lambda: b"<!doctype html><html><body><script>run()</script></body></html>",
        "text/html",
        "",
        EmptyDocument,
        "no text",
    ),
}


@pytest.mark.parametrize("case", sorted(_REFUSED))
def test_bad_input_is_refused_with_a_clear_error(limits: Settings, tmp_path: Path, case: str) -> None:
    make, stated, name, kind, words = _REFUSED[case]
    with pytest.raises(kind, match=f"(?i){words}") as caught:
        _parse(limits, tmp_path, make(), stated, name)
    assert not caught.value.transient
    assert caught.value.message.endswith(".")
    assert str(tmp_path) not in str(caught.value)


def test_content_wins_over_what_the_source_states(limits: Settings, tmp_path: Path) -> None:
    document = _parse(limits, tmp_path, _english_pdf(), "text/html", "page.html")
    assert document.media_type == "application/pdf"
    assert document.pages


def test_bad_utf8_is_kept_readable_and_counted(limits: Settings, tmp_path: Path) -> None:
    data = "Größe und Länge, überall gemessen. ".encode() * 9 + b"\xff\xfe\xfa" + b" Ende."
    document = _parse(limits, tmp_path, data, "text/plain")
    assert document.text.endswith("\ufffd\ufffd\ufffd Ende.")
    assert [note.count for note in document.skipped] == [3]


def test_nul_and_control_characters_become_spaces_and_are_counted(limits: Settings, tmp_path: Path) -> None:
    data = b"before\x00after \x01\x02 end of a line of text that is long enough to be text\n"
    document = _parse(limits, tmp_path, data, "text/plain")
    assert len(document.text) == len(data)
    assert document.text.startswith("before after")
    assert [note.count for note in document.skipped] == [3]


def test_a_word_of_ten_megabytes_is_parsed(limits: Settings, tmp_path: Path) -> None:
    assert len(_parse(limits, tmp_path, b"a" * 10_000_000, "text/plain").text) == 10_000_000


@pytest.mark.parametrize("depth", [1_000, 50_000])
def test_deeply_nested_html_is_parsed_or_refused(limits: Settings, tmp_path: Path, depth: int) -> None:
    data = b"<!doctype html><body><p>top of the page</p>" + b"<div>" * depth + b"deep" + b"</div>" * depth
    try:
        assert "top of the page" in _parse(limits, tmp_path, data).text
    except CorruptDocument:
        assert depth > 1_000


def test_entities_of_xml_are_not_expanded(limits: Settings, tmp_path: Path) -> None:
    try:
        text = _parse(limits, tmp_path, _billion_laughs(), DOCX).text
    except CorruptDocument:
        return
    assert len(text) < 1000


def test_external_entities_are_not_read(limits: Settings, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret words")
    data = _docx_with(
        b'<?xml version="1.0"?><!DOCTYPE w [<!ENTITY x SYSTEM "' + secret.as_uri().encode() + b'">]>'
        b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r>'
        b"<w:t>public &x;</w:t></w:r></w:p></w:body></w:document>"
    )
    with contextlib.suppress(CorruptDocument):
        assert "secret words" not in _parse(limits, tmp_path, data, DOCX).text


def test_pages_without_text_are_counted_and_named(limits: Settings, tmp_path: Path) -> None:
    pages: list[list[Text]] = [page_of(["first"]), [], [], page_of(["fourth"]), []]
    document = _parse(limits, tmp_path, pdf(pages))
    assert document.pages_empty == 3
    assert [page.number for page in document.pages] == [1, 2, 3, 4, 5]
    assert [(note.what, note.count) for note in document.skipped] == [("pages 2-3, 5", 3)]
    first, fourth = document.pages[0], document.pages[3]
    assert document.text[first.start : first.end] == "first"
    assert document.text[fourth.start : fourth.end] == "fourth"


def test_encodings_are_found(limits: Settings, tmp_path: Path) -> None:
    english, german, japanese, arabic = REPORTS
    for found, encoding, charset in (
        (german, "iso-8859-1", ""),
        (japanese, "shift_jis", ""),
        (japanese, "euc-jp", ""),
        (arabic, "windows-1256", ""),
        (english, "utf-8", "iso-8859-1"),
    ):
        document = _parse(limits, tmp_path, as_html(found, encoding), "text/html", charset=charset)
        assert found.paragraphs[0] in document.text

"""HTML, Markdown and DOCX in their finer points."""

from __future__ import annotations

import io
from pathlib import Path

import docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from trivet.parse import ParseLimits, load_parser
from trivet.values import Document

_LIMITS = ParseLimits(max_pages=10, max_text_bytes=1 << 20)
_DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def _parse(folder: Path, data: bytes, media_type: str) -> Document:
    path = folder / "source"
    path.write_bytes(data)
    return load_parser(media_type).parse(path, media_type, "", _LIMITS)


def _headings(document: Document) -> list[tuple[int, str, str]]:
    """(level, title, what stands there)."""
    return [(found.level, found.title, document.text[found.start :].splitlines()[0]) for found in document.headings]


# ---------------------------------------------------------------- Markdown


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_markdown_offsets_are_those_of_the_source(tmp_path: Path, end: str) -> None:
    source = end.join(
        [
            "Über alles 風",
            "",
            "# One *and* `two`",
            "text",
            "",
            "Setext",
            "---",
            "",
            "> ## Quoted",
            "",
            "```",
            "# no",
            "```",
        ]
    )
    document = _parse(tmp_path, source.encode(), "text/markdown")
    assert document.text == source
    assert _headings(document) == [
        (1, "One and two", "# One *and* `two`"),
        (2, "Setext", "Setext"),
        (2, "Quoted", "## Quoted"),
    ]


def test_front_matter_is_blanked_receipted_and_read(tmp_path: Path) -> None:
    source = '---\ntitle: "A title"\nlang: de\ntags:\n  - x\n---\n\n# Heading\n\nbody'
    document = _parse(tmp_path, source.encode(), "text/markdown")
    assert len(document.text) == len(source)
    assert document.text.split() == ["#", "Heading", "body"]
    assert (document.title, document.metadata["lang"]) == ("A title", "de")
    assert [note.what for note in document.skipped] == ["front matter"]


def test_a_rule_is_no_front_matter(tmp_path: Path) -> None:
    source = "---\n\nSome words.\n\n---\n\nMore."
    assert _parse(tmp_path, source.encode(), "text/markdown").text == source


# ---------------------------------------------------------------- HTML


def test_html_keeps_lists_tables_code_and_breaks(tmp_path: Path) -> None:
    words = "Enough words that this counts as the main content of a page, which has to be longer than some. "
    page = (
        f"<html lang=en><title>T</title><body><h1>Top</h1><p>{words}</p><h2>Part</h2><p>one<br>two {words}</p>"
        f"<ul><li>first<ul><li>inner</li></ul></li><li>second</li></ul><pre>a = 1\n  b = 2</pre>"
        f"<table><tr><th>k</th><th>v</th></tr><tr><td>a</td><td>1</td></tr></table><p>{words}</p></body>"
    )
    document = _parse(tmp_path, page.encode(), "text/html")
    assert [found[:2] for found in _headings(document)] == [(1, "Top"), (2, "Part")]
    for expected in ("one\ntwo Enough", "- first\n- inner\n- second", "a = 1\n  b = 2", "k | v\na | 1"):
        assert expected in document.text
    assert document.metadata["lang"] == "en"


def test_short_pages_are_read_whole(tmp_path: Path) -> None:
    document = _parse(tmp_path, b"<html><body><h3>Only</h3><p>Three short words.</p></body>", "text/html")
    assert document.text == "Only\n\nThree short words."
    assert _headings(document) == [(3, "Only", "Only")]


def test_a_page_of_navigation_alone_is_still_text(tmp_path: Path) -> None:
    document = _parse(tmp_path, b"<html><body><nav><a href=/>Home page</a> <a href=/x>Other</a></nav>", "text/html")
    assert "Home page" in document.text


def test_the_title_of_a_page_is_kept_where_its_header_holds_it(tmp_path: Path) -> None:
    words = "<p>" + "Words that go on and on about one thing. " * 9 + "</p>"
    page = f"<html><body><header><h1>The title</h1>Slogan</header><main>{words}<h2>Part</h2>{words}</main></body>"
    document = _parse(tmp_path, page.encode(), "text/html")
    assert [found[:2] for found in _headings(document)] == [(1, "The title"), (2, "Part")]
    assert "Slogan" not in document.text


def test_hidden_text_stays_hidden(tmp_path: Path) -> None:
    page = b"<html><body><p>Seen words.</p><p hidden>no1</p><p style='display: none'>no2</p><script>no3</script>"
    assert _parse(tmp_path, page, "text/html").text == "Seen words."


# ---------------------------------------------------------------- DOCX


def _saved(document: object) -> bytes:
    file = io.BytesIO()
    document.save(file)  # type: ignore[attr-defined]  # python-docx ships no types
    return file.getvalue()


def _paragraph(body: str) -> object:
    return parse_xml(f"<w:p {nsdecls('w')}>{body}</w:p>")


def test_docx_reads_lists_tables_and_nested_tables(tmp_path: Path) -> None:
    source = docx.Document()
    source.add_paragraph("before")
    source.add_paragraph("one", style="List Bullet")
    source.add_paragraph("two", style="List Number")
    table = source.add_table(2, 2)
    for cell, text in zip((c for row in table.rows for c in row.cells), ("k", "v", "a", ""), strict=True):
        cell.text = text
    table.cell(1, 1).add_table(1, 2).cell(0, 0).text = "inner"
    source.add_paragraph("after")
    document = _parse(tmp_path, _saved(source), _DOCX)
    assert document.text == "before\n\n- one\n- two\n\nk | v\na | inner\n\nafter"


def test_docx_text_is_what_a_reader_sees(tmp_path: Path) -> None:
    source = docx.Document()
    body = source.element.body
    runs = (
        "<w:r><w:t>kept </w:t></w:r><w:ins><w:r><w:t>new </w:t></w:r></w:ins>"
        "<w:del><w:r><w:delText>old</w:delText></w:r></w:del>"
        "<w:hyperlink><w:r><w:t>link</w:t><w:br/><w:t>line</w:t></w:r></w:hyperlink>"
    )
    body.insert(0, _paragraph(runs))
    body.insert(
        1,
        parse_xml(
            f"<w:sdt {nsdecls('w')}><w:sdtContent><w:p><w:r><w:t>control</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        ),
    )
    body.insert(
        2,
        parse_xml(
            f'<w:p {nsdecls("w")} xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><w:r>'
            "<w:t>anchor</w:t><mc:AlternateContent><mc:Choice><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p>"
            "</w:txbxContent></mc:Choice><mc:Fallback><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p>"
            "</w:txbxContent></mc:Fallback></mc:AlternateContent></w:r></w:p>"
        ),
    )
    document = _parse(tmp_path, _saved(source), _DOCX)
    assert document.text == "kept new link\nline\n\ncontrol\n\nanchor\n\nbox"


def test_docx_headings_come_from_styles_their_bases_and_outline_levels(tmp_path: Path) -> None:
    source = docx.Document()
    source.add_heading("The title", 0)
    style = source.styles.add_style("My own", WD_STYLE_TYPE.PARAGRAPH)
    style.base_style = source.styles["Heading 2"]
    source.add_paragraph("By base", style="My own")
    source.element.body.insert(2, _paragraph('<w:pPr><w:outlineLvl w:val="2"/></w:pPr><w:r><w:t>By level</w:t></w:r>'))
    source.add_paragraph("body")
    document = _parse(tmp_path, _saved(source), _DOCX)
    assert [found[:2] for found in _headings(document)] == [(1, "The title"), (2, "By base"), (3, "By level")]
    assert document.title == "The title"


def test_a_style_that_is_based_on_itself_ends(tmp_path: Path) -> None:
    source = docx.Document()
    style = source.styles.add_style("Loop", WD_STYLE_TYPE.PARAGRAPH)
    style.base_style = style
    source.add_paragraph("text", style="Loop")
    assert _parse(tmp_path, _saved(source), _DOCX).text == "text"

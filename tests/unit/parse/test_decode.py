"""Bytes to text."""

from __future__ import annotations

import codecs
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.corpus.documents import REPORTS
from trivet.errors import CorruptDocument
from trivet.parse.decode import charset_codec, clean, decode, looks_binary


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.language)
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le+bom", "utf-16-be+bom", "utf-32-le+bom", "utf-16-be"]
)
def test_unicode_encodings_are_told_from_the_bytes(report: object, encoding: str) -> None:
    text = "\n".join(REPORTS[0].paragraphs) if encoding == "utf-16-be" else "\n".join(report.paragraphs)  # type: ignore[attr-defined]  # parametrised
    codec, _, mark = encoding.partition("+")
    boms = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE, "utf-32-le": codecs.BOM_UTF32_LE}
    decoded = decode((boms[codec] if mark else b"") + text.encode(codec))
    assert decoded.text == text
    assert not decoded.skipped


def test_a_stated_charset_counts() -> None:
    japanese = REPORTS[2].paragraphs[0]
    assert decode(japanese.encode("shift_jis"), "Shift_JIS").text == japanese
    assert decode("Größe".encode("latin-1"), "iso-8859-1").text == "Größe"
    assert decode("“quoted”".encode("cp1252"), "iso-8859-1").text == "“quoted”"


def test_valid_utf8_wins_over_a_western_charset() -> None:
    assert decode("Größe".encode(), "iso-8859-1").text == "Größe"


@pytest.mark.parametrize("label", ["rot13", "zip", "hex", "idna", "unicode_escape", "nonsense", "", "base64", "\x00"])
def test_codecs_that_are_no_charsets_are_ignored(label: str) -> None:
    assert charset_codec(label) == ""
    assert decode(b"plain words", label).text == "plain words"


def test_a_replacement_character_of_the_source_is_not_counted() -> None:
    assert decode("a \ufffd b".encode()).skipped == ()
    assert [note.count for note in decode("Größe \ufffd ".encode() * 20 + b"\xff").skipped] == [1]


def test_binary_is_refused() -> None:
    for data in (bytes(range(256)) * 9, b"\x00\x01\x02\x03" * 99, b"\x7fELF" + bytes(300)):
        assert looks_binary(data)
        with pytest.raises(CorruptDocument, match="not text"):
            decode(data)


@given(text=st.text())
def test_cleaning_keeps_length_and_leaves_no_control_character(text: str) -> None:
    cleaned, notes = clean(text)
    assert len(cleaned) == len(text)
    assert not any(ord(character) < 32 and character not in "\t\n\v\f\r" for character in cleaned)
    cleaned.encode()
    assert bool(notes) == (cleaned.replace("\n", "\x85") != text.replace("\n", "\x85"))


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_lone_surrogates_become_spaces(text: str) -> None:
    assert clean("\ud800" + text)[0][0] == " "


@given(data=st.binary(max_size=300), charset=st.sampled_from(["", "utf-8", "utf-16", "latin-1", "big5", "junk"]))
def test_any_bytes_give_text_or_the_one_error(data: bytes, charset: str) -> None:
    with contextlib.suppress(CorruptDocument):
        decode(data, charset).text.encode()

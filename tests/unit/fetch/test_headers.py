"""What response headers are taken to say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.fetch import headers


@pytest.mark.parametrize(
    ("value", "media_type", "charset"),
    [
        ("text/html", "text/html", ""),
        ("Text/HTML; Charset=UTF-8", "text/html", "utf-8"),
        ('text/plain; charset="iso-8859-1"; x=y', "text/plain", "iso-8859-1"),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document",
         "application/vnd.openxmlformats-officedocument.wordprocessingml.document", ""),
        ("", "", ""),
        ("nonsense", "", ""),
        ("text/html; charset=<scr!pt>", "text/html", ""),
        ("text/ht ml", "", ""),
    ],
)  # fmt: skip
def test_content_type_gives_type_and_charset_or_nothing(value: str, media_type: str, charset: str) -> None:
    assert headers.media_type_of(value) == (media_type, charset)


@pytest.mark.parametrize(
    ("value", "path", "name"),
    [
        ("", "/a/b/report.pdf", "report.pdf"),
        ("", "/a/%E6%97%A5%E6%9C%AC.html", "日本.html"),
        ("", "/a/", ""),
        ("", "/..", ""),
        ("", "/a%2F..%2Fpasswd", "passwd"),
        ("inline", "/x.txt", "x.txt"),
        ('attachment; filename="a b.pdf"', "/x", "a b.pdf"),
        ("attachment; filename=plain.pdf", "/x", "plain.pdf"),
        ("attachment; filename=\"old.txt\"; filename*=UTF-8''%e2%82%ac.txt", "/x", "€.txt"),
        ("attachment; filename*=UTF-8''%e2%82%ac.txt; filename=old.txt", "/x", "€.txt"),
        ('attachment; filename="../../etc/passwd"', "/x", "passwd"),
        ('attachment; filename="C:\\\\temp\\\\a.doc"', "/x", "a.doc"),
        ('attachment; filename=".."', "/x.txt", "x.txt"),
    ],
)
def test_a_file_name_is_the_last_component_of_what_is_stated(value: str, path: str, name: str) -> None:
    assert headers.filename_of(value, path) == name


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_header_makes_a_file_name_that_leaves_its_folder(value: str, path: str) -> None:
    name = headers.filename_of(value.replace("\n", "").replace("\r", ""), path)
    assert "/" not in name
    assert "\\" not in name
    assert name not in (".", "..")
    assert name.isprintable()
    assert len(name) <= 255


@given(st.text(max_size=200))
def test_no_content_type_breaks_the_reader(value: str) -> None:
    media_type, charset = headers.media_type_of(value.replace("\n", "").replace("\r", ""))
    assert media_type == media_type.lower()
    assert charset.isascii()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("120", "It asks to wait 120 s."),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "It asks to wait 60 s."),
        ("Wed, 21 Oct 2014 07:28:00 GMT", "It asks to wait 0 s."),
        ("soon", ""),
        ("-1", ""),
        ("", ""),
    ],
)
def test_retry_after_is_read_in_both_forms(value: str, says: str) -> None:
    assert headers.retry_after(value, 1_445_412_420.0) == says

"""Documents between two processes."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet import errors
from trivet.errors import CorruptDocument, EncryptedDocument, SourceTooLarge
from trivet.parse import ParseLimits
from trivet.parse.wire import read_result, write_document, write_error
from trivet.values import Document, Heading, Page, Skipped

_LIMITS = ParseLimits(max_pages=10, max_text_bytes=10_000)
_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=50)


@given(text=_TEXT, title=_TEXT, metadata=st.dictionaries(_TEXT, _TEXT, max_size=3))
def test_a_document_comes_back_as_it_was(text: str, title: str, metadata: dict[str, str]) -> None:
    size = len(text)
    document = Document(
        text=text,
        media_type="text/plain",
        title=title,
        headings=(Heading(1, title, 0),) if text else (),
        pages=(Page(1, 0, size), Page(2, size, size)),
        pages_empty=1,
        skipped=(Skipped(what=title, reason="r", count=3),),
        metadata=metadata,
    )
    file = io.BytesIO()
    write_document(file, document)
    file.seek(0)
    assert read_result(file, _LIMITS) == document


def test_an_error_comes_back_as_it_was() -> None:
    file = io.BytesIO()
    write_error(file, EncryptedDocument("It is locked.", hint="Unlock it."))
    file.seek(0)
    with pytest.raises(EncryptedDocument, match=r"It is locked\. Unlock it\."):
        read_result(file, _LIMITS)


def test_text_over_the_limit_is_refused() -> None:
    file = io.BytesIO()
    write_document(file, Document(text="x" * 10_001, media_type="text/plain"))
    file.seek(0)
    with pytest.raises(SourceTooLarge):
        read_result(file, _LIMITS)


_GOOD = {
    "media_type": "text/plain",
    "title": "",
    "headings": [],
    "pages": [],
    "pages_empty": 0,
    "skipped": [],
    "metadata": {},
}


@pytest.mark.parametrize(
    "change",
    [
        {"headings": [[1, "t", 5]]},
        {"headings": [[1, "t", -1]]},
        {"headings": [[7, "t", 0]]},
        {"headings": [[1, "t", True]]},
        {"headings": [[1, "t", 2], [1, "u", 1]]},
        {"headings": [[1, 5, 1]]},
        {"headings": 5},
        {"pages": [[1, 3, 2]]},
        {"pages": [[1, 0, 4], [2, 3, 4]]},
        {"pages_empty": 1},
        {"skipped": [["a", "b", -1]]},
        {"metadata": {"a": 1}},
        {"metadata": {"a": "x" * 1001}},
        {"title": "\ud800"},
        {"title": None},
        {"error": "lease_lost", "message": "m", "hint": ""},
        {"error": ["x"], "message": "m", "hint": ""},
    ],
)
def test_nothing_that_does_not_hold_is_believed(change: dict[str, object]) -> None:
    with pytest.raises(CorruptDocument, match="no usable answer"):
        read_result(io.BytesIO(json.dumps(_GOOD | change).encode() + b"\ntext"), _LIMITS)


@given(data=st.binary(max_size=200))
def test_any_answer_gives_one_of_our_errors(data: bytes) -> None:
    with pytest.raises(errors.CorruptDocument):
        read_result(io.BytesIO(data), _LIMITS)

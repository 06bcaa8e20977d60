"""From the lines of a PDF page to paragraphs, and from outline titles to places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.parse.pdf_layout import Line, find_title, reflow


def _lines(*texts: str, pitch: float = 14, width: float = 400, size: float = 11) -> list[Line]:
    """Lines of full width; an empty text leaves a blank line."""
    return [Line(text, 72, 72 + width, 770 - pitch * number, size) for number, text in enumerate(texts) if text]


def test_lines_of_a_paragraph_are_joined() -> None:
    assert (
        reflow(_lines("The wind blows", "over the sea", "", "and back.")) == "The wind blows over the sea\n\nand back."
    )


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ("elec\x02", "tricity is made", "electricity is made"),
        ("elec-", "tricity is made", "electricity is made"),
        ("elec\xad", "tricity is made", "electricity is made"),
        ("the North-", "South line", "the North- South line"),
        ("a range of 3 -", "five", "a range of 3 - five"),
        ("風力発電", "機である", "風力発電機である"),
        ("風力 wind", "power", "風力 wind power"),
    ],
)
def test_words_and_scripts_decide_what_stands_between_lines(first: str, second: str, joined: str) -> None:
    assert reflow(_lines(first, second, "x", "y")).startswith(joined)


def test_a_hyphen_mark_at_the_end_of_a_page_is_a_hyphen() -> None:
    assert reflow(_lines("one", "elec\x02")) == "one elec-"


def test_a_line_that_ends_early_ends_on_purpose() -> None:
    lines = _lines("Item one", "Item two", "A full line of text", "goes on")
    short = [Line(line.text, line.left, line.left + 60, line.baseline, line.size) for line in lines[:2]]
    assert reflow([*short, *lines[2:]]) == "Item one\nItem two\nA full line of text goes on"


def test_another_size_is_another_paragraph() -> None:
    heading, *body = _lines("Heading", "body text", "goes on")
    assert reflow([Line("Heading", 72, 200, heading.baseline, 16), *body]) == "Heading\n\nbody text goes on"


@given(texts=st.lists(st.text(max_size=20), max_size=12), pitch=st.floats(-20, 40))
def test_every_visible_character_is_kept(texts: list[str], pitch: float) -> None:
    marks = "\x00\x02\xad-"
    kept = "".join(c for text in texts for c in text if not c.isspace() and c not in marks)
    found = "".join(c for c in reflow(_lines(*texts, pitch=pitch)) if not c.isspace() and c not in marks)
    assert found == kept


@pytest.mark.parametrize(
    ("title", "text", "start"),
    [
        ("Wind power", "Contents\nWind power\nWind power is", 9),
        ("Wind power", "about wind  POWER here", 6),
        ("2.1 Wind power", "x\nWind power\nbody", 2),
        ("Wind power", "x\n2.1 Wind power\nbody", 2),
        ("Windkraft", "nothing of it", None),
        ("風力 発電", "第一章\n風力発電\n本文", 4),
        ("a.b*c(", "x a.b*c( y", 2),
    ],
)
def test_titles_are_found_whatever_their_case_spaces_and_numbers(title: str, text: str, start: int | None) -> None:
    assert find_title(text, title, 0, len(text)) == start

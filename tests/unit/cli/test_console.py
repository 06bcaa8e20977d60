"""Texts come from strangers, terminals are narrow, and pipes have no width."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.cli.console import clean, number, print_table
from trivet.cli.search import snippet


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    shown = clean(text)
    assert all(unicodedata.category(character) != "Cc" or character in "\n\t" for character in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"])))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_a_table_in_a_pipe_cuts_nothing_and_reads_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    key = "v1/default/docs/objects/obj_0123456789abcdef01234567/g/12/manifest.json"
    print_table(("object", ">tokens", "key"), [("[bold]name[/bold]", "70,445", key)])
    out = capsys.readouterr().out
    assert key in out
    assert "[bold]name[/bold]" in out
    assert "70,445" in out


@given(st.text(), st.integers(2, 400))
def test_a_snippet_is_one_line_and_never_longer_than_asked(text: str, width: int) -> None:
    shown = snippet(text, width)
    assert len(shown) <= width
    assert len(shown.splitlines()) <= 1


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(0, "", "0"), (70445, "", "70,445"), (999, "B", "999 B"), (1000, "B", "1.0 kB"), (2.5e12, "B", "2500.0 GB")],
)
def test_numbers_are_shown_for_people(value: float, unit: str, shown: str) -> None:
    assert number(value, unit) == shown

"""A hit that is explained stays readable: where most matched is shown, with styles, on one line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trivet.cli.explained import excerpt, highlighted
from trivet.retrieval.highlights import Highlight


def at(start: int, end: int, weight: float = 0.5) -> Highlight:
    return Highlight(start, end, start, end, weight)


def test_matching_words_have_a_style_and_no_other_text_has() -> None:
    shown = highlighted("the light\n\n house  stands", [at(4, 9, 0.9), at(12, 17, 0.1)])
    assert shown.plain == "the light house stands"
    styled = {shown.plain[span.start : span.end]: span.style for span in shown.spans}
    assert styled == {"light": "bold yellow", "house": "underline"}


def test_what_could_steer_a_terminal_is_taken_out_and_the_styles_stay_in_place() -> None:
    shown = highlighted("\x1b[31m\u202eabc tower", [at(len("\x1b[31m\u202eabc "), len("\x1b[31m\u202eabc tower"))])
    assert shown.plain == "[31mabc tower"
    (span,) = shown.spans
    assert shown.plain[span.start : span.end] == "tower"


def test_of_a_long_text_the_place_that_matched_most_is_shown() -> None:
    text = "x " * 400 + "tower" + " y" * 400
    shown = highlighted(text, [at(0, 1, 0.1), at(800, 805, 0.8)], 60)
    assert (shown.plain[0], shown.plain[-1], len(shown.plain)) == ("…", "…", 62)
    assert "x tower y" in shown.plain


@given(st.integers(0, 500), st.integers(1, 100), st.lists(st.integers(0, 499), max_size=8, unique=True))
def test_an_excerpt_lies_in_the_text_and_holds_a_highlight_that_fits(
    length: int, width: int, places: list[int]
) -> None:
    found = [at(place, place + 1) for place in sorted(places) if place < length]
    first, last = excerpt(length, found, width)
    assert 0 <= first <= last <= length
    assert last - first == min(length, width)
    assert not found or any(first <= one.start and one.end <= last for one in found)

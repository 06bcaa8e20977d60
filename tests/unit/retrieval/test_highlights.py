"""Highlights are whole words: none overlaps another, none cuts a grapheme, and all that matched is in one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from trivet.retrieval.highlights import Span, highlights

SCRIPTS = "Haus haus é e\u0301 المنارة 東京タワー กรุงเทพน้ำ 👩‍👩‍👧 👍🏽 🇩🇪🇫🇷 don't , . \r\n"


@st.composite
def matched(draw: st.DrawFn) -> tuple[str, list[dict[Span, float]]]:
    """A text, and per leg shares of spans in it."""
    text = draw(st.text(st.sampled_from(SCRIPTS), max_size=30) | st.text(max_size=20))
    place = st.integers(0, len(text))
    ends = st.tuples(place, place).filter(lambda pair: pair[0] != pair[1])
    spans = ends.map(lambda pair: (min(pair), max(pair)))
    leg = st.dictionaries(spans, st.floats(0, 1), max_size=6 if text else 0)
    return text, draw(st.lists(leg, min_size=1, max_size=2))


@given(matched())
@example(("?\U0003d000", [{(0, 2): 1.0}]))
def test_highlights_are_in_order_whole_and_hold_all_that_matched(case: tuple[str, list[dict[Span, float]]]) -> None:
    text, legs = case
    found = highlights(text, 100, legs)
    clusters = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    assert all(0 < one.weight <= 1 and {one.start, one.end} <= clusters for one in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all((one.char_start, one.char_end) == (100 + one.start, 100 + one.end) for one in found)
    shown = {i for one in found for i in range(one.start, one.end)}
    for leg in legs:
        for (start, end), share in leg.items():
            if share > 0 and regex.search(r"[\p{L}\p{N}\p{S}]", text[start:end]):
                assert shown >= set(range(start, end))


@pytest.mark.parametrize(
    ("text", "span", "expected"),
    [
        ("the Oberhaus-Kapelle", (8, 12), "Oberhaus"),
        ("I don't know", (6, 7), "don't"),
        ("في المنارة كل", (5, 8), "المنارة"),
        ("東京タワーは高い", (0, 2), "東京"),
        ("กรุงเทพน้ำ", (7, 8), "น้ำ"),
        ("เก็บน้ำไว้", (4, 6), "น้ำ"),
        ("a 👩\u200d👩\u200d👧 b", (4, 5), "👩\u200d👩\u200d👧"),
        ("cafe\u0301s", (0, 4), "cafe\u0301s"),
    ],
)
def test_a_part_of_a_word_highlights_the_word(text: str, span: Span, expected: str) -> None:
    (found,) = highlights(text, 0, [{span: 0.5}])
    assert text[found.start : found.end] == expected


def test_the_weights_of_a_word_add_up_and_the_leg_that_says_more_counts() -> None:
    (one, two) = highlights("lighthouse tower", 0, [{(0, 5): 0.25, (5, 10): 0.5}, {(0, 5): 0.1, (11, 16): 0.9}])
    assert (one.weight, two.weight) == (0.75, 0.9)


@pytest.mark.parametrize("text", ["?!", " ", "。"])
def test_punctuation_alone_is_not_highlighted(text: str) -> None:
    assert highlights(text, 0, [{(0, len(text)): 1.0}]) == ()

"""What is remembered of candidates."""

from __future__ import annotations

from trivet.index import Space
from trivet.index.edge_identities import Identities

HERE, THERE = Space("n", "here", "ab"), Space("n", "there", "ab")


def test_of_more_than_it_may_hold_the_last_are_remembered() -> None:
    held = Identities(most=4)
    held.keep(HERE, {"a": {"chunk_id": "1"}, "b": {"chunk_id": "2"}})
    held.keep(THERE, {"a": {"chunk_id": "3"}})
    assert (held.of(HERE)["a"], held.of(THERE)["a"]) == ({"chunk_id": "1"}, {"chunk_id": "3"})
    held.keep(THERE, {"c": {"chunk_id": "4"}, "d": {"chunk_id": "5"}})
    assert held.of(HERE) == {}
    assert set(held.of(THERE)) == {"c", "d"}


def test_what_is_written_anew_or_dropped_is_forgotten() -> None:
    held = Identities()
    held.keep(HERE, {"a": {}, "b": {}})
    held.forget(HERE, ["a", "z"])
    held.forget(THERE, ["a"])
    assert set(held.of(HERE)) == {"b"}
    held.forget_all(HERE)
    held.forget_all(THERE)
    assert held.of(HERE) == {}

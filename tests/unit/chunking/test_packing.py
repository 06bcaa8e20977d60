"""Which units go into one chunk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trivet.chunking.boundaries import Rank
from trivet.chunking.packing import Budget, pack

_UNITS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(list(Rank))), max_size=80)


@given(units=_UNITS, target=st.integers(1, 100), more=st.integers(0, 60))
def test_runs_cover_all_units_in_order_within_the_cap(units: list[tuple[int, Rank]], target: int, more: int) -> None:
    tokens, ranks = [count for count, _ in units], [rank for _, rank in units]
    runs = pack(tokens, ranks, Budget(target, target + more), Budget(target, target + more))
    assert [place for run in runs for place in run] == sorted(place for run in runs for place in run)
    assert [unit for begin, end in runs for unit in range(begin, end)] == list(range(len(units)))
    assert all(sum(tokens[begin:end]) <= target + more or end - begin == 1 for begin, end in runs)


def test_the_better_rank_wins_and_the_nearer_place_among_equals() -> None:
    ranks = [Rank.SENTENCE] * 20
    budget = Budget(50, 80)
    assert pack([10] * 20, ranks, budget, budget)[0] == (0, 5)
    ranks[7] = Rank.PARAGRAPH
    assert pack([10] * 20, ranks, budget, budget)[0] == (0, 7)
    ranks[2] = Rank.PARAGRAPH
    assert pack([10] * 20, ranks, budget, budget)[0] == (0, 7)


def test_the_first_run_has_a_budget_of_its_own() -> None:
    ranks = [Rank.WORD] * 12
    assert pack([10] * 12, ranks, Budget(20, 20), Budget(50, 50))[:2] == [(0, 2), (2, 7)]

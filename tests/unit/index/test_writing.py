"""A generation's way into the index: whatever comes twice, late or is cut off, the index ends level with S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.indexed import Indexed, indexed
from tests.unit.retrieval.world import World, model, random_legs, random_query
from trivet.errors import StoreDamaged, TransientError
from trivet.faults import arm, disarm
from trivet.index import Where
from trivet.index.marks import Mark
from trivet.index.writing import FAULTS, Written
from trivet.retrieval import SearchRequest
from trivet.retrieval.exact import ExactRetriever
from trivet.values import Outputs

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

OBJECTS = ("a", "b", "c")
REQUEST = SearchRequest(top_k=100, candidates=200, rerank_candidates=100)


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    disarm()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def held(world: World) -> Iterator[Indexed]:
    """Not level with the world until something brings it so."""
    with indexed(world) as made:
        yield made


def bring(held: Indexed, object_id: str, **how: Any) -> Written:
    return held.writer.bring(held.world.layout, object_id, **how)


def found(held: Indexed, rng: np.random.Generator) -> set[tuple[str, int]]:
    hits = held.retriever.search("default", "docs", random_query(rng), REQUEST).hits
    return {(hit.object_id, hit.generation) for hit in hits}


def assert_level(held: Indexed) -> None:
    report = held.sync.verify(deep=True)
    assert report.troubles == ()


def test_a_generation_is_indexed_once_and_known_after_that(
    held: Indexed, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 5), parts=2)
    assert [bring(held, "a") for _ in range(3)] == [Written.INDEXED, Written.KNOWN, Written.KNOWN]
    assert bring(held, "a", anew=True) == Written.INDEXED
    assert found(held, rng) == {("a", 1)}
    assert_level(held)


def test_a_newer_generation_replaces_the_older_also_in_another_models_space(
    held: Indexed, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 5), identity=model("f" * 16, "old"))
    bring(held, "a")
    world.commit("a", random_legs(rng, 3), generation=2)
    bring(held, "a")
    assert found(held, rng) == {("a", 2)}
    assert_level(held)


@pytest.mark.parametrize("purged", [False, True])
def test_a_deleted_object_leaves_nothing_but_its_mark(
    held: Indexed, world: World, rng: np.random.Generator, purged: bool
) -> None:
    world.commit("a", random_legs(rng, 5))
    bring(held, "a")
    world.commit("a", random_legs(rng, 0), generation=2, tombstone=True)
    if purged:
        purge(world, "a")
    assert [bring(held, "a"), bring(held, "a")] == [Written.REMOVED, Written.KNOWN]
    assert found(held, rng) == set()
    mark = held.marks.get("default", "docs", "a")
    assert mark is not None
    assert mark.tombstone
    assert_level(held)


def test_an_object_that_begins_anew_after_a_purge_is_indexed_although_its_numbers_are_lower(
    held: Indexed, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 5), generation=7)
    bring(held, "a")
    purge(world, "a")
    bring(held, "a")
    world.commit("a", random_legs(rng, 2), generation=1)
    assert bring(held, "a") == Written.INDEXED
    assert found(held, rng) == {("a", 1)}
    assert_level(held)


@pytest.mark.parametrize("gap", [2, 7])
def test_an_object_that_is_generations_ahead_on_s3_is_brought_there_at_once_whichever_event_tells_of_it(
    held: Indexed, world: World, rng: np.random.Generator, gap: int
) -> None:
    world.commit("a", random_legs(rng, 5), generation=3)
    bring(held, "a")
    for generation in range(4, 4 + gap):
        world.commit("a", random_legs(rng, generation), generation=generation)
    # The events of those between find it level: an event names an object, never a generation.
    assert [bring(held, "a") for _ in range(gap)] == [Written.INDEXED, *[Written.KNOWN] * (gap - 1)]
    assert found(held, rng) == {("a", 3 + gap)}
    assert_level(held)


def test_a_mark_above_what_s3_shows_hides_nothing_when_all_is_compared(
    held: Indexed, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 5), generation=9)
    bring(held, "a")
    # Purged and begun anew while nobody told the index.
    purge(world, "a")
    world.commit("a", random_legs(rng, 2), generation=2)
    assert held.sync.verify().differences == 1
    assert held.sync.fill().indexed == 1
    assert found(held, rng) == {("a", 2)}
    assert_level(held)


def test_what_is_damaged_keeps_the_generation_before_it(held: Indexed, world: World, rng: np.random.Generator) -> None:
    world.commit("a", random_legs(rng, 5))
    bring(held, "a")
    part = world.commit("a", random_legs(rng, 5), generation=2).parts[0]
    world.store.delete(part.key)
    world.store.put(part.key, b"no Parquet")
    with pytest.raises(StoreDamaged):
        bring(held, "a")
    assert found(held, rng) == {("a", 1)}
    assert "generation 2 is visible, the index has 1" in held.sync.verify().troubles[0].reason
    report = held.sync.fill()
    assert (report.damaged, report.troubles[0].object_id) == (1, "a")


def test_searches_see_the_old_generation_until_the_new_one_is_live_and_never_both(
    held: Indexed, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 20))
    bring(held, "a")
    world.commit("a", random_legs(rng, 20), generation=2, parts=2)
    seen: dict[str, set[tuple[str, int]]] = {}
    for name in FAULTS:
        arm(name, lambda name=name: seen.__setitem__(name, found(held, rng)))  # type: ignore[misc] # bound at once
    bring(held, "a")
    old, new = {("a", 1)}, {("a", 2)}
    assert seen == dict(zip(FAULTS, (old, old, old, new, new, new), strict=True))


@pytest.mark.parametrize("step", FAULTS)
@pytest.mark.parametrize("then", ["again", "replaced", "deleted", "purged"])
def test_what_was_cut_off_anywhere_is_made_good_by_the_next_event(
    held: Indexed, world: World, rng: np.random.Generator, step: str, then: str
) -> None:
    world.commit("a", random_legs(rng, 20))
    bring(held, "a")
    world.commit("a", random_legs(rng, 20), generation=2, parts=2)
    arm(step, cut_off)
    with pytest.raises(TransientError):
        bring(held, "a")
    disarm()
    # A process that begins anew knows what is written, and nothing else.
    fresh = Indexed(world, held.index)
    if then == "replaced":
        world.commit("a", random_legs(rng, 3), generation=3)
    if then == "deleted":
        world.commit("a", random_legs(rng, 0), generation=3, tombstone=True)
    if then == "purged":
        purge(world, "a")
    bring(fresh, "a")
    assert_level(fresh)
    generation = {"again": 2, "replaced": 3}.get(then)
    assert found(fresh, rng) == ({("a", generation)} if generation else set())


def test_points_of_an_object_that_was_purged_while_it_was_first_written_go_with_its_event(
    held: Indexed, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 5))
    arm("index.after_live", cut_off)
    with pytest.raises(TransientError):
        bring(held, "a")
    disarm()
    purge(world, "a")
    assert held.sync.verify().differences
    bring(held, "a")
    assert_level(held)


def test_points_that_went_lost_are_found_and_written_again(
    held: Indexed, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 5))
    world.commit("b", random_legs(rng, 5))
    held.sync.fill()
    space = next(space for space in held.index.spaces() if space.encoder_key)
    lost = next(iter(held.index.scroll(space, Where(objects=("a",)), ())))[0]
    held.index.delete(space, Where(ids=(lost,)))
    assert [(one.object_id, one.reason) for one in held.sync.verify().troubles] == [("a", "4 of 5 chunks are there")]
    assert held.sync.fill().known == 2
    assert held.sync.fill(anew=True).indexed == 2
    assert_level(held)


def test_a_mark_without_an_object_goes_when_all_is_written_anew(
    held: Indexed, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 5))
    held.sync.fill()
    purge(world, "a")
    assert held.sync.fill().removed == 1
    held.sync.fill(anew=True)
    assert held.marks.get("default", "docs", "a") is None
    assert_level(held)


def test_chunks_with_too_many_vectors_for_the_index_are_reranked_out_of_the_parts(
    world: World, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trivet.index.writing.MOST_COLBERT_NUMBERS", 24)
    world.commit("a", random_legs(rng, 20))
    world.commit("b", random_legs(rng, 20), outputs=Outputs(colbert="int8"))
    query = random_query(rng)
    with indexed(world, tmp_path / "index") as held:
        result = held.search("default", "docs", query, REQUEST)
    expected = world.memory.search("default", "docs", query, REQUEST)
    assert [hit.chunk_id for hit in result.hits] == [hit.chunk_id for hit in expected.hits]
    assert result.stats.rows_reranked == 40
    scores = [(hit.colbert, want.colbert) for hit, want in zip(result.hits, expected.hits, strict=True)]
    assert all(got and want and got.score == pytest.approx(want.score, abs=2e-3) for got, want in scores)


# ---------------------------------------------------------------- any order

commits = st.tuples(st.just("commit"), st.sampled_from(OBJECTS), st.integers(0, 4))
tombstones = st.tuples(st.just("tombstone"), st.sampled_from(OBJECTS), st.just(0))
purges = st.tuples(st.just("purge"), st.sampled_from(OBJECTS), st.just(0))
#: The event of the nth change so far (modulo), which may have been delivered before.
deliveries = st.tuples(st.just("deliver"), st.just(""), st.integers(0, 30))
cuts = st.tuples(st.just("cut"), st.sampled_from(FAULTS), st.integers(0, 30))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.one_of(commits, commits, tombstones, purges, deliveries, deliveries, cuts), max_size=14),
    last=st.randoms(use_true_random=False),
)
def test_whatever_the_order_of_events_the_index_ends_equal_to_the_manifests(
    steps: list[tuple[str, str, int]], last: Any
) -> None:
    rng, world, changed = np.random.default_rng(0), World(), []
    generations = dict.fromkeys(OBJECTS, 0)
    with indexed(world) as held:
        for kind, name, n in steps:
            if kind in ("commit", "tombstone"):
                generations[name] += 1
                rows = n if kind == "commit" else 0
                world.commit(name, random_legs(rng, rows), generation=generations[name], tombstone=kind == "tombstone")
                changed.append(name)
            elif kind == "purge":
                purge(world, name)
                # As the ledger does: what nobody remembers begins anew.
                generations[name] = 0
            elif changed:
                if kind == "cut":
                    arm(name, cut_off)
                with suppress(TransientError):
                    bring(held, changed[n % len(changed)])
                disarm()
        # At least once, in any order, by a process that has been started since.
        fresh = Indexed(world, held.index)
        events = [*changed, *OBJECTS]
        last.shuffle(events)
        for name in events:
            bring(fresh, name)
        assert_level(fresh)


def cut_off() -> None:
    raise TransientError("cut off")


def purge(world: World, object_id: str) -> None:
    for stored in list(world.store.list(world.layout.object(object_id))):
        world.store.delete(stored.key)


def test_no_metadata_can_spoil_an_index_or_come_back_as_others(held: Indexed, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    deep: dict[str, Any] = {}
    for _ in range(150):
        deep = {"a": deep}
    odd = {"deep": deep, "big": 10**30, "least": -(2**63) - 1, "nul": "x\0y", "": None, "real": 1.0, "true": True}
    filters = {"metadata": [{"key": "big", "op": "eq", "value": 10**30}]}
    request = SearchRequest.model_validate({"filters": filters})
    held.world.commit("odd", random_legs(rng, 2), metadata=odd)
    held.world.commit("even", random_legs(rng, 2), metadata={"big": float(10**30 + 10**15)})
    with indexed(held.world, tmp_path / "index") as embedded:
        for one in (held, embedded):
            for what in (one, Indexed(held.world, one.index)):
                hits = what.search("default", "docs", random_query(rng), request).hits
                assert [hit.metadata for hit in hits] == [odd, odd]
            assert_level(one)


def test_an_object_that_began_anew_before_its_mark_was_to_be_forgotten_keeps_it(
    held: Indexed, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 2), generation=4)
    bring(held, "a")
    purge(world, "a")
    bring(held, "a")
    world.commit("a", random_legs(rng, 2))
    for _ in range(2):  # Before the index has it, and after.
        held.writer.forget(world.layout, "a")
        bring(held, "a")
    assert held.marks.get("default", "docs", "a") is not None
    assert_level(held)
    purge(world, "a")
    bring(held, "a")
    held.writer.forget(world.layout, "a")
    assert held.marks.get("default", "docs", "a") is None


def test_a_threshold_of_a_leg_that_is_not_stored_is_noted_as_in_exact_search(held: Indexed) -> None:
    rng = np.random.default_rng(1)
    held.world.commit("a", random_legs(rng, 3), outputs=Outputs(sparse=False))
    request = SearchRequest.model_validate({"min_leg_scores": {"sparse": 0.1}, "fusion": {"weights": {"dense": 1}}})
    query, exact = random_query(rng), ExactRetriever(held.world.store, held.world.prefix)
    indexed_, exact_ = (one.search("default", "docs", query, request).stats.notes for one in (held, exact))
    assert indexed_ == exact_ == ("The sparse leg is not stored in this collection and was left out.",)


def test_a_filter_of_another_infinity_is_another_filter(held: Indexed) -> None:
    rng = np.random.default_rng(1)
    held.world.commit("a", random_legs(rng, 2), metadata={"year": 2000})
    for bound, expected in ((float("-inf"), 2), (float("inf"), 0)):
        filters = {"metadata": [{"key": "year", "op": "gt", "value": bound}]}
        request = SearchRequest.model_validate({"filters": filters})
        assert len(held.search("default", "docs", random_query(rng), request).hits) == expected


def test_a_mark_keeps_what_it_is_told(held: Indexed) -> None:
    mark = Mark(object_id="a", generation=3, rows=2, metadata={"tags": ["x", {"y": None}], "n": 1.5})
    held.marks.put("default", "docs", mark)
    assert Indexed(held.world, held.index).marks.get("default", "docs", "a") == mark

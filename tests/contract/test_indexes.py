"""What every index must do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from tests.unit.retrieval.world import unit
from trivet.index import INDEXES, Index, Point, QueryVector, Space, Where
from trivet.index.edge import EdgeIndex
from trivet.index.fields import IDENTITY, heading_key
from trivet.index.qdrant import QdrantIndex
from trivet.retrieval import Leg

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

D = 8
SPACE = Space("default", "docs", "ab" * 8, dense=D, sparse=True, colbert=D)
MARKS = Space("default", "docs")


@pytest.fixture(params=["embedded", "qdrant"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    made: Index = (
        EdgeIndex(tmp_path / "index", ef=64)
        if request.param == "embedded"
        else QdrantIndex(QdrantClient(":memory:"), prefix="trivet")
    )
    yield made
    made.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def name(n: int) -> str:
    return str(uuid.UUID(int=n + 1))


def point(n: int, rng: np.random.Generator, *, object_id: str = "a", generation: int = 1, **payload: Any) -> Point:
    ids = np.sort(rng.choice(40, 5, replace=False)).astype(np.uint32)
    return Point(
        name(n),
        {"chunk_id": f"c{n}", "object_id": object_id, "generation": generation, "live": 0, **payload},
        dense=unit(rng, D),
        sparse=(ids, rng.uniform(0.1, 2, 5).astype(np.float32)),
        colbert=unit(rng, 1 + n % 4, D).astype(np.float16),
    )


def dense(numbers: Any) -> QueryVector:
    return QueryVector(Leg.DENSE, numbers=numbers)


def ids_of(index: Index, where: Where, space: Space = SPACE) -> set[str]:
    return {one for one, _ in index.scroll(space, where, ("object_id",))}


def test_every_registered_index_can_be_imported() -> None:
    kinds = {f"{kind.__module__}:{kind.__name__}" for kind in (EdgeIndex, QdrantIndex)}
    assert set(INDEXES.values()) == kinds


@pytest.mark.parametrize(
    "space",
    [SPACE, MARKS, Space("n-1", "c.2_3", "0", dense=0, sparse=False, colbert=0), Space("n", "c", "ff", 1024, True, 0)],
)
def test_a_space_is_known_by_its_name(space: Space) -> None:
    assert Space.named(space.namespace, space.collection, space.name) == space


def test_what_was_never_written_to_is_empty(index: Index, rng: np.random.Generator) -> None:
    assert index.spaces() == ()
    assert index.count(SPACE, Where()) == 0
    assert index.nearest(SPACE, dense(unit(rng, D)), Where(), 5, ()) == []
    assert index.payloads(SPACE, [name(1)]) == {}
    assert ids_of(index, Where()) == set()
    index.delete(SPACE, Where(objects=("a",)))
    index.set_live(SPACE, "a", 1)
    index.drop(SPACE)
    index.settle()


def test_scores_are_those_of_the_models_definition(index: Index, rng: np.random.Generator) -> None:
    points = [point(n, rng) for n in range(30)]
    index.put(SPACE, points)
    query, tokens = unit(rng, D), unit(rng, 4, D)
    terms = np.arange(0, 40, 3, dtype=np.uint32), rng.uniform(0.1, 2, 14).astype(np.float32)
    found = index.nearest(SPACE, dense(query), Where(), 30, ("chunk_id",))
    assert len(found) == 30
    for one in found:
        of = next(p for p in points if p.id == one.id)
        assert one.score == pytest.approx(float(query @ of.dense), abs=1e-6)
        assert one.payload == {"chunk_id": of.payload["chunk_id"]}
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    asked = dict(zip(terms[0].tolist(), terms[1].tolist(), strict=True))
    sparse = index.scores(SPACE, QueryVector(Leg.SPARSE, terms=terms), [p.id for p in points])
    maxsim = index.scores(SPACE, QueryVector(Leg.COLBERT, numbers=tokens), [p.id for p in points])
    for of in points:
        assert of.sparse is not None
        assert of.colbert is not None
        shared = sum(w * asked.get(t, 0) for t, w in zip(of.sparse[0].tolist(), of.sparse[1].tolist(), strict=True))
        assert sparse.get(of.id, 0) == pytest.approx(shared, abs=1e-5)
        exact = float((tokens @ of.colbert.astype(np.float32).T).max(axis=1).mean())
        assert maxsim[of.id] == pytest.approx(exact, abs=1e-3)
    assert len(sparse) < 30 or all(score > 0 for score in sparse.values())


def test_the_best_by_sparse_have_a_term_in_common(index: Index, rng: np.random.Generator) -> None:
    index.put(SPACE, [point(n, rng) for n in range(30)])
    terms = np.array([3, 500], np.uint32), np.array([1, 9], np.float32)
    found = index.nearest(SPACE, QueryVector(Leg.SPARSE, terms=terms), Where(), 30, ("chunk_id",))
    scores = index.scores(SPACE, QueryVector(Leg.SPARSE, terms=terms), [name(n) for n in range(30)])
    assert {one.id: pytest.approx(one.score) for one in found} == scores
    assert 0 < len(found) < 30


def test_a_point_may_lack_colbert(index: Index, rng: np.random.Generator) -> None:
    full = point(1, rng)
    index.put(SPACE, [full, Point(name(2), full.payload, full.dense, full.sparse)])
    scores = index.scores(SPACE, QueryVector(Leg.COLBERT, numbers=unit(rng, 2, D)), [name(1), name(2)])
    assert set(scores) == {name(1)}


def test_a_point_written_again_is_the_last_one(index: Index, rng: np.random.Generator) -> None:
    index.put(SPACE, [point(1, rng), point(2, rng)])
    index.put(SPACE, [point(1, rng, object_id="b")])
    assert index.count(SPACE, Where()) == 2
    assert index.payloads(SPACE, [name(1), name(9)])[name(1)]["object_id"] == "b"


def test_a_search_tells_of_a_point_what_was_written_last(index: Index, rng: np.random.Generator) -> None:
    def told() -> dict[str, Any]:
        found = index.nearest(SPACE, dense(unit(rng, D)), Where(), 5, IDENTITY)
        return {one.id: dict(one.payload) for one in found}

    index.put(SPACE, [point(1, rng), point(2, rng)])
    for _ in range(2):
        assert told() == {name(n): {"chunk_id": f"c{n}", "object_id": "a", "generation": 1} for n in (1, 2)}
    index.put(SPACE, [point(1, rng, parts_only=True), point(3, rng)])
    assert {one: found.get("parts_only") for one, found in told().items()} == {
        name(1): True,
        name(2): None,
        name(3): None,
    }
    index.delete(SPACE, Where(ids=(name(2),)))
    assert set(told()) == {name(1), name(3)}
    index.drop(SPACE)
    assert told() == {}


def test_conditions_let_through_what_they_say(index: Index, rng: np.random.Generator) -> None:
    paths = [("Book", "One"), ("Book", "Two"), ("Book",), ()]
    for n in range(12):
        heading = paths[n % 4]
        prefixes = [heading_key(heading[: i + 1]) for i in range(len(heading))]
        pages = {"page_start": n // 3 + 1, "page_end": n // 3 + 2} if n % 3 else {}
        language = {"language": "en" if n % 2 else "de"} if n % 5 else {}
        one = point(n, rng, object_id="ab"[n % 2], generation=1 + n % 3, headings=prefixes, **pages, **language)
        index.put(SPACE, [one])
    everything = set(map(name, range(12)))
    for where, expected in [
        (Where(), range(12)),
        (Where(objects=("a", "unknown")), range(0, 12, 2)),
        (Where(objects=()), ()),
        (Where(not_objects=("a",)), range(1, 12, 2)),
        (Where(objects=("a",), generation=1), (0, 6)),
        (Where(objects=("a",), not_generation=1), (2, 4, 8, 10)),
        (Where(languages=("en",)), (1, 3, 7, 9, 11)),
        (Where(languages=("en", "de")), (1, 2, 3, 4, 6, 7, 8, 9, 11)),
        (Where(pages=(2, 2)), (1, 2, 4, 5)),
        (Where(pages=(None, 2)), (1, 2, 4, 5)),
        (Where(pages=(4, None)), (7, 8, 10, 11)),
        (Where(heading=("Book",)), (0, 1, 2, 4, 5, 6, 8, 9, 10)),
        (Where(heading=("Book", "One")), (0, 4, 8)),
        (Where(heading=("One",)), ()),
        (Where(ids=(name(3), name(99))), (3,)),
        (Where(live=True), ()),
    ]:
        assert ids_of(index, where) == set(map(name, expected)), where
        assert index.count(SPACE, where) == len(set(expected)), where
        found = index.nearest(SPACE, dense(unit(rng, D)), where, 50, ())
        assert {one.id for one in found} == set(map(name, expected)), where
    assert ids_of(index, Where()) == everything


def test_a_generation_becomes_live_and_others_are_deleted(index: Index, rng: np.random.Generator) -> None:
    index.put(SPACE, [point(n, rng, generation=1 + n // 3) for n in range(6)])
    index.put(SPACE, [point(n, rng, object_id="b") for n in range(6, 9)])
    index.set_live(SPACE, "a", 2)
    assert ids_of(index, Where(live=True)) == set(map(name, (3, 4, 5)))
    index.delete(SPACE, Where(objects=("a",), not_generation=2))
    assert ids_of(index, Where()) == set(map(name, range(3, 9)))
    assert index.payloads(SPACE, [name(3)])[name(3)]["chunk_id"] == "c3"


def test_spaces_do_not_see_one_another_and_are_dropped(index: Index, rng: np.random.Generator) -> None:
    other = Space("default", "docs", "cd" * 8, dense=4, sparse=False, colbert=0)
    tenant = Space("tenant", "docs", "ab" * 8, dense=D, sparse=True, colbert=D)
    index.put(SPACE, [point(1, rng)])
    index.put(other, [Point(name(2), {"object_id": "a", "generation": 1, "live": 0}, dense=unit(rng, 4))])
    index.put(tenant, [point(3, rng)])
    index.put(MARKS, [Point(name(4), {"object_id": "a", "generation": 7, "live": 0})])
    assert set(index.spaces()) == {SPACE, other, tenant, MARKS}
    assert set(index.spaces("default")) == {SPACE, other, MARKS}
    assert index.spaces("tenant", "docs") == (tenant,)
    nothing = QueryVector(Leg.SPARSE, terms=(np.zeros(0, np.uint32), np.zeros(0, np.float32)))
    assert index.nearest(other, nothing, Where(), 5, ()) == []
    assert [one.id for one in index.nearest(other, dense(unit(rng, 4)), Where(), 5, ())] == [name(2)]
    assert [found for _, found in index.scroll(MARKS, Where(), ("object_id", "generation"))] == [
        {"object_id": "a", "generation": 7}
    ]
    index.drop(other)
    assert set(index.spaces()) == {SPACE, tenant, MARKS}
    assert index.count(other, Where()) == 0


def test_everything_is_scrolled_once(index: Index, rng: np.random.Generator) -> None:
    index.put(MARKS, [Point(name(n), {"object_id": f"o{n}", "generation": n, "live": 0}) for n in range(2500)])
    found = [payload["object_id"] for _, payload in index.scroll(MARKS, Where(), ("object_id",))]
    assert len(found) == 2500
    assert len(set(found)) == 2500


def test_a_turn_lets_its_holder_and_others_read_and_write(index: Index, rng: np.random.Generator) -> None:
    with index.turn():
        with ThreadPoolExecutor(1) as other:
            other.submit(index.put, SPACE, [point(1, rng), point(2, rng)]).result(30)
        assert index.count(SPACE, Where()) == 2
    with ThreadPoolExecutor(4) as pool:

        def count() -> int:
            with index.turn():
                return index.count(SPACE, Where())

        assert {found.result(30) for found in [pool.submit(count) for _ in range(16)]} == {2}

"""The embedded index: order, single opener, and what a kill leaves."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.unit.retrieval.world import unit
from trivet.errors import IndexBusy, IndexUnavailable
from trivet.index import Point, QueryVector, Space, Where
from trivet.index.edge import EdgeIndex
from trivet.index.fields import point_id
from trivet.retrieval import Leg

D = 64
SPACE = Space("default", "docs", "ab" * 8, dense=D, sparse=True, colbert=8)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EdgeIndex]:
    """One in which a few hundred points are enough for a graph."""
    monkeypatch.setattr("trivet.index.edge_words.SCANNED_NUMBERS", D * 100)
    monkeypatch.setattr("trivet.index.edge_order.SCANNED_NUMBERS", 1024 * 100)
    made = EdgeIndex(folder, ef=256)
    yield made
    made.close()


def points(rng: np.random.Generator, first: int, last: int, *, object_id: str = "") -> list[Point]:
    found = []
    for n in range(first, last):
        name = object_id or f"o{n % 7}"
        payload = {"chunk_id": f"c{n}", "object_id": name, "generation": 1, "live": 1}
        terms = np.array([n % 5, 5 + n % 3], np.uint32), np.array([0.5, 0.25], np.float32)
        found.append(Point(point_id(name, 1, f"c{n}"), payload, unit(rng, D), terms, unit(rng, 2, 8)))
    return found


def everything(index: EdgeIndex) -> dict[str, dict[str, object]]:
    return dict(index.scroll(SPACE, Where(), ("chunk_id", "object_id", "live")))


def test_a_graph_finds_what_a_scan_finds(index: EdgeIndex, rng: np.random.Generator) -> None:
    written = points(rng, 0, 1500)
    index.put(SPACE, written)
    matrix = np.stack([point.dense for point in written if point.dense is not None])
    before = everything(index)
    assert index.optimize()
    assert not index.optimize()
    assert everything(index) == before
    found = 0
    for _ in range(20):
        query = unit(rng, D)
        best = {written[i].id for i in np.argsort(-(matrix @ query))[:10]}
        found += len(best & {one.id for one in index.nearest(SPACE, QueryVector(Leg.DENSE, query), Where(), 10, ())})
    assert found >= 0.99 * 200


def test_what_is_written_and_searched_while_a_shard_is_put_in_order_is_not_lost(
    index: EdgeIndex, rng: np.random.Generator
) -> None:
    index.put(SPACE, points(rng, 0, 1500))
    ordering = threading.Thread(target=index.optimize)
    ordering.start()
    n, asked = 1500, 0
    while ordering.is_alive():
        index.put(SPACE, points(rng, n, n + 3, object_id=f"new{n}"))
        index.delete(SPACE, Where(objects=(f"new{n - 3}",)))
        assert len(index.nearest(SPACE, QueryVector(Leg.DENSE, unit(rng, D)), Where(), 10, ())) == 10
        n, asked = n + 3, asked + 1
    ordering.join()
    assert asked > 3
    expected = {f"c{i}" for i in [*range(1500), *range(n - 3, n)]}
    assert {payload["chunk_id"] for payload in everything(index).values()} == expected
    assert index.count(SPACE, Where(live=True)) == len(expected)


def test_closed_while_a_shard_is_put_in_order_nothing_takes_its_place(
    index: EdgeIndex, folder: Path, rng: np.random.Generator
) -> None:
    index.put(SPACE, points(rng, 0, 1500))
    ended: list[str] = []

    def order() -> None:
        with pytest.raises(IndexUnavailable) as error:
            index.optimize()
        ended.append(error.value.message)

    ordering = threading.Thread(target=order)
    ordering.start()
    while index._order.process is None:
        assert ordering.is_alive()
    index.close()
    other = EdgeIndex(folder, ef=64)
    other.put(SPACE, points(rng, 1500, 1503))
    ordering.join()
    assert ended
    assert other.count(SPACE, Where()) == 1503
    other.close()
    other = EdgeIndex(folder, ef=64)
    assert other.count(SPACE, Where()) == 1503
    other.close()


def test_what_was_settled_is_there_when_it_is_opened_again(folder: Path, rng: np.random.Generator) -> None:
    index = EdgeIndex(folder, ef=64)
    index.put(SPACE, points(rng, 0, 30))
    index.settle()
    before = everything(index)
    index.close()
    index = EdgeIndex(folder, ef=64)
    assert index.spaces() == (SPACE,)
    assert everything(index) == before
    index.close()


def test_only_one_may_have_it_open(folder: Path) -> None:
    index = EdgeIndex(folder, ef=64)
    with pytest.raises(IndexBusy, match=r"is open in another process \(pid \d+\)\. Ask that process"):
        EdgeIndex(folder, ef=64)
    index.close()
    EdgeIndex(folder, ef=64).close()


def test_a_shard_that_was_about_to_be_replaced_comes_back(folder: Path, rng: np.random.Generator) -> None:
    index = EdgeIndex(folder, ef=64)
    index.put(SPACE, points(rng, 0, 30))
    index.settle()
    before = everything(index)
    index.close()
    path = folder / SPACE.namespace / SPACE.collection / SPACE.name
    shutil.copytree(path, path.with_name(f".copy-{path.name}"))
    path.rename(path.with_name(f".old-{path.name}"))
    index = EdgeIndex(folder, ef=64)
    assert everything(index) == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    index.close()

"""Files of real shards are garbled: what they held comes back from S3, and no search takes a part of it for all."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.indexed import Indexed, indexed
from tests.unit.retrieval.world import World, model, random_legs, random_query
from trivet.errors import IndexDamaged, StoreUnavailable
from trivet.retrieval import SearchRequest

REQUEST = SearchRequest(top_k=100, candidates=200, rerank_candidates=100)
CHUNKS = {("a", 6), ("b", 4)}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def world(rng: np.random.Generator) -> World:
    made = World()
    for name, rows in CHUNKS:
        made.commit(name, random_legs(rng, rows))
    return made


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of such a world, closed; to be copied."""
    folder = tmp_path_factory.mktemp("filled") / "index"
    world, rng = World(), np.random.default_rng(5)
    for name, rows in CHUNKS:
        world.commit(name, random_legs(rng, rows))
    with indexed(world, folder) as held:
        held.sync.fill()
        held.marks.set_filled(True)
    return folder


@pytest.fixture
def folder(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "index"))


def found(held: Indexed, rng: np.random.Generator) -> set[str]:
    hits = held.retriever.search("default", "docs", random_query(rng), REQUEST).hits
    return {f"{hit.object_id} {hit.ordinal}" for hit in hits}


EVERYTHING = {f"{name} {n}" for name, rows in CHUNKS for n in range(rows)}


def garble(folder: Path, space: str, file: str, how: str) -> None:
    """All files of the name, in the shards of all spaces whose name matches."""
    hit = [path for path in folder.glob(f"*/*/{space}/**/{file}") if path.is_file()]
    assert hit, (space, file)
    for path in hit:
        data = path.read_bytes()
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "ff": b"\xff" * len(data)}[how])


@pytest.mark.parametrize("space", ["*-d*", "marks"], ids=["chunks", "marks"])
@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("edge_config.json", "half"),
        pytest.param("edge_config.json", "empty", marks=pytest.mark.long),
        pytest.param("segment.json", "ff", marks=pytest.mark.long),
        pytest.param("mutable_id_tracker.mappings", "ff", marks=pytest.mark.long),
        ("tracker.dat", "ff"),
        pytest.param("page_0.dat", "ff", marks=pytest.mark.long),
        pytest.param("*", "gone", marks=pytest.mark.long),
        ("*", "half"),
    ],
)
def test_what_was_garbled_while_nobody_had_it_open_is_filled_anew(
    world: World, folder: Path, rng: np.random.Generator, space: str, file: str, how: str
) -> None:
    garble(folder, space, file, how)
    with indexed(world, folder) as held:
        dropped = held.sync.check()
        if dropped:
            assert not held.marks.filled
            held.sync.fill()
        assert set(dropped) <= {"default/docs", "_/_"}
        assert found(held, rng) == EVERYTHING
        assert held.sync.verify(deep=True).troubles == ()
        assert held.sync.check() == ()
    with indexed(world, folder) as held:
        assert held.sync.check() == ()
        assert found(held, rng) == EVERYTHING


def test_a_damaged_shard_is_one_sentence_until_it_is_dropped_and_says_before_that_it_lacks_something(
    world: World, folder: Path, rng: np.random.Generator
) -> None:
    garble(folder, "*-d*", "edge_config.json", "half")
    with indexed(world, folder) as held:
        assert held.marks.filled
        for _ in range(2):
            with pytest.raises(IndexDamaged, match=r"^The index of default/docs is damaged: .*It heals by itself"):
                found(held, rng)
        assert held.sync.damaged
        assert held.sync.heal() == ("default/docs",)
        assert not held.marks.filled
        assert not held.sync.damaged  # type: ignore[unreachable]  # it was damaged before it was healed
        assert held.sync.fill().indexed == 2
        assert found(held, rng) == EVERYTHING


def test_a_healthy_index_is_left_alone_and_what_one_kill_leaves_is_made_good_alone(
    world: World, folder: Path, rng: np.random.Generator
) -> None:
    with indexed(world, folder) as held:
        assert held.sync.check() == ()
        assert held.marks.filled
        held.marks.forget("default", "docs", "a")
        assert held.sync.check() == ()
        assert held.marks.filled
        assert found(held, rng) == EVERYTHING


def test_the_space_of_a_model_that_no_object_uses_any_more_goes_from_disk(
    folder: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    world = World()
    for name in ("a", "b"):
        world.commit(name, random_legs(rng, 3), identity=model("f" * 16, "old"))
    with indexed(world, tmp_path / "other") as held:
        held.sync.fill()
        (old,) = (space for space in held.index.spaces() if space.encoder_key)
        place = tmp_path / "other" / old.namespace / old.collection / old.name
        world.commit("a", random_legs(rng, 3), generation=2)
        held.writer.bring(world.layout, "a")
        assert place.is_dir()
        world.commit("b", random_legs(rng, 3), generation=2)
        held.writer.bring(world.layout, "b")
        assert not place.exists()
        assert len(held.index.spaces()) == 2
        assert found(held, rng) == {f"{name} {n}" for name in "ab" for n in range(3)}


def test_of_a_deleted_collection_the_marks_alone_stay_and_of_a_purged_one_nothing(
    world: World, folder: Path, rng: np.random.Generator
) -> None:
    with indexed(world, folder) as held:
        for name, _ in CHUNKS:
            world.commit(name, random_legs(rng, 0), generation=2, tombstone=True)
            held.writer.bring(world.layout, name)
        assert [space.name for space in held.index.spaces("default", "docs")] == ["marks"]
        for entry in list(world.store.list(world.layout.root)):
            world.store.delete(entry.key)
        assert held.sync.check() == ()
        assert held.index.spaces("default", "docs") == ()
        assert not (folder / "default" / "docs" / "marks").exists()
        assert held.marks.filled


def test_a_healthy_index_needs_no_s3_to_be_looked_at(
    world: World, folder: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("S3 is away.")

    with indexed(world, folder) as held:
        for name in ("list", "get", "prefixes"):
            monkeypatch.setattr(world.store, name, away, raising=False)
        assert held.sync.check() == ()
        assert held.marks.filled
        assert found(held, rng) == EVERYTHING


def test_made_anew_without_a_process_a_damaged_index_is_whole(
    world: World, folder: Path, rng: np.random.Generator
) -> None:
    garble(folder, "*", "segment.json", "half")
    with indexed(world, folder) as held:
        assert held.sync.remade().indexed == 2
        assert found(held, rng) == EVERYTHING
        assert held.sync.verify(deep=True).troubles == ()

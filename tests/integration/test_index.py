"""The role `search` on real Valkey and S3: killed anywhere, told twice and out of order, the index ends level."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from tests.support.fleet import Fleet
from tests.unit.retrieval.world import D, World, random_legs, random_query
from trivet.cli import main
from trivet.cli.checks import _index
from trivet.cli.index import describe, judged
from trivet.clock import SystemClock
from trivet.delivery.groups import EventGroup
from trivet.errors import IndexBusy, IndexUnavailable, InvalidRequest
from trivet.index.edge import EdgeIndex
from trivet.index.indexer import FAULTS
from trivet.index.qdrant import QdrantIndex
from trivet.index.serving import opened, search_forever
from trivet.index.sync import VerifyReport
from trivet.index.wire import Caller, socket_address
from trivet.index.writing import Writer
from trivet.ledger.redis_reading import connect
from trivet.retrieval import QueryLegs, SearchRequest, open_retriever
from trivet.retrieval.exact import ExactRetriever
from trivet.retrieval.remote import caller, reachable, standing
from trivet.retrieval.remote import wait_level as wait_level_of
from trivet.settings import Settings
from trivet.stores import ObjectStore

REQUEST = SearchRequest(top_k=50, candidates=200, rerank_candidates=60)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


@pytest.fixture
def world(settings: Settings, store: ObjectStore) -> World:
    return World(store=store, prefix=settings.s3_prefix)


@pytest.fixture
def tell(settings: Settings) -> Iterator[Any]:
    """Puts an event of an object on the stream, as a commit or a delete does."""
    client = connect(settings)

    def put(object_id: str, kind: str = "completed", generation: int = 1) -> None:
        data = {"namespace": "default", "collection": "docs", "object_id": object_id, "generation": generation}
        event = {
            "id": f"{object_id}/{generation}/{kind}",
            "source": "trivet/default/docs",
            "type": f"trivet.ingest.{kind}",
            "subject": object_id,
            "time": "2026-01-01T00:00:00Z",
            "data": data,
        }
        client.xadd(f"{settings.redis_prefix}events", {"event": json.dumps(event)})

    yield put
    client.close()


@contextmanager
def serving(settings: Settings) -> Iterator[None]:
    """The role in a thread of this process."""
    over = threading.Event()
    thread = threading.Thread(target=search_forever, args=(settings, over.is_set))
    thread.start()
    try:
        wait_level(settings)
        yield
    finally:
        over.set()
        thread.join(60)
        assert not thread.is_alive()


def wait_level(settings: Settings, between: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + 90
    while True:
        between()
        try:
            found = standing(settings)
            if found.filled and found.behind == 0:
                return
        except IndexUnavailable:
            pass
        assert time.monotonic() < deadline, "the index is not level"
        time.sleep(0.02)


def verified(settings: Settings) -> VerifyReport:
    with opened(settings) as parts:
        return parts.sync.verify(deep=True)


@pytest.mark.long
def test_killed_at_every_step_and_started_again_the_index_equals_the_manifests(
    settings: Settings, world: World, tell: Any, rng: np.random.Generator, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        world.commit(name, random_legs(rng, 20), parts=2)
    faults = ",".join(f"{name}:kill:{n % 2 + 1}:{tmp_path / f'{name}.struck'}" for n, name in enumerate(FAULTS))
    fleet, step = Fleet(settings), 0
    struck, deadline = set[str](), time.monotonic() + 240

    def keep_running() -> None:
        if fleet.processes["search"].poll() is not None:
            fleet.processes.pop("search")
            fleet.start("search", "--roles", "search", faults=faults)

    try:
        fleet.start("search", "--roles", "search", faults=faults)
        while struck != set(FAULTS):
            # Replaced and deleted while it is indexed; told of twice, and late.
            name, gone = "abc"[step % 3], step % 7 == 6
            world.commit(name, random_legs(rng, 0 if gone else 20), generation=step + 2, parts=2, tombstone=gone)
            for late in (name, name, "abc"[(step + 1) % 3]):
                tell(late, "deleted" if gone else "completed", generation=step + 2)
            time.sleep(0.15)
            keep_running()
            struck, step = {name for name in FAULTS if (tmp_path / f"{name}.struck").exists()}, step + 1
            assert time.monotonic() < deadline, f"never struck: {set(FAULTS) - struck}"
        wait_level(settings, keep_running)
    finally:
        fleet.close()
    assert verified(settings).troubles == ()


def test_events_doubled_and_in_any_order_leave_the_index_equal_to_the_manifests(
    settings: Settings, world: World, tell: Any, rng: np.random.Generator
) -> None:
    with serving(settings):
        told = []
        for generation in range(1, 5):
            for n in range(6):
                gone = (n + generation) % 4 == 0
                legs = random_legs(rng, 0 if gone else 8)
                world.commit(f"o{n}", legs, generation=generation, tombstone=gone)
                told += 2 * [(f"o{n}", "deleted" if gone else "completed", generation)]
        random.Random(4).shuffle(told)
        for event in told:
            tell(*event)
        tell("never-was")
        wait_level(settings)
        query = random_query(rng)
        found = open_retriever(settings, "index").search("default", "docs", query, REQUEST)
        expected = world.memory.search("default", "docs", query, REQUEST)
        assert [hit.chunk_id for hit in found.hits] == [hit.chunk_id for hit in expected.hits]
        assert caller(settings).ask(dict, "verify", {"deep": True})["differences"] == 0
    assert verified(settings).troubles == ()


def test_what_was_committed_before_there_was_an_index_is_brought_in_and_a_new_group_begins_with_it(
    settings: Settings, world: World, tell: Any, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 8))
    with serving(settings):
        assert caller(settings).ask(dict, "held")["collections"] == [
            {"namespace": "default", "collection": "docs", "objects": 1, "chunks": 8}
        ]
    # Redis is lost, and with it what happened meanwhile.
    world.commit("a", random_legs(rng, 3), generation=2)
    world.commit("b", random_legs(rng, 3))
    group = EventGroup(settings, settings.index_group, "test")
    group.drop()
    group.close()
    with serving(settings):
        assert standing(settings).objects == 2
    assert verified(settings).troubles == ()


def test_a_search_sees_what_was_committed_when_it_began(
    settings: Settings, world: World, tell: Any, rng: np.random.Generator
) -> None:
    patient = settings.model_copy(update={"index_fresh_seconds": 30})
    with serving(patient):
        retriever = open_retriever(patient)
        for n in range(5):
            world.commit(f"o{n}", random_legs(rng, 2))
            tell(f"o{n}")
            assert retriever.search("default", "docs", random_query(rng), REQUEST).stats.objects == n + 1


def test_the_index_answers_as_exact_search_does_with_all_that_a_request_may_ask_for(
    settings: Settings, world: World, rng: np.random.Generator
) -> None:
    for n in range(4):
        world.commit(f"o{n}", random_legs(rng, 12), metadata={"year": 2000 + n, "tags": ["x"] * n}, parts=2)
    asked: list[dict[str, Any]] = [
        {},
        {"neighbours": 2, "section_tokens": 50, "return_vectors": True},
        {"filters": {"metadata": [{"key": "year", "op": "gte", "value": 2002}], "heading": ["Book"]}},
        {"group_size": 2, "offset": 1, "top_k": 2},
        {"rerank": False, "fusion": {"method": "rrf", "weights": {"dense": 1, "sparse": 1}}},
        {"min_leg_scores": {"dense": 0.1}},
    ]
    exact = ExactRetriever.open(settings)
    with serving(settings):
        for options in asked:
            query = random_query(rng)
            request = SearchRequest.model_validate({"top_k": 50, "rerank_candidates": 60, **options})
            found = open_retriever(settings).search("default", "docs", query, request)
            expected = exact.search("default", "docs", query, request)
            assert [hit.chunk_id for hit in found.hits] == [hit.chunk_id for hit in expected.hits], options
            for hit, want in zip(found.hits, expected.hits, strict=True):
                assert hit.score == pytest.approx(want.score, abs=2e-2)
                assert (hit.before, hit.after, hit.section) == (want.before, want.after, want.section)
                assert (hit.text, hit.metadata, hit.committed_at) == (want.text, want.metadata, want.committed_at)
                assert (hit.vectors is None) == (want.vectors is None)
            assert found.ranked == expected.ranked
            for name in ("objects", "objects_searched", "rows", "rows_filtered", "rows_reranked", "notes"):
                assert getattr(found.stats, name) == getattr(expected.stats, name), (name, options)


def test_errors_come_over_the_socket_as_what_they_were(
    settings: Settings, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 3))
    query = random_query(rng)
    wrong = QueryLegs(query.encoder_key, query.dense[:4], query.sparse_ids, query.sparse_weights, query.colbert)
    with serving(settings):
        retriever = open_retriever(settings, "index")
        with pytest.raises(InvalidRequest, match=f"4 dimensions, the stored ones {D}"):
            retriever.search("default", "docs", wrong, REQUEST)
        learned = REQUEST.model_copy(update={"fusion": REQUEST.fusion.model_copy(update={"method": "learned"})})
        with pytest.raises(InvalidRequest, match="learned"):
            retriever.search("default", "docs", query, learned)
        for what, body in (("nowhere", {}), ("search", {"request": 7}), ("search", {"query": {"encoder_key": "x"}})):
            with pytest.raises(InvalidRequest):
                caller(settings).ask(dict, what, body)


def test_without_a_process_auto_is_exact_and_index_says_what_to_do(
    settings: Settings, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 3))
    query = random_query(rng)
    found = open_retriever(settings).search("default", "docs", query, REQUEST)
    assert (found.stats.parts, found.stats.notes) == (1, ())
    with pytest.raises(IndexUnavailable, match="No search process answers at"):
        open_retriever(settings, "index").search("default", "docs", query, REQUEST)
    with pytest.raises(InvalidRequest, match="nobody"):
        open_retriever(settings, "nobody")


def test_with_a_process_auto_is_the_index_and_a_second_one_is_refused(
    settings: Settings, world: World, rng: np.random.Generator
) -> None:
    world.commit("a", random_legs(rng, 3))
    query = random_query(rng)
    auto = open_retriever(settings)
    with serving(settings):
        assert auto.search("default", "docs", query, REQUEST).stats.parts == 0
        exact = open_retriever(settings.model_copy(update={"retriever": "exact"}))
        assert exact.search("default", "docs", query, REQUEST).stats.parts == 1
        with pytest.raises(IndexBusy, match=r"is open in another process \(pid \d+\)"):
            search_forever(settings, lambda: True)
    # What a process that was killed has left at the socket's place is no obstacle, and answers nobody.
    settings.search_socket.touch()
    found = auto.search("default", "docs", query, REQUEST)
    assert found.stats.parts == 1
    assert "The Parquet files were read instead." in found.stats.notes[0]
    settings.search_socket.touch()
    off = settings.model_copy(update={"index_url": "off"})
    assert open_retriever(off).search("default", "docs", query, REQUEST).stats.notes == ()
    with pytest.raises(InvalidRequest, match="TRIVET_INDEX_URL is off"), opened(off):
        pass
    with pytest.raises(IndexUnavailable, match="TRIVET_INDEX_URL is off"):
        standing(off)
    with serving(settings):
        assert auto.search("default", "docs", query, REQUEST).stats.parts == 0


def test_of_an_index_on_a_server_too_one_process_of_a_state_folder_answers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "trivet.index.serving.open_index", lambda _: QdrantIndex(QdrantClient(":memory:"), prefix="trivet")
    )
    with serving(settings):
        with pytest.raises(IndexBusy, match=r"is open in another process \(pid \d+\)"):
            search_forever(settings, lambda: True)
        assert reachable(settings)


def test_who_added_something_can_wait_until_searches_find_it_however_long_that_takes(
    settings: Settings, world: World, tell: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = settings.model_copy(update={"index_fresh_seconds": 0})
    clock = SystemClock()
    wait_level_of(hurried, 1, clock)  # Nobody answers: searches are exact.
    with serving(hurried):
        bring = Writer.bring

        def slow(*arguments: Any, **more: Any) -> Any:
            time.sleep(0.2)
            return bring(*arguments, **more)

        monkeypatch.setattr(Writer, "bring", slow)
        for n in range(3):
            world.commit(f"o{n}", random_legs(rng, 2))
            tell(f"o{n}")
        query = random_query(rng)
        missing = open_retriever(hurried.model_copy(update={"retriever": "index"}))
        assert "still to take in" in missing.search("default", "docs", query, REQUEST).stats.notes[-1]
        # What is small enough is read rather than missed.
        assert open_retriever(hurried).search("default", "docs", query, REQUEST).stats.objects == 3
        with pytest.raises(TimeoutError, match="has not taken in the last"):
            wait_level_of(hurried, 0, clock)
        wait_level_of(hurried, 60, clock)
        found = open_retriever(hurried).search("default", "docs", query, REQUEST)
        assert (found.stats.objects, found.stats.parts, found.stats.notes) == (3, 0, ())


def test_clients_that_die_or_send_nonsense_leave_no_trace_and_harm_nobody(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(settings):
        for sent in (
            b"POST /search HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{",
            b"POST /verify HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            b"POST /verify HTTP/1.1\r\nContent-Length: -2\r\n\r\n{}",
            b"POST /verify HTTP/1.1\r\nContent-Length: many\r\n\r\n{}",
            b"POST /verify HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n{}",
            b"\x00\xff\r\n\r\n",
        ):
            for _ in range(2):
                client = socket.socket(socket.AF_UNIX)
                with socket_address(settings.search_socket) as address:
                    client.connect(address)
                client.sendall(sent)
                client.close()
        assert reachable(settings)
        refused = socket.socket(socket.AF_UNIX)
        refused.settimeout(30)
        with socket_address(settings.search_socket) as address:
            refused.connect(address)
        refused.sendall(b"POST /verify HTTP/1.1\r\nContent-Length: -2\r\n\r\n{}")
        assert b"does not say how long its body is" in refused.makefile("rb").read()
        refused.close()
    assert "Traceback" not in capfd.readouterr().err


def test_a_state_folder_with_a_long_path_has_a_socket_too(settings: Settings, tmp_path: Path) -> None:
    deep = settings.model_copy(update={"state_dir": tmp_path / ("x" * 100) / "state"})
    with serving(deep):
        assert reachable(deep)
        assert isinstance(Caller(deep.search_socket, timeout=5).ask(dict, "status"), dict)


def test_a_shard_that_was_half_made_is_made_anew(settings: Settings, world: World, rng: np.random.Generator) -> None:
    world.commit("a", random_legs(rng, 3))
    (settings.index_folder / "default" / "docs" / ".new-marks").mkdir(parents=True)
    (settings.index_folder / "default" / "docs" / ".gone-marks").mkdir()
    index = EdgeIndex.open(settings)
    assert index.spaces() == ()
    index.close()
    with serving(settings):
        assert caller(settings).ask(dict, "verify", {})["objects"] == 1
    assert verified(settings).troubles == ()


def test_the_command_line_verifies_rebuilds_and_shows_the_index_with_and_without_a_process(
    settings: Settings,
    world: World,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from trivet.supervisor.workers import environment

    for name, value in environment(settings, {}).items():
        monkeypatch.setenv(name, value)
    world.commit("a", random_legs(rng, 3))

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        code = main(["index", *words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    assert run("status")[0] == 3
    code, report = run("verify")
    assert (code, report["differences"]) == (1, 1)
    assert report["troubles"][0]["reason"] == "generation 1 is visible, the index has none"
    assert run("rebuild") == (
        0,
        {"indexed": 1, "removed": 0, "known": 0, "damaged": 0, "stopped": False, "troubles": []},
    )
    assert run("verify", "docs", "--deep")[1]["chunks"] == 3
    with serving(settings):
        code, told = run("status")
        assert (code, told["standing"]["behind"], told["collections"][0]["chunks"]) == (0, 0, 3)
        assert run("rebuild", "docs")[1]["indexed"] == 1
        assert run("verify", "docs") == (0, {"objects": 1, "chunks": 3, "differences": 0, "troubles": []})
        assert main(["index", "status"]) == 0
        assert "The index is 0 events behind." in capsys.readouterr().err
        assert main(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["index"]["behind"] == 0


def test_a_shard_that_is_damaged_heals_while_searches_read_the_parts(
    settings: Settings, world: World, rng: np.random.Generator
) -> None:
    for name in ("a", "b"):
        world.commit(name, random_legs(rng, 5))
    query = random_query(rng)
    with serving(settings):
        pass
    for file in settings.index_folder.glob("*/*/*-d*/edge_config.json"):
        file.write_bytes(file.read_bytes()[:9])
    expected = ExactRetriever.open(settings).search("default", "docs", query, REQUEST)
    over = threading.Event()
    thread = threading.Thread(target=search_forever, args=(settings, over.is_set))
    thread.start()
    try:
        auto, answered = open_retriever(settings), 0
        while answered < 3:
            assert thread.is_alive()
            found = auto.search("default", "docs", query, REQUEST)
            assert [hit.chunk_id for hit in found.hits] == [hit.chunk_id for hit in expected.hits]
            answered += found.stats.parts == 0
        told = standing(settings)
        assert (told.filled, list(told.healed)) == (True, ["default/docs"])
        assert judged(settings) == (True, describe(asdict(told)))
        assert [(one.check, one.result, one.detail) for one in _index(settings)] == [
            ("index", "ok", describe(asdict(told)))
        ]
        assert "It was damaged (default/docs) and is filled anew from S3 by itself." in describe(asdict(told))
    finally:
        over.set()
        thread.join(60)
    assert verified(settings).troubles == ()


def test_events_that_were_removed_from_the_stream_are_not_waited_for(
    settings: Settings, world: World, tell: Any, rng: np.random.Generator
) -> None:
    client = connect(settings)
    stream = f"{settings.redis_prefix}events"
    group = EventGroup(settings, "watching", "test")
    for name in "abcdef":
        tell(name)
    group.create("oldest")

    def entries() -> list[Any]:
        return [entry for entry, _ in client.xrange(stream) or []]

    ids = entries()

    def behind() -> int | None:
        info = group.info()
        assert info is not None
        return info.lag

    assert behind() == 6
    client.xdel(stream, ids[3])
    assert behind() == 5
    read = [entry for entry, _ in group.read(2)]
    assert (read, behind()) == (ids[:2], 3)
    client.xtrim(stream, minid=ids[5], approximate=False)
    assert behind() == 1
    tell("g")
    assert behind() == 2
    client.xdel(stream, *entries())
    assert behind() == 0
    tell("h")
    assert behind() == 1
    group.read()
    assert behind() == 0
    client.close()
    group.drop()
    group.close()

"""Deletes and purges on real servers: what is hidden, what is held, and what is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.prose import prose
from tests.support.fleet import fleet, terminal_events, wait_for_all
from tests.support.web import Server, answer
from tests.unit.stages.desk import Desk, desk, encoder
from tests.unit.stages.test_delete import PLACES
from trivet import faults
from trivet.client import Trivet
from trivet.commit import read_pointer
from trivet.deleting import purge
from trivet.deleting.deletes import Deletes, delete_object
from trivet.deleting.purge import PurgeReceipt, receipt, request_purge, run_purges
from trivet.errors import InvalidRequest, NotConfirmed, TransientError, UnknownCollection
from trivet.ledger import open_ledger
from trivet.ledger.redis import RedisLedger
from trivet.parts.reader import collection_files, current_manifests, read_current, read_parts
from trivet.settings import Settings
from trivet.stages import commit
from trivet.stages.embed import EmbedLoop
from trivet.stores import ObjectStore
from trivet.values import TaskState

FAR = float("inf")


@pytest.fixture
def d(settings: Settings, store: ObjectStore, tmp_path: Path) -> Iterator[Desk]:
    base = settings.model_copy(update={"mass_delete_objects": 3, "mass_delete_share": 0.5})
    with desk(tmp_path, ledger=open_ledger(base), store=store, base=base) as made:
        yield made
    faults.disarm()


@pytest.fixture
def deletes(d: Desk) -> Deletes:
    return Deletes.open(d.settings, d.ledger, "default")


def work(d: Desk) -> None:
    """All that waits for embed or commit."""
    loop = EmbedLoop(d.ctx, encoder())
    loop.run(FAR)
    loop.close()
    commit.run(d.ctx, FAR)


def ingest(d: Desk, *object_ids: str, **fields: Any) -> None:
    for object_id in object_ids:
        d.staged(object_id, [[f"text of {object_id}"]], **fields)
    work(d)


def visible(d: Desk) -> list[str]:
    return [manifest.object_id for manifest in current_manifests(d.store, d.layout)]


def delete_one(d: Desk, object_id: str) -> str:
    task_id = delete_object(d.ledger, d.settings, "default", "docs", object_id).task_id
    commit.run(d.ctx, FAR)
    return task_id


# ---------------------------------------------------------------- hiding


def test_a_deleted_object_is_hidden_from_every_reader_at_once(d: Desk) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from trivet.errors import InvalidRequest
    from trivet.parts.duck import connect
    from trivet.retrieval.visible import visible_objects

    ingest(d, "a", "b")
    assert d.view(delete_one(d, "a")).state is TaskState.DELETED
    assert visible(d) == ["b"]
    assert read_current(d.store, d.layout, "a") is None
    assert {part.key.split("/objects/")[1].split("/")[0] for part in collection_files(d.store, d.layout)} == {"b"}
    rows = [group.object_id for group in read_parts("docs", settings=d.settings, store=d.store)]
    assert rows == ["b"]
    with ThreadPoolExecutor(2) as pool:
        assert [found.manifest.object_id for found in visible_objects(d.store, d.layout, pool)] == ["b"]
    with connect(d.store, d.layout) as db:
        assert db.execute("select distinct object_id from chunks").fetchall() == [("b",)]
    delete_one(d, "b")
    with pytest.raises(InvalidRequest, match="no committed chunks"):
        connect(d.store, d.layout)


def test_a_delete_waits_for_the_objects_active_task_and_takes_the_place_of_a_waiting_one(d: Desk) -> None:
    active = d.staged("a", [["one"]])
    waiting = d.accept("a")
    task_id = delete_object(d.ledger, d.settings, "default", "docs", "a", idempotency_key="k").task_id
    assert delete_object(d.ledger, d.settings, "default", "docs", "a", idempotency_key="k").task_id == task_id
    assert d.view(waiting).state is TaskState.SUPERSEDED
    work(d)
    assert (d.view(active).state, d.view(task_id).state) == (TaskState.COMPLETED, TaskState.DELETED)
    assert visible(d) == []


def test_a_source_prefix_ends_at_a_slash_and_takes_what_is_on_its_way_with_it(d: Desk, deletes: Deletes) -> None:
    for name, url in (("top", "a"), ("sub", "a/b"), ("query", "a/c?key=secret"), ("other", "ab"), ("far", "b")):
        ingest(d, name, url=f"https://Host:443/{url}")
    late = d.staged("late", [["one"]], url="https://host/a/late")
    done = deletes.delete_prefix("docs", "HTTPS://host/a", confirm=True)
    assert len(done.task_ids) == 4
    work(d)
    assert visible(d) == ["far", "other"]
    assert d.view(late).state is TaskState.COMPLETED
    assert deletes.delete_prefix("docs", "https://host/a").task_ids == ()
    for wrong in ("https://host/a?key=1", "data:,x", "no url"):
        with pytest.raises(InvalidRequest):
            deletes.delete_prefix("docs", wrong)


def test_a_deleted_collection_takes_no_more_requests_and_nothing_of_it_shows_later(d: Desk, deletes: Deletes) -> None:
    ingest(d, "a", "b")
    d.staged("late", [["one"]])
    done = deletes.delete_collection("docs")
    assert len(done.task_ids) == 3
    with pytest.raises(UnknownCollection):
        d.accept("c")
    work(d)
    assert visible(d) == []
    assert {d.view(task_id).state for task_id in done.task_ids} == {TaskState.DELETED}


# ---------------------------------------------------------------- held batches


def test_much_of_a_collection_waits_for_a_confirmation(d: Desk, deletes: Deletes) -> None:
    ingest(d, *"abcdef")
    small = deletes.delete_missing("docs", "abcde")
    assert len(small.task_ids) == 1
    work(d)
    with pytest.raises(NotConfirmed) as raised:
        deletes.delete_prefix("docs", "https://host/")
    (batch,) = deletes.held()
    assert batch.id in raised.value.hint
    assert (batch.what, batch.count, batch.visible, batch.prefix) == ("prefix", 5, 5, "https://host/")
    with pytest.raises(NotConfirmed):
        deletes.delete_collection("docs")
    assert d.ledger.get_collection("default", "docs") is not None
    assert visible(d) == list("abcde")
    collection = next(held for held in deletes.held() if held.what == "collection")
    assert deletes.drop(collection.id) == collection
    assert len(deletes.confirm(batch.id).task_ids) == 5
    work(d)
    assert (visible(d), deletes.held()) == ([], [])
    for gone in (batch.id, "held_none"):
        with pytest.raises(InvalidRequest, match="No held delete"):
            deletes.confirm(gone)


@pytest.mark.parametrize("listing", [(), ("a",), ("zz",)], ids=["empty", "short", "of something else"])
def test_a_listing_that_looks_cut_short_always_waits(d: Desk, deletes: Deletes, listing: tuple[str, ...]) -> None:
    base = d.settings.model_copy(update={"mass_delete_objects": 1000})
    patient = Deletes.open(base, d.ledger, "default")
    ingest(d, "a", "b", "c")
    with pytest.raises(NotConfirmed, match=f"names {len(set(listing) & set('abc'))} of 3"):
        patient.delete_missing("docs", listing)
    assert visible(d) == ["a", "b", "c"]


def test_what_was_ingested_anew_since_a_listing_is_held_stays(d: Desk, deletes: Deletes) -> None:
    ingest(d, "a", "b", "c")
    with pytest.raises(NotConfirmed):
        deletes.delete_missing("docs", [])
    ingest(d, "b", metadata={"again": 1})
    (batch,) = deletes.held()
    faults.arm("deletes.before_drop", _die)
    with pytest.raises(TransientError):
        deletes.confirm(batch.id)
    faults.disarm()
    work(d)
    done = deletes.confirm(batch.id)
    assert (done.task_ids, done.renewed) == ((), ("b",))
    assert (visible(d), deletes.held()) == (["b"], [])


def test_a_listing_of_an_empty_collection_deletes_nothing_and_asks_nobody(deletes: Deletes) -> None:
    assert deletes.delete_missing("docs", []).task_ids == ()


def test_what_becomes_visible_while_a_prefix_is_looked_at_is_deleted_with_it(d: Desk, deletes: Deletes) -> None:
    class Slow(Deletes):
        def _visible(self, *arguments: Any, **named: Any) -> Any:
            seen = list(super()._visible(*arguments, **named))
            work(d)
            return iter(seen)

    d.staged("late", [["one"]], url="https://host/a/late")
    slow = Slow.open(d.settings, d.ledger, "default")
    assert len(slow.delete_prefix("docs", "https://host/a", confirm=True).task_ids) == 1
    work(d)
    assert visible(d) == []


def test_a_job_that_asks_every_night_leaves_one_held_batch(d: Desk, deletes: Deletes) -> None:
    ingest(d, "a", "b", "c")
    for _ in range(3):
        with pytest.raises(NotConfirmed) as raised:
            deletes.delete_missing("docs", [])
        with pytest.raises(NotConfirmed):
            deletes.delete_prefix("docs", "https://host/")
    assert sorted(batch.what for batch in deletes.held()) == ["missing", "prefix"]
    (batch,) = (batch for batch in deletes.held() if batch.what == "missing")
    assert batch.id in raised.value.hint
    client = d.ledger._client
    assert len(client.keys(f"{d.settings.redis_prefix}held_deletes:*:held_*")) == 1
    assert len(deletes.confirm(batch.id).task_ids) == 3


# ---------------------------------------------------------------- purge


def _die() -> None:
    faults.disarm()
    raise TransientError("died")


def keys(d: Desk, object_id: str) -> set[str]:
    folder = d.layout.object(object_id)
    return {stored.key.removeprefix(folder) for stored in d.store.list(folder)}


def doomed(d: Desk) -> None:
    """Object `a` in two generations, with raw bytes, a plan and records, and then deleted."""
    ingest(d, "a")
    ingest(d, "a", metadata={"again": 1})
    d.store.put(d.layout.raw("a", "ab" * 32), b"raw")
    d.store.put(d.layout.staged_record("task_1"), b'{"object_id":"a"}')
    d.store.put(d.layout.intent("task_2"), b'{"object_id":"a"}')
    d.store.put(d.layout.intent("task_3"), b'{"object_id":"b"}')
    delete_one(d, "a")


def purge_now(d: Desk) -> list[PurgeReceipt]:
    return run_purges(d.settings, d.ledger, d.store)


def test_a_purge_removes_everything_but_what_hides_the_object_and_says_what_it_was(d: Desk) -> None:
    doomed(d)
    asked = request_purge(d.settings, d.store, "default", "docs", "a")
    assert receipt(d.settings, asked.id) == asked
    (done,) = purge_now(d)
    assert receipt(d.settings, asked.id) == done
    assert (done.state, done.keys) == ("done", {"manifests": 2, "parts": 2, "plans": 2, "raw": 1, "records": 2})
    assert done.bytes["raw"] == 3
    assert done.by
    assert keys(d, "a") == {"current.json", "g/3/manifest.json"}
    assert [found.key for found in d.store.list(d.layout.intents())] == [d.layout.intent("task_3")]
    assert purge_now(d) == []
    ingest(d, "a")
    pointer = read_pointer(d.store, d.layout, "a")
    assert pointer is not None
    assert pointer.generation == 4


def test_what_is_visible_is_never_purged(d: Desk) -> None:
    ingest(d, "a", "b")
    for object_id in ("a", "never", ""):
        with pytest.raises(InvalidRequest, match="is not deleted"):
            request_purge(d.settings, d.store, "default", "docs", object_id)
    delete_one(d, "a")
    asked = request_purge(d.settings, d.store, "default", "docs", "a")
    ingest(d, "a")
    before = keys(d, "a")
    (done,) = purge_now(d)
    assert (done.id, done.state) == (asked.id, "refused")
    assert "visible again" in done.reason
    assert keys(d, "a") == before


def test_a_purge_waits_for_the_objects_active_task_and_no_task_starts_while_it_runs(d: Desk) -> None:
    doomed(d)
    request_purge(d.settings, d.store, "default", "docs", "a")
    active = d.accept("a")
    assert purge_now(d) == []
    d.ledger.cancel(active)
    states: list[str] = []

    def come() -> None:
        if not states:
            states.append(d.view(d.accept("a")).state)

    faults.arm("purge.before_note", come)
    (done,) = purge_now(d)
    assert (done.state, states) == ("done", ["waiting"])
    assert d.ledger.backlog().states["queued"] == 1, "it starts when the purge is over"


@pytest.mark.parametrize("place", purge.FAULTS)
def test_a_purge_that_dies_anywhere_is_gone_on_with_and_counts_each_key_once(d: Desk, place: str) -> None:
    doomed(d)
    request_purge(d.settings, d.store, "default", "docs", "a")
    faults.arm(place, _die)
    with pytest.raises(TransientError):
        purge_now(d)
    (done,) = purge_now(d)
    assert done.keys == {"manifests": 2, "parts": 2, "plans": 2, "raw": 1, "records": 2}
    assert keys(d, "a") == {"current.json", "g/3/manifest.json"}
    assert not d.ledger.object_busy("default", "docs", "a")


def test_a_whole_collection_is_purged_once_all_of_it_is_deleted(d: Desk, deletes: Deletes) -> None:
    ingest(d, "a", "b")
    d.store.put(d.layout.raw("failed", "cd" * 32), b"raw")
    deletes.delete_collection("docs")
    work(d)
    request_purge(d.settings, d.store, "default", "docs")
    (done,) = purge_now(d)
    assert (done.state, done.keys["parts"], done.keys["raw"]) == ("done", 2, 1)
    assert (len(keys(d, "a")), len(keys(d, "b")), keys(d, "failed")) == (2, 2, set())


def test_two_processes_do_not_purge_at_once(d: Desk) -> None:
    doomed(d)
    request_purge(d.settings, d.store, "default", "docs", "a")
    inside: list[Any] = []

    def other() -> None:
        if not inside:
            thread = threading.Thread(target=lambda: inside.append(purge_now(d)))
            thread.start()
            thread.join()

    faults.arm("purge.before_note", other)
    (done,) = purge_now(d)
    assert (inside, done.keys["parts"]) == ([[]], 2)


@pytest.mark.parametrize("taken_over", [True, False])
def test_a_purge_that_was_stopped_for_long_removes_no_further_key_and_opens_nothing(d: Desk, taken_over: bool) -> None:
    doomed(d)
    request_purge(d.settings, d.store, "default", "docs", "a")
    other, left = RedisLedger(d.settings), list[set[str]]()

    def stopped() -> None:
        if not left:
            client = other._client
            client.delete(f"{d.settings.redis_prefix}purge_turn")
            if taken_over:
                assert other.take_turn("purge_turn", "other")
            left.append(keys(d, "a"))

    one_thread = d.settings.model_copy(update={"io_threads": 1})
    faults.arm("purge.before_remove", stopped)
    with pytest.raises(TransientError, match="Another process"):
        run_purges(one_thread, d.ledger, d.store)
    assert keys(d, "a") == left[0]
    assert d.ledger.object_busy("default", "docs", "a")
    other.end_turn("purge_turn", "other")
    (done,) = purge_now(d)
    assert done.keys == {"manifests": 2, "parts": 2, "plans": 2, "raw": 1, "records": 2}
    other._client.close()


def test_an_object_that_cannot_be_read_holds_no_other_purge_up(d: Desk) -> None:
    ingest(d, "b")
    doomed(d)
    delete_one(d, "b")
    bad = request_purge(d.settings, d.store, "default", "docs", "b")
    good = request_purge(d.settings, d.store, "default", "docs", "a")
    d.store.put(d.layout.current("b"), b"{")
    before = keys(d, "b")
    done = {one.id: one for one in purge_now(d)}
    assert (done[good.id].state, done[bad.id].state) == ("done", "refused")
    assert "unreadable" in done[bad.id].reason
    assert keys(d, "b") == before


# ---------------------------------------------------------------- real workers


def test_a_worker_killed_between_any_two_steps_of_a_delete_hides_every_object_once(d: Desk, tmp_path: Path) -> None:
    names = [f"o{n}" for n in range(2 * len(PLACES))]
    ingest(d, *names)
    armed = {
        "faults": ",".join(f"{place}:kill:1:{tmp_path / place}" for place in PLACES),
        "max_expiries": 100,
        "lease_seconds": 1.0,
        "heartbeat_seconds": 0.25,
        "sweep_seconds": 0.2,
    }
    tasks = [delete_object(d.ledger, d.settings, "default", "docs", name).task_id for name in names]
    with fleet(d.settings) as workers:
        workers.start("sweep", "--roles", "sweep", **armed)
        workers.start("cpu", "--roles", "prepare,commit", "--concurrency", "2", **armed)
        client = Trivet(settings=d.settings)
        views = wait_for_all(client, tasks)
    assert [place for place in PLACES if not (tmp_path / place).exists()] == []
    assert {view.state for view in views} == {TaskState.DELETED}
    assert {task: ends for task, ends in terminal_events(client).items() if task in tasks} == {
        task: ["deleted"] for task in tasks
    }
    assert visible(d) == []
    assert {len(keys(d, name) & {"g/2/manifest.json", "g/3/manifest.json"}) for name in names} == {1}


def test_a_process_of_the_role_gc_purges_and_another_goes_on_where_it_was_killed(d: Desk, tmp_path: Path) -> None:
    doomed(d)
    with fleet(d.settings) as workers:
        dying = workers.start("gc", "--roles", "gc", faults=f"purge.after_remove:kill:3:{tmp_path / 'struck'}")
        asked = request_purge(d.settings, d.store, "default", "docs", "a")
        dying.wait(timeout=120)
        assert d.ledger.object_busy("default", "docs", "a")
        # What half a minute of silence does.
        d.ledger._client.delete(f"{d.settings.redis_prefix}purge_turn")
        workers.start("gc", "--roles", "gc")
        deadline = time.monotonic() + 90
        while (done := receipt(d.settings, asked.id)).state == "waiting":
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert done.keys == {"manifests": 2, "parts": 2, "plans": 2, "raw": 1, "records": 2}
    assert not d.ledger.object_busy("default", "docs", "a")


@pytest.fixture
def source() -> Iterator[Server]:
    server = Server({f"/{n}": answer(prose(n, 300).encode(), Content_Type="text/plain") for n in range(4)})
    yield server
    server.close()


def test_the_command_line_deletes_and_purges_with_real_workers(
    settings: Settings, source: Server, run_cli: Callable[..., Any]
) -> None:
    live = settings.model_copy(
        update={
            "model_aliases": {"BAAI/bge-m3": "fake"},
            "allow_addresses": (source.place,),
            "sweep_seconds": 0.1,
            "mass_delete_objects": 2,
        }
    )
    client = Trivet(settings=live)
    client.create_collection("docs")
    cli = run_cli(live)
    with fleet(live) as workers:
        workers.start_all(concurrency=1)
        tasks = [client.ingest(source.url(f"/{n}"), collection="docs", object_id=f"o{n}") for n in range(4)]
        wait_for_all(client, [task.task_id for task in tasks])
        assert cli("purge", "o0", "-c", "docs").status == 2
        done = cli("delete", "o0", "-c", "docs", "--wait", "--timeout", "60", "--json")
        assert done.status == 0, done.err
        (task_id,) = done.json["task_ids"]
        assert terminal_events(client)[task_id] == ["deleted"]
        assert cli("delete", "--prefix", source.url("/"), "-c", "docs").status == 1
        (batch,) = cli("deletes", "--json").json
        assert batch["count"] == 3
        assert cli("deletes", "--confirm", batch["id"], "--wait", "--timeout", "60").status == 0
    assert cli("deletes", "--json").json == []
    asked = cli("purge", "--all", "-c", "docs", "--json").json
    run_purges(live, RedisLedger(live), _store(live))
    shown = cli("purge", "--receipt", asked["id"], "--wait", "--json").json
    assert (shown["state"], shown["keys"]["raw"]) == ("done", 4)
    for wrong in (("delete", "-c", "docs"), ("delete", "a", "--all", "-c", "docs"), ("purge", "-c", "docs")):
        assert cli(*wrong).status == 2


def test_the_command_line_takes_a_listing_and_says_what_it_will_not_do(
    d: Desk, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    ingest(d, *"abcdef")
    cli, listing = run_cli(d.settings), tmp_path / "listing"
    listing.write_text("a\nb\n\n c \nd\ne\n")
    done = cli("delete", "--missing-from", str(listing), "-c", "docs", "--json")
    assert (done.status, len(done.json["task_ids"])) == (0, 1)
    commit.run(d.ctx, FAR)
    assert visible(d) == list("abcde")
    listing.write_text("a")
    held = cli("delete", "--missing-from", str(listing), "-c", "docs", "--json")
    assert (held.status, held.json["error"]["code"]) == (1, "not_confirmed")
    (batch,) = cli("deletes", "--json").json
    assert batch["id"] in held.err
    assert "names 1 of 5" in cli("deletes").out
    assert cli("deletes", "--drop", batch["id"]).status == 0
    assert "No delete waits" in cli("deletes").err
    assert visible(d) == list("abcde")
    for wrong in (
        ("delete", "--missing-from", str(tmp_path / "none"), "-c", "docs"),
        ("delete", "--missing-from", str(listing), "-c", "docs", "--yes"),
        ("delete", "a", "b", "-c", "docs", "--key", "k"),
        ("deletes", "--confirm", "a", "--drop", "b"),
        ("purge", "a"),
        ("purge", "--receipt", "purge_none"),
    ):
        assert cli(*wrong).status == 2, wrong


def _store(settings: Settings) -> ObjectStore:
    from trivet.stores import open_store

    return open_store(settings)


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    import json
    from types import SimpleNamespace

    from trivet import cli as command_line
    from trivet.supervisor.workers import environment

    def for_settings(live: Settings) -> Callable[..., Any]:
        def run(*arguments: str) -> Any:
            for name, value in environment(live, {}).items():
                monkeypatch.setenv(name, value)
            capsys.readouterr()
            status = command_line.main(arguments)
            out, err = capsys.readouterr()
            parsed = json.loads(out) if "--json" in arguments and out else None
            return SimpleNamespace(status=status, out=out, err=err, json=parsed)

        return run

    return for_settings

"""Worlds that are broken by hand: an audit finds what is broken, and where it can, puts it right for good."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.prose import prose
from tests.support.fleet import fleet
from tests.support.web import Server, answer
from tests.unit.stages.desk import CRASHED, Desk, desk, encoder
from trivet import faults
from trivet.audit import AuditReport, Finding, audit
from trivet.cli import FAILED, OK, main
from trivet.client import Trivet
from trivet.deleting.deletes import delete_object
from trivet.deleting.purge import request_purge, run_purges
from trivet.errors import TransientError
from trivet.ledger import open_ledger
from trivet.ledger.redis_auditing import RedisAuditing
from trivet.ledger.redis_reading import connect
from trivet.names import Stage
from trivet.settings import Settings
from trivet.stages import commit
from trivet.stages.embed import EmbedLoop
from trivet.stores import ObjectStore
from trivet.supervisor.workers import environment
from trivet.values import Receipt, TaskState

FAR = float("inf")


@dataclass
class World:
    """A desk on real servers, and Redis underneath it."""

    d: Desk
    redis: Any
    prefix: str

    def key(self, *parts: str) -> str:
        return self.prefix + ":".join(parts)

    def audit(self, *, repair: bool = False, settings: Settings | None = None) -> AuditReport:
        return audit(settings or self.d.settings, store=self.d.store, repair=repair)

    def codes(self) -> set[str]:
        return {finding.code for finding in self.audit().findings}

    def heals(self, *codes: str) -> None:
        """These are found, whoever only looks changes nothing, and after a repair nothing is left to be found."""
        assert set(codes) <= self.codes()
        assert set(codes) <= self.codes()
        for _ in range(5):
            report = self.audit(repair=True)
            if not report.findings:
                break
        assert (report.findings, report.left, report.notes) == ((), 0, ())

    def work(self) -> None:
        """Embed and commit until nothing waits."""
        loop = EmbedLoop(self.d.ctx, encoder())
        loop.run(FAR)
        loop.close()
        commit.run(self.d.ctx, FAR)

    def completes(self, *tasks: str) -> None:
        """With real stages, and one terminal event each."""
        self.work()
        assert {self.d.view(task).state for task in tasks} == {TaskState.COMPLETED}
        ends = [event.data["task_id"] for _, event in self.d.ledger.events("0-0", 1000, 0) if "completed" in event.type]
        assert sorted(ends) == sorted(set(ends))
        assert set(tasks) <= set(ends)
        assert self.audit().findings == ()


@pytest.fixture
def w(settings: Settings, store: ObjectStore, tmp_path: Path) -> Iterator[World]:
    ledger = open_ledger(settings)
    with desk(tmp_path, ledger=ledger, store=store, base=settings) as made:
        yield World(made, made.ledger._client, settings.redis_prefix)
    faults.disarm()


def line(w: World, item: str) -> str:
    h = w.redis.hgetall(w.key("item", item))
    return w.key("line", h["stage"], h["flow"], h["queue"])


def busy(w: World) -> dict[str, str]:
    """Tasks in every state."""
    made = {"completed": w.d.staged("a", [["one"]])}
    w.work()
    made["skipped"] = w.d.accept("b")
    w.d.ledger.finish(w.d.claim(Stage.PREPARE), TaskState.SKIPPED, manifest="", receipt=Receipt())
    made["cancelled"] = w.d.accept("c")
    w.d.ledger.cancel(made["cancelled"])
    made["failed"] = w.d.accept("d")
    w.d.ledger.fail(w.d.claim(Stage.PREPARE), CRASHED, delay_seconds=0, max_attempts=1)
    made["embedding"] = w.d.staged("e", [["one"], ["two"], ["three"]])
    made["waiting"] = w.d.accept("e")
    made["due"] = w.d.accept("f")
    w.d.ledger.fail(w.d.claim(Stage.PREPARE), CRASHED, delay_seconds=60, max_attempts=9)
    made["preparing"] = w.d.accept("g")
    w.d.claim(Stage.PREPARE)
    made["superseded"] = w.d.accept("e")
    made["waiting"], made["superseded"] = made["superseded"], made["waiting"]
    made["queued"] = w.d.accept("h")
    made["deleted"] = delete_object(w.d.ledger, w.d.settings, "default", "docs", "a").task_id
    commit.run(w.d.ctx, FAR)
    made["delete"] = delete_object(w.d.ledger, w.d.settings, "default", "docs", "a").task_id
    return made


def test_a_ledger_with_tasks_in_every_state_has_no_findings(w: World) -> None:
    tasks = busy(w)
    w.d.ledger.pause("default", None, "by a test")
    report = w.audit()
    assert (report.findings, report.notes) == ((), ())
    assert (report.tasks, report.objects) == (len(tasks), 2)
    w.d.ledger.resume("default", None)
    assert w.audit(repair=True).findings == ()


def test_a_busy_ledger_has_no_findings(w: World) -> None:
    over = threading.Event()
    errors: list[BaseException] = []

    def produce_and_work() -> None:
        try:
            for n in range(40):
                w.d.staged(f"o{n % 7}", [[f"text {n}"], [f"more {n}"]], metadata={"n": n})
                w.work()
                if n % 5 == 0:
                    delete_object(w.d.ledger, w.d.settings, "default", "docs", f"o{n % 7}")
        except BaseException as error:  # noqa: BLE001 - the test must hear of it
            errors.append(error)
        over.set()

    thread = threading.Thread(target=produce_and_work)
    thread.start()
    found: list[Finding] = []
    while not over.is_set():
        found += w.audit().findings
    thread.join()
    assert (found, errors) == ([], [])
    w.work()
    assert w.audit().findings == ()


def test_real_workers_leave_nothing_to_be_found_while_they_run_and_after(
    settings: Settings, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    server = Server({f"/{n}": answer(prose(n, 300).encode(), Content_Type="text/plain") for n in range(12)})
    changes = {"model_aliases": {"BAAI/bge-m3": "fake"}, "allow_addresses": (server.place,), "sweep_seconds": 0.2}
    live = settings.model_copy(update=changes)
    for name, value in environment(live, {}).items():
        monkeypatch.setenv(name, value)
    client = Trivet(settings=live)
    client.create_collection("docs")
    with fleet(live) as workers:
        workers.start_all(concurrency=1)
        ids = [client.ingest(server.url(f"/{n}"), collection="docs").task_id for n in range(12)]
        while not all(client.task(task_id).status().state.terminal for task_id in ids):
            assert audit(live, store=store).findings == ()
    server.close()
    capsys.readouterr()
    assert main(["audit", "--json"]) == OK
    facts = json.loads(capsys.readouterr().out)
    assert (facts["tasks"], facts["objects"], facts["findings"], facts["notes"]) == (12, 12, [], [])
    redis = connect(live)
    redis.hdel(f"{live.redis_prefix}task:{ids[0]}", "state")
    assert main(["audit", "--ledger"]) == FAILED
    shown = capsys.readouterr()
    assert ids[0] in shown.out
    assert "trivet audit --repair" in shown.err
    assert main(["audit", "--repair"]) == OK
    assert main(["audit"]) == OK
    assert client.task(ids[0]).status().state is TaskState.COMPLETED


# ---------------------------------------------------------------- work items


Break = Callable[[World, str], None]


def _no_item(w: World, item: str) -> None:
    w.redis.zrem(line(w, item), item)
    w.redis.delete(w.key("item", item))


def _no_fields(w: World, item: str) -> None:
    w.redis.hdel(w.key("item", item), "queue", "cost")


def _out_of_line(w: World, item: str) -> None:
    w.redis.zrem(line(w, item), item)


def _leased_by_nobody(w: World, item: str) -> None:
    w.redis.zrem(line(w, item), item)
    w.redis.hset(w.key("item", item), mapping={"state": "leased", "epoch": 7})


def _in_line_and_due(w: World, item: str) -> None:
    w.redis.zadd(w.key("due"), {item: 1 << 60})


def _in_another_line(w: World, item: str) -> None:
    w.redis.zadd(w.key("line", "prepare", "2|default", "elsewhere"), {item: 1})


def _parked_for_nobody(w: World, item: str) -> None:
    w.redis.sadd(w.key("parked", "default/other"), item)


def _held_by_a_stranger(w: World, item: str) -> None:
    w.redis.sadd(w.key("held", "stranger"), item)


def _flow_forgotten(w: World, item: str) -> None:
    h = w.redis.hgetall(w.key("item", item))
    w.redis.zrem(w.key("vt", h["stage"]), h["flow"])
    w.redis.delete(w.key("lines", h["stage"], h["flow"]))


@pytest.mark.parametrize("stage", ["embed", "commit"])
@pytest.mark.parametrize(
    ("breaks", "code"),
    [
        (_no_item, {"embed": "shard_lost", "commit": "no_next_step"}),
        (_no_fields, "item_damaged"),
        (_out_of_line, "item_lost"),
        (_leased_by_nobody, "item_lost"),
        (_in_line_and_due, "item_doubled"),
        (_in_another_line, "item_doubled"),
        (_parked_for_nobody, "item_doubled"),
        (_held_by_a_stranger, "item_doubled"),
        (_flow_forgotten, "line_unlisted"),
    ],
)
def test_a_work_item_that_is_lost_or_doubled_is_put_back_in_its_line(
    w: World, stage: str, breaks: Break, code: str | dict[str, str]
) -> None:
    task = w.d.staged("a", [["one"], ["two"]])
    if stage == "commit":
        EmbedLoop(w.d.ctx, encoder()).run(FAR)
    breaks(w, f"{task}/{stage}/0")
    w.heals(code if isinstance(code, str) else code[stage])
    w.completes(task)


def test_a_task_that_has_no_item_to_be_prepared_by_gets_one(w: World) -> None:
    task = w.d.accept("a")
    _no_item(w, f"{task}/prepare/0")
    w.heals("no_next_step")
    assert w.d.claim(Stage.PREPARE).task_id == task


def test_a_ghost_in_a_line_stops_nobody_once_it_is_gone(w: World) -> None:
    task = w.d.staged("a", [["one"]])
    w.redis.zadd(line(w, f"{task}/embed/0"), {"task_gone/embed/0": 0})
    w.redis.hset(w.key("item", "task_gone/embed/1"), "stage", "embed")
    w.heals("ghost", "item_extra")
    w.completes(task)


def test_a_lease_that_is_held_stays_with_its_holder(w: World) -> None:
    task = w.d.staged("a", [["one"]])
    waits = line(w, f"{task}/embed/0")
    lease = w.d.claim(Stage.EMBED)
    w.redis.zadd(waits, {lease.item: 1})
    w.heals("item_doubled")
    w.d.ledger.release([lease])
    w.completes(task)


def test_a_shard_whose_plan_is_gone_is_found_and_cannot_be_repaired(w: World) -> None:
    task = w.d.staged("a", [["one"]])
    _no_item(w, f"{task}/embed/0")
    for stored in list(w.d.store.list(w.d.layout.object("a"))):
        w.d.store.delete(stored.key)
    report = w.audit(repair=True)
    assert [(f.code, f.where, f.repaired) for f in report.findings if f.code == "shard_lost"] == [
        ("shard_lost", f"{task}/embed/0", False)
    ]
    assert report.left


# ---------------------------------------------------------------- tasks, shards, objects


def test_a_shard_counts_once(w: World) -> None:
    task = w.d.staged("a", [["one"], ["two"]])
    h = w.redis.hgetall(w.key("item", f"{task}/embed/0"))
    w.redis.hset(w.key("parts", task), "7", "{}")
    w.heals("part_extra")
    w.work()
    other = w.d.staged("b", [["one"], ["two"]])
    w.d.ledger.shard_done(w.d.claim(Stage.EMBED), _part(w, other), "")
    w.redis.hset(w.key("item", f"{other}/embed/0"), mapping={**h, "state": "pending"})
    w.redis.zadd(w.key("line", "embed", h["flow"], h["queue"]), {f"{other}/embed/0": 1})
    w.redis.hincrby(w.key("waiting", "embed"), h["queue"], 1)
    w.redis.hset(w.key("item", f"{other}/commit/0"), mapping={**h, "stage": "commit", "queue": "any"})
    w.heals("item_extra")
    w.work()
    assert w.d.view(other).state is TaskState.COMPLETED
    assert w.d.view(other).tokens_done == w.d.view(other).tokens


def _part(w: World, task: str) -> Any:
    from trivet.values import Part

    return Part(shard=0, key="k", sha256="00", bytes=0, rows=1, tokens=3, input_hash="h")


def test_a_task_without_a_state_gets_the_one_that_its_items_and_events_tell_of(w: World) -> None:
    tasks = busy(w)
    before = {name: w.d.view(task).state for name, task in tasks.items()}
    for task in tasks.values():
        w.redis.hdel(w.key("task", task), "state")
    w.redis.hset(w.key("task", tasks["queued"]), "state", "thinking")
    w.heals("no_state")
    after = {name: w.d.view(task).state for name, task in tasks.items()}
    # It waits for its second try, which any prepare worker may take.
    assert {name for name in tasks if before[name] != after[name]} <= {"due", "delete"}


@pytest.mark.parametrize(
    ("broken", "code"),
    [("row gone", "stranded"), ("not named", "stranded"), ("active gone", "object_row"), ("no active", "object_row")],
)
def test_a_waiting_task_that_nobody_would_start_is_started_in_its_turn(w: World, broken: str, code: str) -> None:
    active, waiting = w.d.staged("a", [["one"]]), w.d.accept("a")
    row = w.key("object", "default", "docs", "a")
    if broken == "row gone":
        w.redis.delete(row)
    elif broken == "not named":
        w.redis.hdel(row, "waiting")
    elif broken == "active gone":
        w.redis.hset(row, "active", "task_gone")
    else:
        w.redis.hdel(row, "active")
    w.heals(code)
    assert w.d.view(waiting).state is TaskState.WAITING
    w.work()
    assert w.d.view(active).state is TaskState.COMPLETED
    assert w.d.view(waiting).state is TaskState.QUEUED
    assert w.codes() == set()


def test_an_object_whose_active_task_has_ended_takes_new_ones_again(w: World) -> None:
    w.redis.hset(w.key("object", "default", "docs", "a"), "active", "task_gone")
    w.heals("object_row")
    w.completes(w.d.staged("a", [["one"]]))


def test_an_object_that_a_purge_or_garbage_collection_keeps_shut_is_not_broken(w: World) -> None:
    delete_object(w.d.ledger, w.d.settings, "default", "docs", w.d.view(w.d.staged("a", [["one"]])).object_id)
    w.work()
    request_purge(w.d.settings, w.d.store, "default", "docs", "a")

    def die() -> None:
        faults.disarm()
        raise TransientError("died")

    faults.arm("purge.before_count", die)
    faults.arm("purge.before_open", die)
    with pytest.raises(TransientError):
        run_purges(w.d.settings, w.d.ledger, w.d.store)
    w.d.accept("a")
    assert w.codes() == set()
    assert w.d.ledger.take_turn("gc_turn", "me")
    assert w.d.ledger.shut_object("me", "default", "docs", "b")
    assert w.codes() == set()


def test_what_has_ended_is_listed_retained_and_holds_nothing(w: World) -> None:
    tasks = busy(w)
    w.redis.zrem(w.key("terminal"), tasks["completed"])
    w.redis.zrem(w.key("dead"), tasks["failed"])
    w.redis.zadd(w.key("terminal"), {tasks["queued"]: 1})
    w.redis.zrem(w.key("tasks", "default"), tasks["cancelled"])
    w.redis.hset(w.key("parts", tasks["completed"]), "0", "{}")
    w.redis.hset(w.key("item", f"{tasks['failed']}/prepare/0"), mapping={"stage": "prepare", "queue": "x"})
    w.heals("not_retained", "not_dead_listed", "retained_early", "unlisted", "part_extra", "item_extra")


def test_rows_that_cannot_be_understood_are_told_of_and_left(w: World) -> None:
    w.redis.hset(w.key("task", "task_odd"), "namespace", "default")
    task = w.d.accept("a")
    w.redis.hset(w.key("task", task), "config", "gone")
    report = w.audit(repair=True)
    assert {(f.code, f.where, f.repaired) for f in report.findings} == {
        ("task_damaged", "task_odd", False),
        ("no_config", task, False),
    }
    assert report.left == 2


# ---------------------------------------------------------------- counters, events, workers


def test_counters_are_counted_anew(w: World) -> None:
    busy(w)
    w.redis.hincrby(w.key("states"), "completed", 5)
    w.redis.hset(w.key("states"), "failed", -3)
    w.redis.hset(w.key("staged"), "fake", 1)
    w.redis.hset(w.key("waiting", "prepare"), "nobody", 9)
    before = w.d.ledger.backlog()
    w.heals("counter")
    after = w.d.ledger.backlog()
    assert (before.states["completed"], after.states["completed"], after.states["failed"]) == (6, 1, 1)
    assert after.staged_tokens["fake"] > 1


def test_counters_are_not_judged_while_tasks_move(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    w.redis.hincrby(w.key("states"), "completed", 5)
    looks = iter(range(100))
    monkeypatch.setattr(RedisAuditing, "pulse", lambda self: next(looks))
    report = w.audit(repair=True)
    assert report.findings == ()
    assert "not judged" in report.notes[0]


def test_a_terminal_event_that_is_missing_is_written_under_its_id_and_a_second_one_removed(w: World) -> None:
    tasks = busy(w)
    entries = {
        (event.data["task_id"], event.type): (entry, event) for entry, event in w.d.ledger.events("0-0", 1000, 0)
    }
    ended = ("completed", "failed", "cancelled", "skipped", "superseded", "deleted")
    for name in ended:
        w.redis.xdel(w.key("events"), entries[tasks[name], f"trivet.ingest.{name}"][0])
    assert {f.where for f in w.audit().findings} == {tasks[name] for name in ended}
    w.heals("event_missing")
    again = {
        (event.data["task_id"], event.type): event
        for _, event in w.d.ledger.events("0-0", 1000, 0)
        if event.type.rpartition(".")[2] in ended
    }
    for name in ended:
        was, now = entries[tasks[name], f"trivet.ingest.{name}"][1], again[tasks[name], f"trivet.ingest.{name}"]
        assert now.id == was.id
        assert {field: now.data.get(field) for field in ("state", "receipt", "error", "manifest")} == {
            field: was.data.get(field) for field in ("state", "receipt", "error", "manifest")
        } or name in ("skipped", "failed")
    w.redis.xadd(w.key("events"), {"event": json.dumps(again[tasks["failed"], "trivet.ingest.failed"].model_dump())})
    w.heals("event_doubled")


def test_two_audits_at_once_write_a_missing_event_once(w: World) -> None:
    tasks = busy(w)
    (entry,) = [
        entry
        for entry, event in w.d.ledger.events("0-0", 1000, 0)
        if (event.data["task_id"], event.type) == (tasks["failed"], "trivet.ingest.failed")
    ]
    w.redis.xdel(w.key("events"), entry)
    ledger = RedisAuditing(w.d.settings, w.redis)
    (task,) = ledger.audited([tasks["failed"]])
    length = w.redis.xlen(w.key("events"))
    assert ledger.fix_event(task, "")
    assert ledger.fix_event(task, "")
    assert w.redis.xlen(w.key("events")) == length + 1


def test_events_that_the_stream_no_longer_keeps_are_missed_by_nobody(w: World) -> None:
    busy(w)
    w.redis.xtrim(w.key("events"), maxlen=3, approximate=False)
    assert w.codes() == set()


def test_work_that_no_sweeper_looks_after_is_told_of(w: World) -> None:
    w.d.accept("a")
    w.d.accept("b")
    w.d.claim(Stage.PREPARE)
    w.d.ledger.fail(w.d.claim(Stage.PREPARE), CRASHED, delay_seconds=0, max_attempts=9)
    assert w.codes() == set()
    for name in ("leases", "due"):
        w.redis.zadd(w.key(name), {w.redis.zrange(w.key(name), 0, 0)[0]: 1})
    (finding,) = w.audit(repair=True).findings
    assert (finding.code, finding.repaired) == ("no_sweeper", False)
    w.redis.delete(w.key("leases"), w.key("due"))
    w.redis.hset(w.key("slots", "embed"), "ghost", 1)
    w.heals("slot_ghost")


# ---------------------------------------------------------------- S3


def test_a_visible_generation_that_lacks_something_is_told_of(w: World) -> None:
    for name in "abcd":
        w.d.staged(name, [[name]])
    w.work()
    key = {stored.key.split("/objects/")[1]: stored.key for stored in w.d.store.list(w.d.layout.objects())}
    parts = sorted(k for k in key if "/part-" in k)
    w.d.store.delete(key[parts[0]])
    w.d.store.put(key[parts[1]], b"short")
    w.d.store.delete(key["c/g/1/manifest.json"])
    w.d.store.put(key["d/g/1/manifest.json"], b"{}")
    report = w.audit(repair=True)
    assert sorted(f.code for f in report.findings) == ["no_manifest", "no_part", "part_size", "unreadable"]
    assert report.left == 4


def test_a_completed_task_that_readers_do_not_see_is_made_visible_again(w: World) -> None:
    task = w.d.staged("a", [["one"]])
    w.work()
    w.d.store.delete(w.d.layout.current("a"))
    w.heals("not_visible")
    w.completes(task)
    w.d.store.delete(w.d.layout.current("a"))
    w.d.store.delete(w.d.layout.manifest("a", 1))
    report = w.audit(repair=True)
    assert ("not_visible", task, False) in {(f.code, f.where, f.repaired) for f in report.findings}


def test_parts_without_a_manifest_are_left_over_after_their_grace_unless_a_task_is_active(w: World) -> None:
    strict = w.d.settings.model_copy(update={"gc_grace_hours": 0.0, "gc_seconds": 1e-9})
    task = w.d.staged("a", [["one"], ["two"]])
    w.d.store.put(w.d.layout.part("a", 9, 0, "h"), b"x")
    assert [f.code for f in w.audit(settings=strict).findings] == []
    w.d.ledger.cancel(task)
    assert [f.code for f in w.audit().findings] == []
    (finding,) = w.audit(settings=strict).findings
    assert (finding.code, finding.where) == ("orphan_parts", w.d.layout.generation("a", 9))

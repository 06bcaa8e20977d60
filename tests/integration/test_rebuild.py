"""After Redis is wiped: what is committed stays so, what is staged is finished, and the rest comes back by its key."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.prose import prose
from tests.support.commits import Wrapped
from tests.support.plant import Plant, plant
from tests.support.web import Server, answer
from trivet import faults
from trivet.accept import accept, parse_request
from trivet.errors import (
    IdempotencyConflict,
    LedgerUnavailable,
    StoreUnavailable,
    TransientError,
    UnknownCollection,
)
from trivet.ledger import NewTask
from trivet.names import Lane, Stage, TaskKind
from trivet.rebuild import FAULTS, rebuild
from trivet.rebuild.marks import check_mark
from trivet.rebuild.records import Intent
from trivet.settings import Settings
from trivet.stores import ObjectStore, Stored
from trivet.stores.memory import MemoryStore
from trivet.supervisor.workers import environment
from trivet.values import Collection, Pipeline, TaskState

ROOT = Path(__file__).parent.parent.parent
ONE = "data:text/plain,Some%20text%20to%20embed."
SECRET = "?signature=s3cr3t"


@pytest.fixture
def source() -> Iterator[Server]:
    server = Server({f"/{n}": answer(prose(n, 2000).encode(), Content_Type="text/plain") for n in range(6)})
    yield server
    server.close()


@pytest.fixture
def live(settings: Settings, source: Server) -> Settings:
    return settings.model_copy(update={"allow_addresses": (source.place,)})


@pytest.fixture
def works(live: Settings, store: ObjectStore) -> Iterator[Plant]:
    with plant(live, store) as made:
        yield made


@pytest.fixture
def durable(live: Settings, store: ObjectStore) -> Iterator[Plant]:
    with plant(live.model_copy(update={"durable_accept": True}), store) as made:
        yield made


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    faults.disarm()


def test_what_was_committed_stays_committed_under_its_id_and_key(works: Plant, source: Server) -> None:
    task = works.ingested(source.url("/0"), idempotency_key="k0", lane="bulk", metadata={"a": 1})
    before, events = works.view(task), works.events(task)
    works.wipe()
    assert works.state(task) == "unknown"
    report = rebuild(works.settings, ledger=works.ledger, store=works.store)
    assert (report.collections, report.completed, report.staged, report.damaged) == (1, 1, 0, 0)
    after = works.view(task)
    same = {"state", "generation", "manifest_key", "lane", "url", "shards", "shards_done", "tokens", "tokens_done"}
    assert after.model_dump(include=same) == before.model_dump(include=same)
    assert abs(after.created_at - before.created_at) < 0.01
    # The terminal event comes again under its old id, so that receivers know it.
    assert works.events(task).items() <= events.items()
    assert list(works.events(task).values()) == ["completed"]
    assert works.accept(source.url("/0"), idempotency_key="k0", lane="bulk", metadata={"a": 1}) == task
    with pytest.raises(IdempotencyConflict):
        works.accept(source.url("/1"), idempotency_key="k0")
    assert works.visible(before.object_id).task_id == task


def test_what_was_staged_is_finished_without_its_source(works: Plant, source: Server) -> None:
    task = works.accept(source.url("/0"), idempotency_key="k0", metadata={"a": 1})
    works.prepare()
    before = works.view(task)
    works.wipe()
    source.close()
    report = rebuild(works.settings, ledger=works.ledger, store=works.store)
    assert (report.staged, report.completed, report.accepted) == (1, 0, 0)
    after = works.view(task)
    assert (after.state, after.shards, after.tokens) == (TaskState.EMBEDDING, before.shards, before.tokens)
    assert after.generation == before.generation
    works.embed()
    works.commit()
    assert works.state(task) == "completed"
    assert works.visible(before.object_id).metadata == {"a": 1}
    assert list(works.events(task).values()) == ["started", "completed"]
    assert not works.ledger.backlog().staged_tokens


def test_what_was_being_embedded_is_finished_from_all_its_shards(works: Plant, source: Server) -> None:
    task = works.accept(source.url("/0"))
    works.prepare()
    held = works.ledger.claim(Stage.EMBED, "gone", "op", queues=[_queue(works)], budget=1, most=1)
    assert held
    works.wipe()
    rebuild(works.settings, ledger=works.ledger, store=works.store)
    works.embed()
    works.commit()
    assert works.state(task) == "completed"


def test_what_was_not_staged_is_unknown_and_starts_anew_by_its_key(works: Plant, source: Server) -> None:
    task = works.accept(source.url("/0"), idempotency_key="k0")
    other = works.ingested(source.url("/1"))
    assert works.state(task) == "completed"
    task = works.accept(source.url("/2"), idempotency_key="k2")
    works.wipe()
    rebuild(works.settings, ledger=works.ledger, store=works.store)
    assert (works.state(task), works.state(other)) == ("unknown", "completed")
    again = works.accept(source.url("/2"), idempotency_key="k2")
    works.run()
    assert again != task
    assert works.state(again) == "completed"


def test_with_durable_accept_nothing_is_lost_at_all(durable: Plant, source: Server) -> None:
    url = source.url("/0") + SECRET
    accepted = durable.accept(url, idempotency_key="k0", lane="interactive", metadata={"a": 1})
    waiting = durable.accept(url, metadata={"a": 2})
    fresh = durable.accept(ONE)
    durable.wipe()
    report = rebuild(durable.settings, ledger=durable.ledger, store=durable.store)
    assert (report.collections, report.accepted, report.damaged) == (1, 3, 0)
    states = [durable.state(task) for task in (accepted, waiting, fresh)]
    assert states == ["queued", "waiting", "queued"]
    assert "s3cr3t" not in durable.view(accepted).model_dump_json()
    for _ in range(2):
        durable.run()
    assert [durable.state(task) for task in (accepted, waiting, fresh)] == ["completed"] * 3
    assert durable.visible(durable.view(waiting).object_id).metadata == {"a": 2}
    assert any(SECRET in request for request in source.requests)
    assert durable.accept(url, idempotency_key="k0", lane="interactive", metadata={"a": 1}) == accepted


def test_a_durable_accept_writes_the_collection_to_each_bucket_that_it_is_asked_for(durable: Plant) -> None:
    durable.accept(ONE)
    elsewhere, other = MemoryStore(), durable.settings.model_copy(update={"s3_bucket": "another"})
    accept(durable.ledger, other, parse_request({"url": ONE, "collection": "docs"}), store=elsewhere)
    assert [found.key for found in elsewhere.list(durable.layout.collection_record())]


def test_a_durable_accept_that_the_ledger_did_not_hear_comes_back_once(durable: Plant) -> None:
    def away(*_: object) -> None:
        raise LedgerUnavailable("Redis does not answer.")

    faults.arm("accept.after_intent", lambda: away())
    with pytest.raises(LedgerUnavailable):
        durable.accept(ONE, idempotency_key="k")
    faults.disarm()
    durable.wipe()
    assert rebuild(durable.settings, ledger=durable.ledger, store=durable.store).accepted == 1
    (kept,) = durable.ledger.tasks("default", collection=None, state=None, limit=9)
    assert durable.accept(ONE, idempotency_key="k") == kept.task_id


def test_a_repeat_leaves_no_intent_behind(durable: Plant) -> None:
    task = durable.accept(ONE, idempotency_key="k")
    assert durable.accept(ONE, idempotency_key="k") == task
    with pytest.raises(IdempotencyConflict):
        durable.accept(ONE + "x", idempotency_key="k")
    with pytest.raises(UnknownCollection):
        durable.accept(ONE, collection="none")
    assert [found.key for found in durable.store.list(durable.layout.intents())] == [durable.layout.intent(task)]


def test_a_repeat_before_the_rebuild_stands_for_the_lost_task(durable: Plant) -> None:
    lost = durable.accept(ONE, idempotency_key="k")
    durable.wipe()
    durable.create_collection()
    again = durable.accept(ONE, idempotency_key="k")
    report = rebuild(durable.settings, ledger=durable.ledger, store=durable.store)
    assert report.accepted == 0
    assert (durable.state(lost), durable.state(again)) == ("unknown", "queued")


def test_a_task_accepted_after_the_wipe_wins_over_the_staged_one_before(works: Plant, source: Server) -> None:
    lost = works.accept(source.url("/0"), metadata={"a": "old"})
    works.prepare()
    works.wipe()
    works.create_collection()
    newer = works.accept(source.url("/0"), metadata={"a": "new"})
    report = rebuild(works.settings, ledger=works.ledger, store=works.store)
    assert (report.superseded, report.staged) == (1, 0)
    assert works.state(lost) == "superseded"
    works.run()
    assert works.state(newer) == "completed"
    assert works.visible(works.view(newer).object_id).metadata == {"a": "new"}
    assert list(works.events(lost).values()) == ["superseded"]


def test_a_newer_generation_that_was_committed_after_the_wipe_stays(works: Plant, source: Server) -> None:
    lost = works.accept(source.url("/0"), metadata={"a": "old"})
    works.prepare()
    works.wipe()
    works.create_collection()
    newer = works.ingested(source.url("/0"), metadata={"a": "new"})
    rebuild(works.settings, ledger=works.ledger, store=works.store)
    works.run()
    assert works.state(lost) == "superseded"
    assert works.visible(works.view(newer).object_id).task_id == newer


def test_of_two_staged_records_of_one_object_the_later_is_embedded(works: Plant, source: Server) -> None:
    first = works.accept(source.url("/0"), metadata={"n": 1})
    works.prepare()
    works.ledger.cancel(first)
    second = works.accept(source.url("/0"), metadata={"n": 2})
    works.prepare()
    works.wipe()
    rebuild(works.settings, ledger=works.ledger, store=works.store)
    assert (works.state(first), works.state(second)) == ("superseded", "embedding")
    works.embed()
    works.commit()
    assert works.visible(works.view(second).object_id).task_id == second


def test_a_staged_task_without_its_plan_starts_anew_where_its_url_is_known(works: Plant, source: Server) -> None:
    whole, secret = works.accept(source.url("/0")), works.accept(source.url("/1") + SECRET)
    works.prepare()
    for stored in list(works.store.list(works.layout.objects())):
        if stored.key.endswith("plan.json"):
            works.store.delete(stored.key)
    works.wipe()
    report = rebuild(works.settings, ledger=works.ledger, store=works.store)
    assert (report.accepted, report.damaged) == (1, 1)
    assert "its full URL is not remembered" in report.reasons[0].reason
    assert "s3cr3t" not in report.reasons[0].reason
    works.run()
    assert (works.state(whole), works.state(secret)) == ("completed", "unknown")


def test_with_an_intent_its_url_is_known_too(durable: Plant, source: Server) -> None:
    task = durable.accept(source.url("/1") + SECRET)
    durable.prepare()
    for stored in list(durable.store.list(durable.layout.objects())):
        if stored.key.endswith("plan.json"):
            durable.store.delete(stored.key)
    durable.wipe()
    report = rebuild(durable.settings, ledger=durable.ledger, store=durable.store)
    assert (report.accepted, report.damaged) == (1, 0)
    durable.run()
    assert durable.state(task) == "completed"


def test_a_rebuild_of_a_live_ledger_changes_nothing(durable: Plant, source: Server) -> None:
    some_of_all(durable, source)
    before = durable.dump()
    report = rebuild(durable.settings, ledger=durable.ledger, store=durable.store)
    # The intents of all five, and the records of those that were staged, have known tasks.
    assert (report.collections, report.completed, report.staged, report.accepted) == (0, 0, 0, 0)
    assert report.known > 0
    assert {k: v for k, v in durable.dump().items() if k != "mark"} == before


def test_a_second_rebuild_changes_nothing(durable: Plant, source: Server) -> None:
    some_of_all(durable, source)
    durable.wipe()
    rebuild(durable.settings, ledger=durable.ledger, store=durable.store)
    before = durable.dump()
    second = rebuild(durable.settings, ledger=durable.ledger, store=durable.store)
    assert (second.collections, second.completed, second.staged, second.accepted) == (0, 0, 0, 0)
    assert durable.dump() == before


@pytest.mark.parametrize("hook", FAULTS)
def test_a_rebuild_that_was_killed_goes_on_where_it_stood(
    hook: str, durable: Plant, source: Server, clean_env: dict[str, str]
) -> None:
    ids = some_of_all(durable, source)
    durable.wipe()
    nth = 2 if "restore" in hook else 1
    settings = durable.settings.model_copy(update={"faults": f"{hook}:kill:{nth}"})
    code = (
        "from trivet.faults import arm_all; from trivet.rebuild import rebuild; from trivet.settings import Settings\n"
        "settings = Settings.load(); arm_all(settings.faults); rebuild(settings)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(settings, clean_env), capture_output=True, text=True
    )
    assert killed.returncode == -9, killed.stderr
    rebuild(durable.settings, ledger=durable.ledger, store=durable.store)
    check_mark(durable.settings, durable.ledger, durable.store)
    for _ in range(2):
        durable.run()
    assert {durable.state(task) for task in ids} == {"completed"}
    for task in ids:
        terminal = [kind for kind in durable.events(task).values() if kind == "completed"]
        assert terminal == ["completed"]


def test_a_damaged_record_is_named_and_the_rest_comes_back(works: Plant, source: Server) -> None:
    task = works.accept(source.url("/0"))
    works.prepare()
    works.store.put(works.layout.staged_record("task_broken"), b"{")
    works.store.put(works.layout.current("o"), b'{"generation": "x"}')
    works.wipe()
    report = rebuild(works.settings, ledger=works.ledger, store=works.store)
    assert {one.key for one in report.reasons} == {
        works.layout.staged_record("task_broken"),
        works.layout.current("o"),
    }
    assert (report.damaged, report.staged) == (2, 1)
    assert works.state(task) == "embedding"


def test_what_was_committed_before_the_retention_stays_on_s3_alone(works: Plant, source: Server) -> None:
    task = works.ingested(source.url("/0"))
    works.wipe()
    short = works.settings.model_copy(update={"task_retention_days": 1e-9})
    report = rebuild(short, ledger=works.ledger, store=works.store)
    assert (report.retired, report.completed) == (1, 0)
    assert works.state(task) == "unknown"


def test_a_collection_that_the_ledger_has_stays_as_it_is(works: Plant, source: Server) -> None:
    works.ingested(source.url("/0"))
    changed = Collection(namespace="default", name="docs", pipeline=Pipeline(model_id="fake", dtype="fp32"))
    works.ledger.put_collection(changed, replace=True)
    assert rebuild(works.settings, ledger=works.ledger, store=works.store).collections == 0
    assert works.ledger.get_collection("default", "docs") == changed


def test_a_changed_collection_is_remembered_as_it_is_now(works: Plant, source: Server) -> None:
    works.ingested(source.url("/0"))
    changed = Collection(namespace="default", name="docs", pipeline=Pipeline(model_id="fake", dtype="fp32"))
    works.ledger.put_collection(changed, replace=True)
    works.accept(source.url("/1"))
    works.prepare()
    works.wipe()
    rebuild(works.settings, ledger=works.ledger, store=works.store)
    assert works.ledger.get_collection("default", "docs") == changed


def test_an_intent_without_its_collection_is_reported(durable: Plant) -> None:
    task = durable.accept(ONE)
    durable.store.delete(durable.layout.collection_record())
    durable.wipe()
    report = rebuild(durable.settings, ledger=durable.ledger, store=durable.store)
    assert (report.accepted, report.damaged) == (0, 1)
    durable.create_collection()
    assert rebuild(durable.settings, ledger=durable.ledger, store=durable.store).accepted == 1
    assert durable.state(task) == "queued"


def test_a_delete_that_was_only_accepted_comes_back_as_one(durable: Plant) -> None:
    task = NewTask("task_del", "default", "docs", "o", Lane.NORMAL, "", "", "{}", "", "", "", 0, kind=TaskKind.DELETE)
    durable.store.put(durable.layout.intent("task_del"), Intent.of(task, 1.0).model_dump_json().encode())
    durable.wipe()
    assert rebuild(durable.settings, ledger=durable.ledger, store=durable.store).accepted == 1
    view = durable.view("task_del")
    assert (view.kind, view.state) == (TaskKind.DELETE, TaskState.QUEUED)
    assert durable.ledger.claim(Stage.COMMIT, "w2", "op")[0].task_id == "task_del"


def test_the_ledger_is_asked_again_when_s3_has_failed(works: Plant, source: Server) -> None:
    works.ingested(source.url("/0"))
    works.wipe()

    def fail() -> None:
        raise TransientError("S3 is away.")

    faults.arm("rebuild.before_restore", fail)
    with pytest.raises(TransientError):
        rebuild(works.settings, ledger=works.ledger, store=works.store)
    # Not all is back, so garbage collection must not trust this ledger yet.
    assert works.ledger.mark() == ""
    faults.disarm()
    assert rebuild(works.settings, ledger=works.ledger, store=works.store).completed == 1


def test_the_command_says_what_it_did(works: Plant, source: Server, clean_env: dict[str, str]) -> None:
    works.ingested(source.url("/0"))
    works.wipe()
    done = subprocess.run(
        [sys.executable, "-m", "trivet.cli", "rebuild", "--json"],
        cwd=ROOT,
        env=environment(works.settings, {**clean_env, "PATH": os.environ["PATH"]}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '"completed": 1' in done.stdout


def some_of_all(works: Plant, source: Server) -> list[str]:
    """Two committed, one staged, two only accepted (one has to wait for the other)."""
    done = [works.ingested(source.url(f"/{n}"), idempotency_key=f"k{n}") for n in range(2)]
    staged = works.accept(source.url("/2") + SECRET, idempotency_key="k2")
    works.prepare()
    fresh = works.accept(source.url("/3") + SECRET, idempotency_key="k3")
    waits = works.accept(source.url("/2") + SECRET, metadata={"a": 2})
    return [*done, staged, fresh, waits]


def _queue(works: Plant) -> str:
    from trivet.ledger.queues import served_queues

    return served_queues(works.encoder.identity.encoder_key, works.encoder.passport.dtype)[0]


def test_a_first_mark_whose_answer_was_lost_does_not_make_the_ledger_look_wiped(
    works: Plant, store: ObjectStore
) -> None:
    class Mute(Wrapped):
        def put(self, key: str, body: bytes, *, if_none_match: bool = False, **named: Any) -> Stored:
            super().put(key, body, if_none_match=if_none_match, **named)
            raise StoreUnavailable("its answer was lost")

    with pytest.raises(StoreUnavailable):
        check_mark(works.settings, works.ledger, Mute(store))
    check_mark(works.settings, works.ledger, store)

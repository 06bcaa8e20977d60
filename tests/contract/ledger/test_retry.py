"""Failed and cancelled tasks run again: the same task, the next run."""

from __future__ import annotations

import json

import pytest

from tests.contract.ledger.desk import CRASH, Desk
from trivet.errors import NotRetryable, UnknownTask
from trivet.ids import event_id
from trivet.ledger.redis import RedisLedger
from trivet.names import TERMINAL_EVENTS, Stage
from trivet.values import Receipt, TaskState


def forget_secrets(desk: Desk, task_id: str) -> None:
    """As if the retention of full URLs were over."""
    if isinstance(desk.ledger, RedisLedger):
        assert desk.ledger._client.pttl(desk.ledger._key("url", task_id)) > 0
        desk.ledger._client.delete(desk.ledger._key("url", task_id))
    else:
        desk.clock.sleep(2 * 86_400)


@pytest.mark.parametrize("ended", ["failed", "cancelled"])
def test_the_next_run_starts_from_zero_and_tells_its_own_events(desk: Desk, ended: str) -> None:
    if ended == "failed":
        task_id = desk.failed(error=CRASH)
    else:
        task_id = desk.accept()
        desk.ledger.cancel(task_id)
    before = desk.events(task_id)
    assert desk.ledger.retry(task_id) is TaskState.QUEUED
    view = desk.view(task_id)
    assert (view.run, view.error, view.generation, view.shards) == (2, None, None, 0)
    lease = desk.one(Stage.PREPARE)
    assert (lease.task_id, lease.attempts, json.loads(lease.payload)["run"]) == (task_id, 0, 2)
    desk.stage(lease)
    for shard in desk.claim(Stage.EMBED, budget=1000, most=10):
        desk.done(shard)
    desk.commit()
    after = desk.events(task_id)[len(before) :]
    kinds = [event.type.removeprefix("trivet.") for event in after]
    assert kinds == ["ingest.accepted", "ingest.started", "ingest.completed"]
    assert [event.id for event in after] == [event_id(task_id, 2, kind) for kind in kinds]
    assert not {event.id for event in before} & {event.id for event in after}
    assert {event.data["run"] for event in before} == {1}
    assert [sum(event.type.removeprefix("trivet.") in TERMINAL_EVENTS for event in run) for run in (before, after)] == [
        1,
        1,
    ]
    assert desk.ledger.backlog().dead == 0


def test_a_later_run_takes_a_higher_generation(desk: Desk) -> None:
    task_id = desk.staged()
    first = desk.view(task_id).generation
    desk.ledger.cancel(task_id)
    desk.ledger.retry(task_id)
    desk.stage(desk.one(Stage.PREPARE))
    assert first is not None
    assert desk.view(task_id).generation == first + 1


def test_a_retry_waits_behind_the_active_task_of_its_object(desk: Desk) -> None:
    task_id = desk.failed()
    active = desk.accept()
    assert desk.ledger.retry(task_id) is TaskState.WAITING
    assert desk.one(Stage.PREPARE).task_id == active
    assert desk.claim(Stage.PREPARE) == []
    desk.ledger.cancel(active)
    assert desk.one(Stage.PREPARE).task_id == task_id


def test_a_retry_is_the_newest_where_another_waits(desk: Desk) -> None:
    task_id = desk.failed()
    active, waits = desk.accept(), desk.accept()
    desk.ledger.retry(task_id)
    assert [desk.state(t) for t in (active, waits, task_id)] == ["queued", "superseded", "waiting"]
    newest = desk.accept()
    assert [desk.state(t) for t in (task_id, newest)] == ["superseded", "waiting"]
    assert desk.kinds(task_id) == ["accepted", "failed", "accepted", "superseded"]


def test_the_full_url_is_kept_for_a_retry(desk: Desk) -> None:
    task_id = desk.failed()
    desk.ledger.retry(task_id)
    assert json.loads(desk.one(Stage.PREPARE).payload)["url"].endswith("token=hidden")


def test_a_url_that_is_no_longer_known_must_be_given_again(desk: Desk) -> None:
    task_id = desk.failed()
    forget_secrets(desk, task_id)
    with pytest.raises(NotRetryable, match="no longer known"):
        desk.ledger.retry(task_id)
    assert desk.state(task_id) is TaskState.FAILED
    assert desk.ledger.backlog().dead == 1
    given = "https://host/path?token=new"
    assert desk.ledger.retry(task_id, secret_url=given) is TaskState.QUEUED
    assert json.loads(desk.one(Stage.PREPARE).payload)["url"] == given


def test_a_url_that_was_given_for_a_retry_is_a_secret_from_then_on(desk: Desk) -> None:
    task_id = desk.failed(url="https://host/open", secret_url="")
    desk.ledger.retry(task_id, secret_url="https://host/open?token=new")
    desk.ledger.cancel(task_id)
    forget_secrets(desk, task_id)
    with pytest.raises(NotRetryable, match="no longer known"):
        desk.ledger.retry(task_id)


def test_a_url_without_a_query_is_always_known(desk: Desk) -> None:
    task_id = desk.failed(url="https://host/open", secret_url="")
    assert desk.ledger.retry(task_id) is TaskState.QUEUED
    assert json.loads(desk.one(Stage.PREPARE).payload)["url"] == "https://host/open"


def test_retrying_what_runs_changes_nothing(desk: Desk) -> None:
    active, waits = desk.accept(), desk.accept()
    lease = desk.one(Stage.PREPARE)
    assert desk.ledger.retry(active) is TaskState.PREPARING
    assert desk.ledger.retry(waits) is TaskState.WAITING
    desk.stage(lease)
    assert (desk.view(active).run, desk.kinds(active)) == (1, ["accepted", "started"])


def test_only_failed_and_cancelled_tasks_are_run_again(desk: Desk) -> None:
    completed, first = desk.committed("a"), desk.accept("b")
    lease = desk.one(Stage.PREPARE)
    superseded, _ = desk.accept("b"), desk.accept("b")
    desk.ledger.finish(lease, TaskState.SKIPPED, manifest="", receipt=Receipt())
    for task_id, state in ((completed, "completed"), (superseded, "superseded"), (first, "skipped")):
        with pytest.raises(NotRetryable, match=state):
            desk.ledger.retry(task_id)
    with pytest.raises(UnknownTask, match="task_nope"):
        desk.ledger.retry("task_nope")


def test_the_dead_letter_list_is_newest_first_and_of_one_namespace(desk: Desk) -> None:
    failed = []
    for object_id in ("a", "b", "c"):
        failed.append(desk.failed(object_id))
        desk.clock.sleep(0.002)
    desk.failed("other", namespace="other")
    desk.ledger.cancel(desk.accept("d"))
    dead = desk.ledger.dead("ns", 10)
    assert [view.task_id for view in dead] == failed[::-1]
    assert dead[0].error is not None
    assert [view.task_id for view in desk.ledger.dead("ns", 2)] == failed[:0:-1]
    desk.ledger.retry(failed[1])
    assert [view.task_id for view in desk.ledger.dead("ns", 10)] == [failed[2], failed[0]]
    assert desk.ledger.backlog().dead == 3

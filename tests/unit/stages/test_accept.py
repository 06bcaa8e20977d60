"""The door, and the Celery task in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Reject

from tasks.accept import take
from tests.unit.stages.desk import Desk, desk
from trivet.accept import accept, parse_request
from trivet.errors import InvalidRequest, LedgerUnavailable, SourceTooLarge
from trivet.ledger import Accepted, NewTask
from trivet.ledger.memory import MemoryLedger


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as made:
        yield made


def request(**fields: Any) -> dict[str, Any]:
    return {"url": "https://host/a", "collection": "docs", **fields}


def tasks(d: Desk) -> list[str]:
    return [view.object_id for view in d.ledger.tasks("default", collection=None, state=None, limit=100)]


@pytest.mark.parametrize("nothing", [{}, {"idempotency_key": None, "namespace": None, "metadata": None}])
def test_a_message_that_comes_twice_is_one_task(door: Desk, nothing: dict[str, None]) -> None:
    for _ in range(2):
        take(door.ctx, request(**nothing), "message-1")
    take(door.ctx, request(**nothing), "message-2")
    assert len(tasks(door)) == 2


def test_a_key_of_its_own_counts_more_than_the_message(door: Desk) -> None:
    for number in range(3):
        take(door.ctx, request(idempotency_key="mine"), f"message-{number}")
    assert len(tasks(door)) == 1


@pytest.mark.parametrize("body", [None, 7, 7.5, True, "https://host/a", ["https://host/a"], [], {}, {"url": 7}])
def test_what_is_no_request_is_refused_without_an_exception(door: Desk, body: object) -> None:
    take(door.ctx, body, "message-1")
    assert tasks(door) == []


@pytest.mark.parametrize("body", [None, 7, True, "text", ["a"], b"bytes"])
def test_a_request_that_is_no_object_is_invalid(body: object) -> None:
    with pytest.raises(InvalidRequest, match="not an object"):
        parse_request(body)


def test_a_message_waits_for_a_ledger_that_is_away(tmp_path: Path) -> None:
    class Away(MemoryLedger):
        def accept(self, task: NewTask, idempotency_seconds: float, *, encoder_wish: str = "") -> Accepted:
            raise LedgerUnavailable("away")

    with desk(tmp_path, ledger=Away()) as d, pytest.raises(Reject) as caught:
        take(d.ctx, request(), "message-1")
    assert caught.value.requeue


def test_a_request_of_a_newer_version_is_left_for_a_newer_worker(door: Desk) -> None:
    with pytest.raises(Reject) as caught:
        take(door.ctx, request(schema_version=2, of_tomorrow=[1]), "message-1")
    assert caught.value.requeue
    assert tasks(door) == []


def test_a_request_may_say_the_version_that_is_known(door: Desk) -> None:
    take(door.ctx, request(schema_version=1), "message-1")
    take(door.ctx, request(schema_version=None), "message-1")
    assert len(tasks(door)) == 1


@pytest.mark.parametrize("version", [0, -1, "2", True, 1.5, [2]])
def test_what_is_no_version_is_refused(door: Desk, version: object) -> None:
    take(door.ctx, request(schema_version=version), "message-1")
    assert tasks(door) == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"k": "\ud800"},
        {"\udfff": 1},
        {"k": ["a", {"b": "\udc00"}]},
        {"k": float("nan")},
        {"k": [float("inf")]},
        {"k": -float("inf")},
        {"k": {1, 2}},
        {"k": b"bytes"},
    ],
)
def test_metadata_that_json_cannot_hold_is_refused_in_one_sentence(door: Desk, metadata: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        accept(door.ledger, door.settings, parse_request(request(metadata=metadata)))
    assert caught.value.message.count(".") == 1
    caught.value.message.encode()
    assert tasks(door) == []


def test_metadata_that_is_nested_too_deep_is_refused(door: Desk) -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidRequest):
        accept(door.ledger, door.settings, parse_request(request(metadata={"k": deep})))


@pytest.mark.parametrize(("levels", "taken"), [(99, True), (101, False), (300, False), (900, False)])
def test_what_metadata_the_door_takes_every_later_stage_can_write(door: Desk, levels: int, taken: bool) -> None:
    inner: list[Any] = []
    for _ in range(levels - 1):
        inner = [inner]
    take(door.ctx, request(metadata={"a": inner}), "message-1")
    assert len(tasks(door)) == taken


def test_a_url_has_an_end(door: Desk) -> None:
    base = "https://host/"
    accept(door.ledger, door.settings, parse_request(request(url=base + "a" * (8192 - len(base)))))
    with pytest.raises(InvalidRequest, match="8193"):
        accept(door.ledger, door.settings, parse_request(request(url=base + "a" * (8193 - len(base)))))
    accept(door.ledger, door.settings, parse_request(request(url="data:text/plain," + "a" * 9000)))
    with pytest.raises(SourceTooLarge):
        accept(door.ledger, door.settings, parse_request(request(url="data:text/plain," + "a" * 300_000)))


class Twice(MemoryLedger):
    """The connection breaks after the first write, and the client library asks again."""

    def accept(self, task: NewTask, idempotency_seconds: float, *, encoder_wish: str = "") -> Accepted:
        super().accept(task, idempotency_seconds, encoder_wish=encoder_wish)
        return super().accept(task, idempotency_seconds, encoder_wish=encoder_wish)


@pytest.mark.parametrize("key", [None, "mine"])
def test_a_task_is_new_although_its_ledger_was_asked_twice(tmp_path: Path, key: str | None) -> None:
    with desk(tmp_path, ledger=Twice()) as d:
        wanted = parse_request(request(idempotency_key=key))
        assert accept(d.ledger, d.settings, wanted).new
        assert accept(d.ledger, d.settings, wanted).new is (key is None)


def test_a_task_id_that_the_caller_names_again_is_not_new(door: Desk) -> None:
    wanted = parse_request(request())
    assert [accept(door.ledger, door.settings, wanted, task_id="task_1").new for _ in range(2)] == [True, False]

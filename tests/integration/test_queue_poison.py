"""Whatever stands in a queue, no worker dies of it, and every real task completes."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from infra.prose import prose
from tests.support.fleet import Fleet, fleet, wait_for_all
from tests.support.web import Server, answer
from trivet.broker import celery_ringer, make_app, queue_names
from trivet.client import Trivet
from trivet.encoder import load_encoder
from trivet.ledger.queues import served_queues
from trivet.names import ACCEPT_QUEUE, ACCEPT_TASK, ANY, EMBED_TASK, Stage
from trivet.settings import Settings
from trivet.transport import DEAD_BYTES, MOST_BYTES
from trivet.values import TaskState

TASKS = 4


@pytest.fixture
def source() -> Iterator[Server]:
    server = Server({f"/{n}": answer(prose(n, 300).encode(), Content_Type="text/plain") for n in range(3 * TASKS)})
    yield server
    server.close()


@pytest.fixture
def live(settings: Settings, source: Server) -> Settings:
    return settings.model_copy(
        update={
            "model_aliases": {"BAAI/bge-m3": "fake"},
            "allow_addresses": (source.place,),
            "sweep_seconds": 0.2,
            "loop_seconds": 2.0,
        }
    )


@pytest.fixture
def workers(live: Settings) -> Iterator[Fleet]:
    with fleet(live) as made:
        yield made


@pytest.fixture
def broker(live: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(live.redis_url) as client:
        yield client


@pytest.fixture
def client(live: Settings) -> Trivet:
    made = Trivet(settings=live)
    made.create_collection("docs")
    return made


def message(task: Any = EMBED_TASK, body: Any = None, **changes: Any) -> dict[str, Any]:
    """A message as Celery writes it."""
    content = [[], {"door": "any", "bell": ""}, {}] if body is None else body
    made: dict[str, Any] = {
        "body": base64.b64encode(json.dumps(content).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": str(uuid.uuid4()), "retries": 0, "root_id": None},
        "properties": {
            "correlation_id": "c",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "q"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    return made | changes


def without(key: str) -> dict[str, Any]:
    made = message()
    del made[key]
    return made


def with_header(**headers: Any) -> dict[str, Any]:
    made = message()
    return made | {"headers": made["headers"] | headers}


def with_property(**properties: Any) -> dict[str, Any]:
    made = message()
    return made | {"properties": made["properties"] | properties}


def dead() -> list[bytes]:
    """Elements that no worker of any version could run."""
    written: list[Any] = [
        [],
        [1, 2],
        7,
        None,
        "text",
        {},
        without("body"),
        without("properties"),
        without("content-type"),
        message(body={"no": "call"}),
        message(body=[1]),
        message(body="text"),
        message(body=[["a"], ["no kwargs"], {}]),
        message() | {"body": "!!! bad base64"},
        message() | {"body": "YWJ"},
        message() | {"content-type": "application/x-python-serialize"},
        message() | {"content-type": "application/x-unheard-of"},
        message(headers=[1]),
        message(headers=None),
        message(task=["a", "list"]),
        message(task=None),
        with_header(id={"a": 1}),
        with_header(compression="application/x-gzip"),
        with_header(eta=5),
        with_header(expires={"a": 1}),
        with_property(delivery_tag=None),
        with_property(delivery_tag=[1]),
        with_property(delivery_info="text"),
        with_property(body_encoding="rot13"),
        with_property(body_encoding=["base64"]),
        {"__type__": "datetime", "__value__": "no date"},
    ]
    raw = [b"", b"\xff\xfe\x00", b"not json", b"{", b"[" * 100_000, b'"' + b"x" * (MOST_BYTES + 1) + b'"']
    return raw + [json.dumps(each).encode() for each in written]


def noise() -> list[bytes]:
    """Elements that are real calls, and of which nothing may come."""
    written = [
        message(body=[[1, 2, 3], {}, {}]),
        message(body=[[], {"door": {"a": []}, "bell": None}, {}]),
        message(body=[[], {}, {}]),
        message(ACCEPT_TASK, body=[[], {}, {}]),
        message(ACCEPT_TASK, body=[["x", "y"], {"z": 1}, {}]),
        message(ACCEPT_TASK, body=[[{"url": 7}], {}, {"callbacks": 5, "chord": "x"}]),
        with_header(timelimit=["x", 0.001]),
        with_header(retries="many"),
        with_header(expires="not a date"),
        with_property(priority="urgent"),
        with_property(reply_to=5, correlation_id=[1]),
    ]
    return [json.dumps(each).encode() for each in written]


def queues(live: Settings) -> list[str]:
    """The Redis keys of all queues of a prefork worker and an embed worker."""
    encoder = load_encoder(live, live.embed_model)
    keys = served_queues(encoder.identity.encoder_key, encoder.passport.dtype)
    names = [*queue_names(list(Stage), keys), ACCEPT_QUEUE]
    return [f"{live.redis_prefix}celery:{name}" for name in names]


def until(met: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"{met.__name__} was waited for in vain"
        time.sleep(0.05)


def empty(broker: redis.Redis, keys: list[str]) -> bool:
    return not any(broker.llen(key) for key in keys)


def test_garbage_in_the_queues_kills_no_worker_and_costs_no_task(
    workers: Fleet, client: Trivet, source: Server, live: Settings, broker: redis.Redis
) -> None:
    keys, garbage = queues(live), dead() + noise()
    for key in keys:
        broker.lpush(key, *garbage)
    workers.start_all(concurrency=1)
    pids = {name: process.pid for name, process in workers.processes.items()}
    ids = [client.ingest(source.url(f"/{n}"), collection="docs").task_id for n in range(TASKS)]
    for element in garbage:
        for key in keys:
            broker.lpush(key, element)
    ids += [client.ingest(source.url(f"/{n}"), collection="docs").task_id for n in range(TASKS, 2 * TASKS)]
    app = make_app(live)
    sent = [
        app.send_task(ACCEPT_TASK, args=[{"url": source.url(f"/{n}"), "collection": "docs"}], queue=ACCEPT_QUEUE).id
        for n in range(2 * TASKS, 3 * TASKS)
    ]
    app.close()
    assert {view.state for view in wait_for_all(client, ids)} == {TaskState.COMPLETED}
    until(lambda: client.backlog()["states"].get("completed") == 2 * TASKS + len(sent))
    until(lambda: empty(broker, keys))
    for name, process in workers.processes.items():
        assert process.poll() is None, workers.log(name)
        assert process.pid == pids[name]
    graves = broker.lrange(f"{live.redis_prefix}celery:dead", 0, -1)
    assert {element[:DEAD_BYTES] for element in dead() if element[:1] != b"{"} <= set(graves)
    assert len(graves) >= 2 * len(keys) * len(dead())


def test_what_was_left_behind_unreadable_is_buried_and_the_rest_is_put_back(
    workers: Fleet, client: Trivet, source: Server, live: Settings, broker: redis.Redis
) -> None:
    prefix = f"{live.redis_prefix}celery:"
    request = {"url": source.url("/0"), "collection": "docs"}
    left: dict[Any, Any] = {
        b"nojson": b"\xff not json",
        b"number": b"7",
        b"short": b'["a", "b"]',
        b"text": b'["text", "", "trivet.accept"]',
        b"list": b'[[1], "", "trivet.accept"]',
        b"odd": b'[{"headers": 5, "properties": []}, ["x"], {"y": 1}]',
        b"real": json.dumps([message(ACCEPT_TASK, body=[[request], {}, {}]), "", ACCEPT_QUEUE]).encode(),
    }
    broker.hset(f"{prefix}unacked", mapping=left)
    broker.zadd(f"{prefix}unacked_index", {**dict.fromkeys(left, 1.0), b"of nothing": 1.0})
    workers.start_all(concurrency=1)
    until(lambda: client.backlog()["states"].get("completed") == 1)
    until(lambda: broker.hlen(f"{prefix}unacked") == 0)
    assert broker.zcard(f"{prefix}unacked_index") == 0
    for name, process in workers.processes.items():
        assert process.poll() is None, workers.log(name)
    graves = broker.lrange(f"{prefix}dead", 0, -1)
    assert {element for tag, element in left.items() if tag != b"real"} == set(graves)


def test_a_queue_that_is_no_list_stops_nobody_for_good(
    workers: Fleet, client: Trivet, source: Server, live: Settings, broker: redis.Redis
) -> None:
    key = f"{live.redis_prefix}celery:{ACCEPT_QUEUE}"
    broker.set(key, "no list")
    workers.start_all(concurrency=1)
    pids = [process.pid for process in workers.processes.values()]
    until(lambda: "queue.refused" in workers.log("cpu"))
    broker.delete(key)
    task = client.ingest(source.url("/0"), collection="docs")
    assert task.wait(timeout=60).state is TaskState.COMPLETED
    assert [process.pid for process in workers.processes.values() if process.poll() is None] == pids


def test_what_a_newer_worker_knows_is_left_for_it(
    workers: Fleet, client: Trivet, source: Server, live: Settings, broker: redis.Redis
) -> None:
    app = make_app(live)
    app.send_task("trivet.of_tomorrow", args=[1], queue=ACCEPT_QUEUE)
    newer = {"url": source.url("/1"), "collection": "docs", "schema_version": 2, "of_tomorrow": True}
    app.send_task(ACCEPT_TASK, args=[newer], queue=ACCEPT_QUEUE)
    known = {"url": source.url("/2"), "collection": "docs", "schema_version": 1}
    app.send_task(ACCEPT_TASK, args=[known], kwargs={"of_tomorrow": 1}, queue=ACCEPT_QUEUE)
    app.close()
    workers.start_all(concurrency=1)
    until(lambda: client.backlog()["states"].get("completed") == 1)
    until(lambda: "message.unknown_task" in workers.log("cpu"))
    until(lambda: "accept.put_back" in workers.log("cpu"))
    task = client.ingest(source.url("/3"), collection="docs")
    assert task.wait(timeout=60).state is TaskState.COMPLETED

    def waiting() -> set[str]:
        held = broker.hvals(f"{live.redis_prefix}celery:unacked")
        queued = broker.lrange(f"{live.redis_prefix}celery:{ACCEPT_QUEUE}", 0, -1)
        found = [json.loads(each)[0] for each in held] + [json.loads(each) for each in queued]
        return {each["headers"]["task"] for each in found}

    until(lambda: waiting() == {"trivet.of_tomorrow", ACCEPT_TASK})
    assert workers.log("cpu").count("message.unknown_task") < 20, "no hot loop"
    assert broker.llen(f"{live.redis_prefix}celery:dead") == 0


def test_a_ledger_of_another_version_is_left_alone_until_it_is_one_that_is_known(
    workers: Fleet, client: Trivet, source: Server, live: Settings, broker: redis.Redis
) -> None:
    workers.start_all(concurrency=1)
    pids = {name: process.pid for name, process in workers.processes.items()}
    key = f"{live.redis_prefix}schema"
    known = broker.get(key)
    assert known is not None
    broker.set(key, "99")
    ring = celery_ringer(app := make_app(live))
    for _ in range(3):
        ring(Stage.PREPARE, ANY, "")
    until(lambda: "ledger.foreign" in workers.log("cpu"))
    until(lambda: "sweep.failed" in workers.log("sweep"))
    broker.set(key, known)
    app.close()
    task = client.ingest(source.url("/0"), collection="docs")
    assert task.wait(timeout=60).state is TaskState.COMPLETED
    assert workers.log("cpu").count("ledger.foreign") == 1
    assert workers.log("sweep").count("sweep.failed") == 1
    assert {name: process.pid for name, process in workers.processes.items() if process.poll() is None} == pids

"""Redis is wiped under running workers: after a rebuild all tasks end, committed once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from infra.prose import prose
from tests.support.fleet import Fleet, fleet, terminal_events, wait_for_all
from tests.support.web import Server, answer
from trivet.client import Trivet
from trivet.commit import read_pointer
from trivet.parts.reader import read_parts
from trivet.rebuild import rebuild
from trivet.settings import Settings
from trivet.stores import open_store
from trivet.stores.layout import Layout
from trivet.values import TaskState

TASKS = 16


@pytest.fixture
def source() -> Iterator[Server]:
    server = Server({f"/{n}": answer(prose(n, 1500).encode(), Content_Type="text/plain") for n in range(TASKS)})
    yield server
    server.close()


@pytest.fixture
def live(settings: Settings, source: Server) -> Settings:
    return settings.model_copy(
        update={
            "model_aliases": {"BAAI/bge-m3": "fake"},
            "allow_addresses": (source.place,),
            "lease_seconds": 1.5,
            "heartbeat_seconds": 0.3,
            "sweep_seconds": 0.2,
            "retry_base_seconds": 0.05,
            "claim_tokens": 2048,
        }
    )


@pytest.fixture
def workers(live: Settings) -> Iterator[Fleet]:
    with fleet(live) as made:
        yield made


@pytest.mark.long
@pytest.mark.parametrize("durable", [False, True], ids=["plain", "durable accept"])
def test_after_a_wipe_under_load_every_object_is_committed_once(
    durable: bool, workers: Fleet, live: Settings, source: Server
) -> None:
    settings = live.model_copy(update={"durable_accept": durable})
    client = Trivet(settings=settings)
    client.create_collection("docs")
    # Pauses in the shipped code path make sure that some tasks stand in every stage when it happens.
    slow = "embed.after_forward:sleep:0.3,prepare.after_allocate:sleep:0.3"
    workers.start("sweep", "--roles", "sweep")
    workers.start("prepare", "--roles", "prepare", "--concurrency", "1", faults=slow)
    workers.start("embed", "--roles", "embed", faults=slow)
    workers.start("commit", "--roles", "commit", "--concurrency", "1")

    def ingest() -> list[str]:
        urls = [source.url(f"/{n}?key=s3cr3t") for n in range(TASKS)]
        return [client.ingest(url, collection="docs", idempotency_key=f"k{n}").task_id for n, url in enumerate(urls)]

    first = ingest()
    wait_for_mixture(client)
    wipe(settings)
    report = rebuild(settings)
    assert report.damaged == 0
    # What was only accepted is known to its producer alone, who repeats its keys; a durable accept needs no repeat.
    ids = first if durable else ingest()
    views = wait_for_all(client, ids)
    assert {view.state for view in views} <= {TaskState.COMPLETED, TaskState.SKIPPED}, views
    again = ingest()
    assert again == ids
    ended = terminal_events(client)
    assert all(len(ended[task_id]) == 1 for task_id in ids), ended
    committed_once(settings, {view.object_id: view.chunks for view in views})


def committed_once(settings: Settings, objects: dict[str, int]) -> None:
    """By S3 alone: each object is visible, and no chunk is there twice."""
    store, layout = open_store(settings), Layout.of(settings, "default", "docs")
    assert len(objects) == TASKS
    for object_id in objects:
        current = read_pointer(store, layout, object_id)
        assert current is not None
        assert not current.tombstone
    read = read_parts("docs", columns=["chunk_id"], settings=settings, store=store)
    rows = [row for group in read for row in group.table["chunk_id"].to_pylist()]
    assert len(rows) == len(set(rows)) >= sum(objects.values())


def wait_for_mixture(client: Trivet) -> None:
    """Some are through, some are staged, some wait."""
    deadline = time.monotonic() + 60
    wanted = {"completed", "embedding", "queued"}
    while not wanted <= {state for state, n in client.backlog()["states"].items() if n}:
        assert time.monotonic() < deadline, client.backlog()
        time.sleep(0.02)


def wipe(settings: Settings) -> None:
    """All keys of this system, Celery's too, and of no other on the server."""
    with redis.Redis.from_url(settings.redis_url) as held:
        connection: Any = held
        keys = list(connection.scan_iter(f"{settings.redis_prefix}*", count=1000))
        if keys:
            connection.delete(*keys)

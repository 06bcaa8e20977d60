"""Killed at any moment, a worker loses nothing: every task ends committed once, with one terminal event."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.prose import prose
from tests.support.fleet import Fleet, fleet, terminal_events, wait_for_all
from tests.support.web import Server, answer
from trivet.client import Trivet
from trivet.commit import FAULTS, read_manifest, read_pointer
from trivet.parts.reader import read_parts
from trivet.settings import Settings
from trivet.stores import open_store
from trivet.stores.layout import Layout
from trivet.values import TaskState

TASKS = 30


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
            "claim_tokens": 8192,
        }
    )


@pytest.fixture
def workers(live: Settings) -> Iterator[Fleet]:
    with fleet(live) as made:
        yield made


@pytest.fixture
def client(live: Settings) -> Trivet:
    made = Trivet(settings=live)
    made.create_collection("docs")
    return made


def everything_committed_once(client: Trivet, live: Settings, ids: list[str]) -> None:
    """The judgement: read from S3 and the event stream alone."""
    views = wait_for_all(client, ids, seconds=120)
    assert {view.state for view in views} == {TaskState.COMPLETED}, [v for v in views if v.state != "completed"]
    assert terminal_events(client) == {task_id: ["completed"] for task_id in ids}
    store, layout = open_store(live), Layout.of(live, "default", "docs")
    for view in views:
        current = read_pointer(store, layout, view.object_id)
        assert current is not None
        assert current.task_id == view.task_id
        manifest = read_manifest(store, layout, view.object_id, current.generation)
        assert manifest is not None
        assert sorted(part.shard for part in manifest.parts) == list(range(view.shards))
    rows = [
        row
        for group in read_parts("docs", columns=["chunk_id"], settings=live, store=store)
        for row in group.table["chunk_id"].to_pylist()
    ]
    assert len(rows) == len(set(rows)) == sum(view.chunks for view in views)


def ingest_all(client: Trivet, source: Server, count: int = TASKS) -> list[str]:
    return [client.ingest(source.url(f"/{n}"), collection="docs").task_id for n in range(count)]


def wait_for_state(client: Trivet, state: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not client.backlog()["states"].get(state):
        assert time.monotonic() < deadline, client.backlog()
        time.sleep(0.02)


def test_kill_9_of_the_embed_worker_and_of_a_prepare_child_in_mid_run(
    workers: Fleet, client: Trivet, source: Server, live: Settings
) -> None:
    # Pauses in the shipped code path make "in mid-run" certain.
    slow: dict[str, Any] = {"faults": "embed.after_forward:sleep:0.2,prepare.after_allocate:sleep:0.2"}
    workers.start_all(**slow)
    ids = ingest_all(client, source)
    for n in range(3):
        wait_for_state(client, "embedding")
        time.sleep(0.3)
        workers.kill("embed")
        os.kill(workers.children("cpu")[n % 2], signal.SIGKILL)
        workers.start("embed", "--roles", "embed", **(slow if n < 2 else {}))
    everything_committed_once(client, live, ids)


_PREPARE = (
    "prepare.before_allocate",
    "prepare.after_allocate",
    "prepare.after_raw",
    "prepare.before_stage",
    "prepare.after_stage",
    "prepare.before_seal",
    "prepare.after_seal",
    "prepare.before_record",
    "prepare.before_ledger",
    "prepare.after_ledger",
)
_EMBED = (
    "embed.after_claim",
    "embed.after_forward",
    "embed.before_part",
    "embed.after_part",
    "embed.before_ledger",
    "embed.after_ledger",
)
_COMMIT = ("commit.after_committing", *FAULTS, "commit.after_publish", "commit.after_finish")


def test_a_process_killed_between_any_two_steps_loses_nothing(
    workers: Fleet, client: Trivet, source: Server, live: Settings, tmp_path: Path
) -> None:
    # Each place kills one process once, in one run; no task may run out of expiries by being there each time.
    places = (*_PREPARE, *_EMBED, *_COMMIT)
    armed = {
        "faults": ",".join(f"{place}:kill:1:{tmp_path / place}" for place in places),
        "max_expiries": 100,
        "lease_seconds": 1.0,
        "heartbeat_seconds": 0.25,
    }
    workers.start("sweep", "--roles", "sweep", **armed)
    workers.start("cpu", "--roles", "prepare,commit", "--concurrency", "2", **armed)
    workers.start("embed", "--roles", "embed", **armed)
    ids = ingest_all(client, source)
    deadline = time.monotonic() + 150
    while missed := [place for place in places if not (tmp_path / place).exists()]:
        assert time.monotonic() < deadline, f"nobody came by {missed}"
        if workers.processes["embed"].poll() is not None:
            workers.start("embed", "--roles", "embed", **armed)
        time.sleep(0.05)
    if workers.processes["embed"].poll() is not None:
        workers.start("embed", "--roles", "embed", **armed)
    everything_committed_once(client, live, ids)


def test_a_worker_asked_to_stop_gives_its_work_back_uncharged(
    workers: Fleet, client: Trivet, source: Server, live: Settings
) -> None:
    # Leases far longer than the test: only giving back can finish it in time.
    patient: dict[str, Any] = {"lease_seconds": 300.0}
    workers.start_all(faults="embed.after_forward:sleep:0.3", **patient)
    ids = ingest_all(client, source)
    wait_for_state(client, "embedding")
    time.sleep(0.5)
    workers.kill("embed", signal.SIGTERM)
    workers.kill("cpu", signal.SIGTERM)
    assert client.backlog()["leases"] == 0
    workers.start("embed", "--roles", "embed", **patient)
    workers.start("cpu", "--roles", "prepare,commit", "--concurrency", "2", **patient)
    everything_committed_once(client, live, ids)


def test_a_source_that_changes_between_two_fetches_of_one_task_gives_one_version_whole(
    workers: Fleet, client: Trivet, source: Server, live: Settings, tmp_path: Path
) -> None:
    versions = [f"Version {v}. ".encode() + prose(v, 3000).encode() for v in range(2)]
    bodies = iter(versions)
    source.pages["/changing"] = lambda s: s.sendall(answer(next(bodies), Content_Type="text/plain"))
    workers.start("sweep", "--roles", "sweep")
    killed = {"faults": f"prepare.after_seal:kill:1:{tmp_path / 'struck'}"}
    workers.start("cpu", "--roles", "prepare,commit", "--concurrency", "1", **killed)
    workers.start("embed", "--roles", "embed")
    task = client.ingest(source.url("/changing"), collection="docs")
    assert task.wait(timeout=60).state is TaskState.COMPLETED
    groups = read_parts("docs", columns=["text"], settings=live)
    text = " ".join(row for group in groups for row in group.table["text"].to_pylist())
    assert text.split() == versions[1].decode().split()
    assert terminal_events(client)[task.task_id] == ["completed"]


@pytest.mark.parametrize("place", ["embed.after_forward", "embed.before_ledger"])
def test_cancel_while_embedding_leaves_nothing_visible(
    workers: Fleet, client: Trivet, source: Server, live: Settings, place: str
) -> None:
    workers.start_all(faults=f"{place}:sleep:1.0")
    task_id = ingest_all(client, source, 1)[0]
    wait_for_state(client, "embedding")
    time.sleep(0.3)
    assert client.task(task_id).cancel().state is TaskState.CANCELLED
    time.sleep(2.0)
    assert client.task(task_id).status().state is TaskState.CANCELLED
    assert list(read_parts("docs", settings=live)) == []
    assert terminal_events(client) == {task_id: ["cancelled"]}
    assert client.backlog()["staged_tokens"] == {}

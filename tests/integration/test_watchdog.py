"""A forward pass that hangs ends its process, whose work another process does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.prose import prose
from tests.support.fleet import ROOT, Fleet, fleet, terminal_events
from tests.support.web import Server, answer
from trivet.client import Trivet
from trivet.settings import Settings
from trivet.values import TaskState


@pytest.fixture
def source() -> Iterator[Server]:
    server = Server({"/a": answer(prose(1, 1500).encode(), Content_Type="text/plain")})
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
            "forward_seconds": 1.0,
        }
    )


@pytest.fixture
def workers(live: Settings) -> Iterator[Fleet]:
    with fleet(live) as made:
        yield made


def test_a_hung_forward_ends_the_process_and_the_task_completes(
    workers: Fleet, live: Settings, source: Server, tmp_path: Path
) -> None:
    client = Trivet(settings=live)
    client.create_collection("docs")
    hung = {"faults": f"encoder.encode:sleep:600:{tmp_path / 'hung'}"}
    workers.start_all(concurrency=1, **hung)
    task = client.ingest(source.url("/a"), collection="docs")
    embed = workers.processes["embed"]
    assert embed.wait(timeout=60) == 70
    log = workers.log("embed")
    assert "forward.hung" in log
    assert "in encode" in log, "the stacks of all threads"
    workers.start("embed", "--roles", "embed", **hung)
    assert task.wait(timeout=60).state is TaskState.COMPLETED
    assert terminal_events(client)[task.task_id] == ["completed"]


_HANGS = """
import ctypes, time
from trivet.stages import watchdog
watchdog._THREAD_SECONDS = 1.0
dog = watchdog.Watchdog(0.5)
with dog.guard():
    {hang}
"""


@pytest.mark.parametrize(
    ("hang", "status"),
    [
        ("time.sleep(60)", 70),
        # Called with the interpreter's lock in hand: no other Python thread runs any more.
        ("ctypes.PyDLL(None).sleep(60)", 1),
        ("pass", 0),
    ],
)
def test_the_watchdog_ends_whatever_hangs_and_shows_where(hang: str, status: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _HANGS.format(hang=hang)], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert ended.returncode == status, ended.stderr
    assert ("<string>" in ended.stderr) is (status != 0), "the place in the code"


def test_workers_say_which_queues_they_serve(workers: Fleet, live: Settings) -> None:
    client = Trivet(settings=live)
    workers.start("embed", "--roles", "embed")
    told = client.backlog()["workers"]
    (info,) = told.values()
    assert info["roles"] == ["embed"]
    assert len(info["queues"]) == 2, json.dumps(told)

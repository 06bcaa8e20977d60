"""A worker that is told to stop hands back what it holds, uncharged, and is gone in time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import socket

import psutil
import pytest

from infra.prose import prose
from tests.support.fleet import ROOT, Fleet, fleet, terminal_events
from tests.support.web import Server, answer
from trivet.client import Trivet
from trivet.embedded import servers
from trivet.embedded.valkey import Valkey
from trivet.settings import Settings
from trivet.supervisor.workers import environment
from trivet.values import TaskState

#: Leases and doorbells far longer than a test: only handing back can let a task finish.
PATIENT = {"lease_seconds": 300.0, "heartbeat_seconds": 5.0, "sweep_seconds": 0.2, "drain_seconds": 1.0}
CPU = ("--roles", "prepare,commit", "--concurrency")
#: What a worker may take to leave, on a machine that does other things as well.
IN_TIME = 25


class Slow:
    """A page that takes a minute, until it is told to hurry."""

    def __init__(self, over: threading.Event) -> None:
        self.hurry = threading.Event()
        self.asked = threading.Event()
        self._over = over

    def __call__(self, connection: socket) -> None:
        self.asked.set()
        deadline = time.monotonic() + 60
        while not (self.hurry.is_set() or self._over.is_set()) and time.monotonic() < deadline:
            time.sleep(0.02)
        connection.sendall(answer(prose(1, 300).encode(), Content_Type="text/plain"))


@pytest.fixture
def source() -> Iterator[Server]:
    server = Server({})
    yield server
    server.close()


@pytest.fixture
def slow(source: Server) -> Slow:
    made = Slow(source.over)
    source.pages["/slow"] = made
    return made


@pytest.fixture
def live(settings: Settings, source: Server) -> Settings:
    return settings.model_copy(
        update={"model_aliases": {"BAAI/bge-m3": "fake"}, "allow_addresses": (source.place,), **PATIENT}
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


def until(met: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"{met.__name__} was waited for in vain"
        time.sleep(0.02)


def charges(client: Trivet, task_id: str) -> list[tuple[str, str, int, int]]:
    """Stage, state, attempts and expiries of the task's open items."""
    return [(item.stage, item.state, item.attempts, item.expiries) for item in client.task(task_id).why().first]


def leave(process: subprocess.Popen[bytes], *, times: int = 1, group: bool = False) -> int:
    """SIGTERM, to its children too if they are told (as systemd does), and the exit status."""
    if group:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    for _ in range(times - 1):
        # Two signals at once are one.
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
    return process.wait(timeout=IN_TIME)


@pytest.mark.parametrize(
    ("times", "group"),
    [
        pytest.param(1, False, id="once"),
        pytest.param(2, False, id="twice", marks=pytest.mark.long),
        pytest.param(1, True, id="all"),
    ],
)
def test_a_slow_source_is_handed_back_and_taken_up_by_another(
    workers: Fleet, client: Trivet, source: Server, live: Settings, slow: Slow, times: int, group: bool
) -> None:
    workers.start("sweep", "--roles", "sweep")
    first = workers.start("cpu", *CPU, "2")
    task = client.ingest(source.url("/slow"), collection="docs")
    assert slow.asked.wait(30)
    below = psutil.Process(first.pid).children(recursive=True)
    assert leave(first, times=times, group=group) == 0, workers.log("cpu")
    assert charges(client, task.task_id) == [("prepare", "pending", 0, 0)]
    assert client.backlog()["leases"] == 0
    psutil.wait_procs(below, timeout=10)
    assert [each for each in below if each.is_running()] == []
    slow.hurry.set()
    workers.start("second", *CPU, "1")
    workers.start("embed", "--roles", "embed")
    assert task.wait(timeout=60).state is TaskState.COMPLETED
    assert terminal_events(client)[task.task_id] == ["completed"]


def test_a_long_parse_is_handed_back_and_its_process_ends(
    workers: Fleet, client: Trivet, source: Server, live: Settings
) -> None:
    source.pages["/long"] = answer(b"<html><body>" + b"<p>some words</p>" * 50_000, Content_Type="text/html")
    workers.start("sweep", "--roles", "sweep")
    first = workers.start("cpu", *CPU, "1")
    task = client.ingest(source.url("/long"), collection="docs")

    def parser() -> list[psutil.Process]:
        found = psutil.Process(first.pid).children(recursive=True)
        return [each for each in found if "trivet.parse.child" in " ".join(each.cmdline())]

    until(parser)
    below = psutil.Process(first.pid).children(recursive=True)
    # As good as a document that takes for ever.
    stopped = parser()
    for each in stopped:
        each.suspend()
    assert leave(first) == 0, workers.log("cpu")
    assert charges(client, task.task_id) == [("prepare", "pending", 0, 0)]
    for each in stopped:
        each.resume()
    psutil.wait_procs(below, timeout=20)
    assert [each for each in below if each.is_running()] == []


def test_a_child_that_is_told_to_stop_finishes_a_document_that_is_nearly_done(
    workers: Fleet, client: Trivet, source: Server, live: Settings, slow: Slow
) -> None:
    workers.start("sweep", "--roles", "sweep")
    first = workers.start("cpu", *CPU, "1", drain_seconds=20.0)
    task = client.ingest(source.url("/slow"), collection="docs")
    assert slow.asked.wait(30)
    first.send_signal(signal.SIGTERM)
    until(lambda: "Warm shutdown" in workers.log("cpu"))
    slow.hurry.set()
    assert first.wait(timeout=IN_TIME) == 0
    assert "drain.cut" not in workers.log("cpu")
    assert task.status().state is TaskState.EMBEDDING


@pytest.mark.parametrize(
    "silent", [pytest.param(False, id="refused", marks=pytest.mark.long), pytest.param(True, id="silent")]
)
def test_a_worker_leaves_in_time_although_redis_is_away(
    live: Settings, tmp_path: Path, source: Server, slow: Slow, silent: bool
) -> None:
    server = Valkey(tmp_path / "valkey", log=tmp_path / "valkey.log", max_bytes=64 << 20, rng=random.Random(1))
    with servers.running(server):
        assert server.child is not None
        own = live.model_copy(update={"redis_url": server.url})
        client = Trivet(settings=own)
        client.create_collection("docs")
        with fleet(own) as workers:
            workers.start("cpu", *CPU, "2")
            workers.start("embed", "--roles", "embed")
            workers.start("sweep", "--roles", "sweep")
            client.ingest(source.url("/slow"), collection="docs")
            assert slow.asked.wait(30)
            os.kill(server.child.pid, signal.SIGSTOP if silent else signal.SIGKILL)
            processes = list(workers.processes.values())
            for process in processes:
                process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + IN_TIME
            for name, process in workers.processes.items():
                assert process.wait(max(0.1, deadline - time.monotonic())) == 0, (name, workers.log(name))


def test_loops_share_a_process_and_leave_together(workers: Fleet) -> None:
    process = workers.start("loops", "--roles", "sweep,gc,deliver")
    assert leave(process) == 0, workers.log("loops")
    assert "loop.crashed" not in workers.log("loops")


_CRASHES = """
import sys
from trivet.names import Role
from workers import loops, main
loops.LOOPS[Role.GC] = lambda *_: 1 / 0
sys.exit(main.main(["--roles", "sweep,gc"]))
"""


def test_a_loop_that_crashes_ends_its_process_for_the_supervisor_to_restart(live: Settings) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _CRASHES],
        cwd=ROOT,
        env=environment(live, os.environ),
        capture_output=True,
        text=True,
        timeout=IN_TIME,
    )
    assert ended.returncode == 70
    assert "loop.crashed" in ended.stdout + ended.stderr

"""A whole system comes up, stays up, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import RedisError

from tests.support.supervised import caller, processes_of, read_until, shell, wait_until, wait_until_gone
from trivet.client import Trivet
from trivet.embedded.process import ProcessId
from trivet.errors import MissingDependency, StartFailed
from trivet.settings import Settings
from trivet.stores import open_store
from trivet.supervisor import Phase, Status, WorkerSpec, connected_settings, down, running, status, up
from trivet.supervisor.roots import find_root
from trivet.values import Pipeline, TaskState

SLEEPER = shell("sleeper", "exec sleep 1000")
READY = shell("ready", "sleep 0.2; touch $TRIVET_READY_FILE; exec sleep 1000", ready=True)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A state folder; whatever a failed test leaves running in it is killed."""
    made = tmp_path / "system"
    yield made
    for pid in processes_of(made):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def alone(folder: Path) -> Settings:
    """Settings of a system that brings its own servers."""
    return Settings(state_dir=folder, model_hub=False, stop_seconds=20.0)


@pytest.fixture
def served(settings: Settings, folder: Path) -> Settings:
    """Settings of a system that uses the tests' servers, so that it is up at once."""
    return settings.model_copy(update={"state_dir": folder, "stop_seconds": 20.0})


def pids(found: Status) -> dict[str, int]:
    return {process.name: process.pid for process in found.processes}


def test_up_brings_servers_and_workers_that_down_ends(alone: Settings, folder: Path) -> None:
    steps: list[str] = []
    first = up(alone, workers=[READY, SLEEPER], progress=steps.append)
    assert first.phase is Phase.UP
    assert [process.name for process in first.processes] == ["valkey", "s3", "ready", "sleeper"]
    assert all(process.ready and process.restarts == 0 for process in first.processes)
    assert steps == ["starting valkey", "starting s3", "starting worker ready", "starting worker sleeper"]
    # A second call finds it as it is.
    assert up(alone, workers=[READY]) == first == status(alone)

    here = connected_settings(alone)
    with Redis.from_url(here.redis_url) as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.set("kept", "1")
    open_store(here).put("kept", b"bytes")

    assert down(alone)
    assert not processes_of(folder)
    assert status(alone).phase is Phase.DOWN
    assert not down(alone)
    assert connected_settings(alone) == alone

    # What was stored is there again, under the same addresses and keys.
    with running(alone, workers=[]) as again:
        assert again == here
        with Redis.from_url(again.redis_url) as client:
            assert client.get("kept") == b"1"
        assert open_store(again).get("kept")[0] == b"bytes"
    assert not processes_of(folder)


def test_two_systems_stand_side_by_side(alone: Settings, tmp_path: Path) -> None:
    other = alone.model_copy(update={"state_dir": tmp_path / "other"})
    with running(alone, workers=[]) as one, running(other, workers=[]) as two:
        assert one.redis_url != two.redis_url
        assert one.s3_endpoint != two.s3_endpoint
        assert one.s3_secret_key != two.s3_secret_key
        open_store(one).put("mine", b"1")
        assert not list(open_store(two).list(""))


@pytest.mark.parametrize("moment", ["starting valkey", "starting s3", "starting worker ready"])
@pytest.mark.parametrize("detach", [False, True])
def test_ctrl_c_in_a_start_leaves_nothing(folder: Path, clean_env: dict[str, str], moment: str, detach: bool) -> None:
    with caller(clean_env, detach=detach, workers=(READY,), state_dir=str(folder)) as process:
        read_until(process, moment)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == (130 if detach else 0)
        assert not processes_of(folder)


def test_ctrl_c_ends_a_foreground_system(served: Settings, folder: Path, clean_env: dict[str, str]) -> None:
    env = clean_env | {"TRIVET_REDIS_URL": served.redis_url, "TRIVET_S3_ENDPOINT": served.s3_endpoint}
    with caller(env, detach=False, workers=(READY,), state_dir=str(folder)) as process:
        wait_until(lambda: status(served).phase is Phase.UP, "up")
        process.send_signal(signal.SIGINT)
        read_until(process, "left down")
        assert process.wait(60) == 0
        assert not processes_of(folder)


def test_a_second_ctrl_c_cuts_the_grace_short(served: Settings, folder: Path, clean_env: dict[str, str]) -> None:
    stubborn = shell("stubborn", "trap '' TERM; touch $TRIVET_READY_FILE; while :; do sleep 1; done", ready=True)
    env = clean_env | {"TRIVET_REDIS_URL": served.redis_url, "TRIVET_S3_ENDPOINT": served.s3_endpoint}
    with caller(env, detach=False, workers=(stubborn,), state_dir=str(folder), stop_seconds=10_000.0) as process:
        wait_until(lambda: status(served).phase is Phase.UP, "up")
        process.send_signal(signal.SIGINT)
        wait_until(lambda: status(served).phase is Phase.STOPPING, "stopping")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not processes_of(folder)


def test_kill_9_of_the_supervisor_leaves_nothing_and_up_works_again(alone: Settings, folder: Path) -> None:
    found = up(alone, workers=[READY])
    assert len(processes_of(folder)) >= 4
    os.kill(found.pid, signal.SIGKILL)
    wait_until_gone(folder)
    assert status(alone).phase is Phase.DOWN
    assert not down(alone)
    assert up(alone, workers=[READY]).phase is Phase.UP
    assert down(alone)
    assert not processes_of(folder)


@pytest.mark.parametrize("moment", ["starting s3", "starting worker ready"])
def test_kill_9_of_the_caller_in_a_start_leaves_nothing(folder: Path, clean_env: dict[str, str], moment: str) -> None:
    waits = shell("ready", "exec sleep 1000", ready=True)
    with caller(clean_env, detach=True, workers=(waits,), state_dir=str(folder)) as process:
        read_until(process, moment)
        process.kill()
        process.wait()
        wait_until_gone(folder)


def test_a_worker_that_dies_is_started_again_and_counted(served: Settings, folder: Path) -> None:
    before = up(served, workers=[READY, SLEEPER])
    try:
        os.kill(pids(before)["sleeper"], signal.SIGKILL)
        wait_until(lambda: status(served).processes[1].restarts == 1 and status(served).processes[1].ready, "restart")
        after = status(served)
        assert after.processes[1].detail == "was killed by signal 9"
        assert pids(after)["sleeper"] != pids(before)["sleeper"]
        assert after.processes[0] == before.processes[0]
    finally:
        down(served)
    assert not processes_of(folder)


def test_a_server_that_dies_comes_back_where_it_was(alone: Settings) -> None:
    with running(alone, workers=[SLEEPER]) as here:
        with Redis.from_url(here.redis_url) as client:
            client.set("kept", "1")
            client.execute_command("WAITAOF", 1, 0, 5000)
        os.kill(pids(status(alone))["valkey"], signal.SIGKILL)
        wait_until(lambda: status(alone).processes[0].restarts == 1, "restart")
        assert connected_settings(alone) == here

        def answers() -> bool:
            try:
                with Redis.from_url(here.redis_url) as client:
                    return bool(client.get("kept") == b"1")
            except RedisError:
                return False

        wait_until(answers, "the server and what it held")


def test_a_worker_that_cannot_start_is_named_with_its_last_words(served: Settings, folder: Path) -> None:
    broken = shell("embed", "echo noise; echo 'no model there' >&2; exit 3", ready=True)
    with pytest.raises(StartFailed) as raised:
        up(served, workers=[READY, broken])
    assert raised.value.message == "Worker embed ended with status 3: no model there"
    assert str(folder / "logs" / "embed.log") in raised.value.hint
    assert not processes_of(folder)


def test_a_server_that_cannot_start_is_named_with_its_last_words(alone: Settings, folder: Path) -> None:
    (folder / "valkey" / "appendonlydir").mkdir(parents=True)
    (folder / "valkey" / "appendonlydir" / "appendonly.aof.manifest").write_text("no manifest\n")
    with pytest.raises(StartFailed, match=r"^valkey ended with status 1 before it answered: .*AOF manifest"):
        up(alone, workers=[])
    assert not processes_of(folder)


def test_a_folder_that_is_in_use_is_not_started_twice(served: Settings, folder: Path) -> None:
    found = up(served, workers=[SLEEPER])
    try:
        with pytest.raises(StartFailed, match="up already"):
            up(served, workers=[SLEEPER], detach=False)
        assert status(served) == found
    finally:
        down(served)


def test_workers_end_before_the_servers_that_they_use(alone: Settings, folder: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, time; from pathlib import Path; from redis import Redis\n"
        "def end(*_):\n"
        "    time.sleep(0.5)\n"
        "    with Redis.from_url(os.environ['TRIVET_REDIS_URL']) as client:\n"
        f"        Path({str(tmp_path / 'last')!r}).write_text(str(client.ping()))\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "Path(os.environ['TRIVET_READY_FILE']).touch()\n"
        "while True: time.sleep(1)\n"
    )
    up(alone, workers=[WorkerSpec("last", (sys.executable, "-c", script), ready=True)])
    down(alone)
    assert (tmp_path / "last").read_text() == "True"
    assert not processes_of(folder)


@pytest.mark.parametrize("how", ["down", "kill -9 of the worker"])
def test_what_a_worker_started_does_not_outlive_it(served: Settings, folder: Path, how: str) -> None:
    script = "setsid sleep 1001 & sleep 1002 & touch $TRIVET_READY_FILE; wait"
    found = up(served, workers=[shell("parent", script, ready=True)])
    try:
        assert {"sleep 1001 ", "sleep 1002 "} <= set(processes_of(folder).values())
        if how != "down":
            os.kill(pids(found)["parent"], signal.SIGKILL)
            wait_until(lambda: status(served).processes[0].restarts == 1, "restart")
            assert list(processes_of(folder).values()).count("sleep 1002 ") <= 1
    finally:
        down(served)
    assert not processes_of(folder)


def test_a_process_that_got_an_old_pid_is_not_killed(served: Settings, folder: Path) -> None:
    up(served, workers=[SLEEPER])
    state = (folder / "run" / "state.json").read_text()
    assert down(served)
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        known = json.loads(state)
        known["pid"] = known["processes"][0]["pid"] = bystander.pid
        (folder / "run" / "state.json").write_text(json.dumps(known))
        assert status(served).phase is Phase.DOWN
        assert not down(served)
        assert bystander.poll() is None
        assert ProcessId.of(bystander.pid).alive()
    finally:
        bystander.kill()
        bystander.wait()


def test_keys_that_the_caller_brought_are_in_no_file(served: Settings, folder: Path) -> None:
    secret = served.s3_secret_key.get_secret_value()
    up(
        served,
        workers=[shell("told", 'test -n "$TRIVET_S3_SECRET_KEY" && touch $TRIVET_READY_FILE; sleep 999', ready=True)],
    )
    try:
        assert not [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        assert (folder / "endpoints.json").stat().st_mode & 0o777 == 0o600
    finally:
        down(served)


def test_keys_of_the_embedded_server_are_its_owners_alone(alone: Settings, folder: Path) -> None:
    with running(alone, workers=[]) as here:
        secret = here.s3_secret_key.get_secret_value().encode()
        holders = [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
        assert holders == [folder / "s3" / "credentials.json"]
        assert holders[0].stat().st_mode & 0o777 == 0o600


def test_what_was_set_explicitly_wins_over_what_runs(alone: Settings) -> None:
    with running(alone, workers=[]) as here:
        elsewhere = Settings(state_dir=alone.state_dir, redis_url="redis://elsewhere:1/0")
        found = connected_settings(elsewhere)
        assert found.redis_url == "redis://elsewhere:1/0"
        assert found.s3_endpoint == here.s3_endpoint
        keyed = Settings(state_dir=alone.state_dir, s3_access_key="mine", s3_secret_key=SecretStr("mine"))
        assert connected_settings(keyed).s3_access_key == "mine"
        assert connected_settings(keyed).s3_endpoint == ""


def test_a_wheel_alone_says_that_it_cannot_run_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivet.__file__", str(tmp_path / "site-packages" / "trivet" / "__init__.py"))
    with pytest.raises(MissingDependency, match="library alone"):
        find_root(tmp_path)


def test_the_real_workers_take_a_task(alone: Settings, folder: Path, tmp_path: Path) -> None:
    settings = alone.model_copy(
        update={
            "model_aliases": {"BAAI/bge-m3": "fake"},
            "allow_file_urls": True,
            "cpu_concurrency": 1,
            "embed_workers": 1,
        }
    )
    source = tmp_path / "a.md"
    source.write_text("# Title\n\nSome text.\n" * 20)
    with running(settings) as here:
        assert [process.name for process in status(settings).processes] == [
            "valkey",
            "s3",
            "cpu",
            "embed",
            "sweep",
            "deliver",
            "search",
        ]
        client = Trivet(settings=here)
        client.create_collection("docs", pipeline=Pipeline())
        view = client.ingest(source.as_uri(), collection="docs").wait(timeout=120)
        assert view.state is TaskState.COMPLETED, view
    assert not processes_of(folder)

"""Child processes end with their parent, and are never confused with others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.supervised import processes_of, wait_until
from trivet.embedded.process import Child, ProcessId, spawn
from trivet.embedded.seaweedfs import credentials
from trivet.errors import StartFailed


def started(script: str, tmp_path: Path) -> Child:
    return spawn("child", ["/bin/sh", "-c", script], log=tmp_path / "child.log", env={"HERE": str(tmp_path)})


def finished(child: Child) -> int:
    wait_until(lambda: not child.running(), "an end")
    return child.end()


def test_output_goes_to_the_log_and_the_last_line_is_of_this_run(tmp_path: Path) -> None:
    assert finished(started("echo old", tmp_path)) == 0
    silent = started("true", tmp_path)
    assert finished(silent) == 0
    assert silent.last_line() == ""
    loud = started("echo one; printf '\\033[1mtwo\\n\\n'; exit 4", tmp_path)
    assert finished(loud) == 4
    assert loud.last_line() == "[1mtwo"
    assert (tmp_path / "child.log").read_text().startswith("old\none\n")


def test_stop_ends_the_whole_group_even_if_it_will_not(tmp_path: Path) -> None:
    child = started("trap '' TERM; sleep 1001 & touch $HERE/on; while :; do sleep 1; done", tmp_path)
    wait_until(lambda: (tmp_path / "on").exists(), "the trap")
    assert child.stop(grace_seconds=0.1) == -signal.SIGKILL
    assert child.stop() == -signal.SIGKILL
    wait_until(lambda: not processes_of(tmp_path), "an end of all")


def test_a_child_gets_the_signals_that_its_parent_ignores(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert started("kill -TERM $$; sleep 1000", tmp_path).process.wait() == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_kill_9_of_the_parent_ends_the_child(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from trivet.embedded.process import spawn\n"
        f"here = Path({str(tmp_path)!r})\n"
        "child = spawn('c', ['/bin/sleep', '1000'], log=here / 'log', env={'HERE': str(here)})\n"
        "print(child.pid, flush=True); time.sleep(1000)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = ProcessId.of(int(parent.stdout.readline()))
    assert child.alive()
    parent.kill()
    parent.communicate()
    wait_until(lambda: not child.alive(), "the end of the child")


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="/no/such is not an executable file"):
        spawn("child", ["/no/such"], log=tmp_path / "log", env={})


def test_a_process_is_known_by_its_start_too() -> None:
    me = ProcessId.of(os.getpid())
    assert me.alive()
    assert not ProcessId(me.pid, me.started + 1).alive()
    assert not ProcessId(me.pid, me.started + 1).signal(signal.SIGKILL)
    child = subprocess.Popen(["true"])
    known = ProcessId.of(child.pid)
    wait_until(lambda: not known.alive(), "a zombie counts as gone")
    child.wait()
    assert not known.signal(signal.SIGKILL)


def test_keys_are_random_kept_and_private(tmp_path: Path) -> None:
    first = credentials(tmp_path / "a" / "keys.json")
    assert credentials(tmp_path / "a" / "keys.json") == first
    assert credentials(tmp_path / "b" / "keys.json") != first
    assert (tmp_path / "a" / "keys.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "a" / "keys.json").write_text("{")
    assert credentials(tmp_path / "a" / "keys.json") != first

"""Fault hooks."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.errors import EncoderOutOfMemory, InvalidRequest, TransientError
from trivet.faults import arm, arm_all, disarm, fault


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    disarm()


def test_nothing_happens_where_nothing_is_armed() -> None:
    fault("commit.before_manifest")
    arm_all("")


def test_an_armed_action_runs_each_time_at_its_own_name_only() -> None:
    seen: list[int] = []
    arm("here", lambda: seen.append(1))
    fault("there")
    fault("here")
    fault("here")
    assert seen == [1, 1]
    disarm()
    fault("here")
    assert seen == [1, 1]


def test_a_raise_strikes_at_its_nth_time_only() -> None:
    arm_all("a:raise:2, b:raise")
    fault("a")
    with pytest.raises(TransientError, match="'a'"):
        fault("a")
    fault("a")
    with pytest.raises(TransientError):
        fault("b")


def test_a_marker_lets_only_one_strike_in_all(tmp_path: Path) -> None:
    text = f"a:raise:1:{tmp_path / 'struck'}"
    arm_all(text)
    with pytest.raises(TransientError):
        fault("a")
    disarm()
    arm_all(text)
    fault("a")


def test_a_sleep_pauses_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("trivet.faults.time.sleep", slept.append)
    arm_all("a:sleep:1.5")
    fault("a")
    fault("a")
    assert slept == [1.5, 1.5]


def test_a_kill_ends_the_process_there_and_then(tmp_path: Path) -> None:
    marker = tmp_path / "struck"
    code = (
        "import sys; from trivet.faults import *; arm_all(sys.argv[1]); fault('a'); print('1'); fault('a'); print('2')"
    )
    command = [sys.executable, "-u", "-c", code, f"a:kill:2:{marker}"]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, "1\n")
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout) == (0, "1\n2\n")


@pytest.mark.parametrize("text", ["a", "a:explode", ":kill", "a:kill:soon", "a:sleep", "a:sleep:long", "a:raise:-"])
def test_what_is_no_fault_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InvalidRequest, match="TRIVET_FAULTS"):
        arm_all(text)


def test_out_of_memory_comes_every_nth_time_and_is_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    arm_all(f"a:oom:2:{log}")
    for _ in range(2):
        fault("a")
        with pytest.raises(EncoderOutOfMemory):
            fault("a")
    assert log.stat().st_size == 2


def test_a_poison_kills_only_whoever_works_on_that_text() -> None:
    script = (
        "from trivet.faults import arm_all, fault\n"
        "arm_all('a:kill-if:POISON')\n"
        "fault('a'); fault('a', lambda: 'healthy'); fault('b', lambda: 'POISON')\n"
        "print('alive', flush=True)\n"
        "fault('a', lambda: 'some POISON here')\n"
        "print('still alive', flush=True)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == ("alive\n", -signal.SIGKILL)


@pytest.mark.parametrize("text", ["a:oom", "a:oom:0:/log", "a:oom:2", "a:kill-if", "a:kill-if:"])
def test_the_newer_verbs_want_what_they_need(text: str) -> None:
    with pytest.raises(InvalidRequest, match="which is no fault"):
        arm_all(text)

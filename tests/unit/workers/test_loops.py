"""Loops side by side in one process, and which roles go together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from unittest.mock import Mock

import pytest

from trivet.names import STAGE_ROLES, Role
from trivet.settings import Settings
from workers.loops import LOOPS, Loop, run_loops
from workers.main import main


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, drain_seconds=0.0)


def test_every_role_is_a_stage_or_has_a_loop() -> None:
    assert set(LOOPS) == set(Role) - STAGE_ROLES


def test_loops_run_side_by_side_until_told_to_stop(settings: Settings) -> None:
    meeting, stop = threading.Barrier(3), threading.Event()
    ready: list[bool] = []

    def loop(_: Settings, stopping: Callable[[], bool]) -> None:
        meeting.wait(10)
        while not stopping():
            stop.wait(0.01)

    def meet() -> None:
        ready.append(True)
        meeting.wait(10)
        stop.set()

    ended: list[int] = []
    run_loops(settings, {"one": loop, "two": loop}, stop.is_set, meet, exit=ended.append)
    assert ready == [True]
    assert ended == []


def crashing(_: Settings, __: Callable[[], bool]) -> NoReturn:
    raise ValueError("a bug")


def leaving(_: Settings, __: Callable[[], bool]) -> None:
    return


def exiting(_: Settings, __: Callable[[], bool]) -> NoReturn:
    raise SystemExit(0)


@pytest.mark.parametrize("bad", [crashing, leaving, exiting])
def test_a_loop_that_ends_unasked_ends_the_process_so_that_it_is_started_anew(settings: Settings, bad: Loop) -> None:
    over = threading.Event()
    ended: list[int] = []

    def exit_(status: int) -> None:
        ended.append(status)
        over.set()

    def good(_: Settings, stopping: Callable[[], bool]) -> None:
        while not stopping():
            over.wait(0.01)

    run_loops(settings, {"bad": bad, "good": good}, over.is_set, lambda: None, exit=exit_)
    assert ended[0] == 70


def test_a_loop_that_does_not_stop_is_left(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.loops._GRACE_SECONDS", 0.1)
    over = threading.Event()
    ended: list[int] = []

    def deaf(*_: object) -> None:
        over.wait(30)

    run_loops(settings, {"deaf": deaf}, lambda: True, lambda: None, exit=ended.append)
    over.set()
    assert ended == [0]


@pytest.mark.parametrize("roles", ["sweep,embed", "prepare,gc", "prepare,deliver,commit"])
def test_a_loop_beside_a_stage_is_refused_in_one_sentence(
    roles: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("configure", "bind_process", "setup_logging"):
        monkeypatch.setattr(f"workers.main.{name}", Mock())
    assert main(["--roles", roles]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "runs in another process" in said

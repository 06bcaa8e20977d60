"""Servers are started and waited for."""

from __future__ import annotations

from pathlib import Path

import pytest

from trivet.clock import ManualClock
from trivet.embedded import servers
from trivet.embedded.process import Child, spawn
from trivet.errors import StartFailed


class Deaf:
    """A server that says that it is up, and answers nothing."""

    name = "deaf"
    child: Child | None = None

    def __init__(self, log: Path) -> None:
        self.log = log

    def start(self) -> Child:
        self.child = spawn(self.name, ["/bin/sh", "-c", "echo all is well; sleep 1000"], log=self.log, env={})
        return self.child

    def ready(self) -> str:
        return "it answered 500"

    def settings(self) -> dict[str, object]:
        return {}

    def clean_up(self) -> None:
        """Nothing."""


def test_a_server_that_lives_and_does_not_answer_is_ended_and_named_with_what_it_answered(tmp_path: Path) -> None:
    deaf = Deaf(tmp_path / "log")
    with pytest.raises(StartFailed, match=r"^deaf did not answer within 180 seconds: it answered 500") as raised:
        servers.start(deaf, clock=ManualClock())
    assert str(deaf.log) in raised.value.hint
    assert deaf.child is None

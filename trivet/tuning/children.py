"""The processes that are measured, as their parent holds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Self

from trivet.errors import StartFailed
from trivet.settings import Settings
from trivet.supervisor.workers import environment
from trivet.tuning.child import Answer, Loaded, Order


class Child:
    """One encoder in a process of its own, with the environment that an embed worker gets."""

    def __init__(self, settings: Settings, dtype: str, lengths: Sequence[int]) -> None:
        mine = settings.model_copy(update={"dtype": dtype, "force_dtype": True, "encoder_threads": 1})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trivet.tuning.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(mine, os.environ) | {"OMP_WAIT_POLICY": "PASSIVE"},
            text=True,
            # Ctrl-C is for the parent, which ends it.
            start_new_session=True,
        )
        self._send(json.dumps(list(lengths)))

    def loaded(self) -> Loaded:
        """Wait until it has loaded. Raises `StartFailed` with its reason."""
        answer = self._answer()
        if answer.loaded is None:
            raise StartFailed(answer.error, hint=answer.hint)
        return answer.loaded

    def start(self, order: Order) -> None:
        """Let it begin."""
        self._send(order.model_dump_json())

    def seconds(self) -> float | None:
        """Wait for the end of the order: how long it took, or None where it ran out of memory."""
        return self._answer().seconds

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _answer(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return Answer.model_validate_json(line)

    def _ended(self) -> StartFailed:
        status = self._process.wait()
        return StartFailed(f"An encoder process that was measured ended with status {status}.")

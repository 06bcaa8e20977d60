"""The supervisor process: reads its plan from standard input, tells its caller how the start goes, and stays.

Standard output carries one JSON line per step, until the system is up or has failed.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from contextlib import suppress

from trivet.errors import TrivetError
from trivet.supervisor.plan import Plan
from trivet.supervisor.stopping import StopRequest
from trivet.supervisor.supervise import Supervisor

_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Exit status 0 after an orderly end, 1 where the system could not start."""
    stop = StopRequest(sys.stdin.fileno())
    stop.listen()
    # What a killed worker leaves behind becomes ours, so that it can be ended too.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        plan = Plan.parse(_line(sys.stdin.fileno()))
        Supervisor(plan, stop, dict(os.environ), _report).run()
    except TrivetError as error:
        _tell({"kind": "failed", "code": error.code, "message": error.message, "hint": error.hint})
        return 1
    return 0


def _line(pipe: int) -> bytes:
    """One line, and not a byte more: what follows is for the stop request."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(pipe, 1)
        if not byte:
            sys.exit(0)
        line += byte
    return bytes(line)


def _report(kind: str, message: str) -> None:
    _tell({"kind": kind, "message": message})
    if kind == "up":
        # The caller may go now; nobody reads this pipe any more.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _tell(value: dict[str, str]) -> None:
    with suppress(OSError):
        os.write(sys.stdout.fileno(), json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())

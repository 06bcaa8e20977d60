"""The API beside a running system, for the length of a block."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.errors import StartFailed
from trivet.settings import Settings
from trivet.supervisor.workers import environment

_ROOT = Path(__file__).parent.parent.parent
_SECONDS = 60.0


@contextmanager
def api_of(settings: Settings) -> Iterator[str]:
    """Serve it on a free port of this machine; gives its address. Raises `StartFailed`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    base, log = f"http://127.0.0.1:{port}", settings.state_dir / "api.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "trivet.cli", "serve", "--port", str(port)],
            cwd=_ROOT,
            env=environment(settings, os.environ),
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + _SECONDS
        while not _answers(base):
            if process.poll() is not None or time.monotonic() > deadline:
                raise StartFailed("The API did not come up.", hint=f"See {log}.")
            time.sleep(0.1)
        yield base
    finally:
        process.terminate()
        process.wait(30)


def _answers(base: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base}/health/live", timeout=5) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False

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
from trivet.keys import EVERY_NAMESPACE, Scope
from trivet.keys.service import Keys
from trivet.settings import Settings
from trivet.supervisor.workers import environment

_ROOT = Path(__file__).parent.parent
_SECONDS = 60.0


@contextmanager
def api_of(settings: Settings) -> Iterator[str]:
    """Serve it on a free port of this machine; gives its address. Raises `StartFailed`."""
    port = free_port()
    with api_on(settings, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def api_on(settings: Settings, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve it on this port; gives its process, which answers, and may be killed. Raises `StartFailed`."""
    log = settings.state_dir / "api.log"
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
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise StartFailed("The API did not come up.", hint=f"See {log}.")
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def admin_key(settings: Settings) -> str:
    """A key that may do everything, and stands in no namespace's list, so that no request can end it."""
    keys = Keys(settings)
    try:
        return keys.create(EVERY_NAMESPACE, name="infra", scopes=[Scope.ADMIN])[1]
    finally:
        keys.close()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=5) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False

"""The API as a process of its own, as it is served."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.support.fleet import ROOT
from trivet.settings import Settings
from trivet.supervisor.workers import environment


@dataclass
class Api:
    """A running API, and a client of it."""

    url: str
    http: httpx2.Client
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it as a machine that loses its power does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def get(self, path: str, **how: object) -> httpx2.Response:
        return self.http.get(path, **how)  # type: ignore[arg-type]  # test input

    def post(self, path: str, body: object = None, **how: object) -> httpx2.Response:
        return self.http.post(path, json=body, **how)  # type: ignore[arg-type]  # test input

    def made(self, path: str, body: object = None, **how: object) -> dict[str, Any]:
        """The answer to a POST that must succeed."""
        answer = self.post(path, body, **how)
        assert answer.is_success, (path, answer.status_code, answer.text)
        found: dict[str, Any] = answer.json()
        return found


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(settings: Settings, port: int | None = None) -> Iterator[Api]:
    """`trivet serve` with these settings, until the block ends."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    folder = settings.state_dir / "api"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{port}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "trivet.cli", "serve", "--port", str(port)],
            cwd=ROOT,
            env=environment(settings, os.environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    with httpx2.Client(base_url=url, timeout=60, trust_env=False) as http:
        try:
            deadline = time.monotonic() + 90
            while not _answers(http):
                assert process.poll() is None, f"the API ended:\n{log.read_text(errors='replace')[-8000:]}"
                assert time.monotonic() < deadline, (
                    f"the API does not answer:\n{log.read_text(errors='replace')[-8000:]}"
                )
                time.sleep(0.05)
            yield Api(url, http, process)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(20)


def _answers(http: httpx2.Client) -> bool:
    try:
        return http.get("/health/live").is_success
    except httpx2.TransportError:
        return False

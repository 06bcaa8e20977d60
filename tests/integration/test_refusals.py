"""What a worker or client says when something that it needs is not there: one sentence, the right exit status."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests.support.fleet import ROOT
from trivet.client import Trivet
from trivet.encoder.random_model import write_random_model
from trivet.errors import LedgerUnavailable
from trivet.settings import Settings
from trivet.supervisor.workers import environment


def run_worker(settings: Settings, *options: str) -> subprocess.CompletedProcess[str]:
    """Start a worker that is expected to refuse."""
    return subprocess.run(
        [sys.executable, "-m", "workers.main", *options],
        cwd=ROOT,
        env=environment(settings, os.environ),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def one_sentence(ran: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit status 3 and a last line that holds the words, with no stack trace above it."""
    assert ran.returncode == 3, ran.stderr
    assert "Traceback" not in ran.stderr
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("worker: ")
    for word in words:
        assert word in last


class _ForgetsConditions(BaseHTTPRequestHandler):
    """As much of S3 as the self-test asks of it, but for conditions, which it does not know."""

    stored: ClassVar[dict[str, bytes]] = {}
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._say(200)

    def do_PUT(self) -> None:
        self.stored[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._say(200, ETag='"same"')

    def do_GET(self) -> None:
        body = self.stored.get(self.path.split("?")[0], b"")
        self._say(200, body, ETag='"same"')

    def do_DELETE(self) -> None:
        self._say(204)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Quiet."""

    def _say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def unconditional() -> Iterator[str]:
    """Address of an S3 that ignores If-None-Match."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _ForgetsConditions)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_s3_without_conditional_writes_is_refused_at_start(settings: Settings, unconditional: str) -> None:
    ran = run_worker(settings.model_copy(update={"s3_endpoint": unconditional}), "--roles", "prepare,commit")
    one_sentence(ran, "If-None-Match", "Use a store with conditional writes")


def test_an_s3_that_does_not_answer_is_named(settings: Settings) -> None:
    ran = run_worker(settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:1"}), "--roles", "prepare,commit")
    one_sentence(ran, "127.0.0.1:1")


def test_bge_m3_with_no_hub_and_no_alias_is_unavailable(settings: Settings) -> None:
    one_sentence(run_worker(settings, "--roles", "embed"), "BAAI/bge-m3", "TRIVET_MODEL_ALIASES")


def test_a_model_folder_without_its_heads_is_named(settings: Settings, tmp_path: Path) -> None:
    folder = write_random_model(tmp_path / "models" / "small", seed=1, hidden=32, layers=1, heads=2)
    (folder / "sparse_linear.pt").unlink()
    lacking = settings.model_copy(update={"model_dir": tmp_path / "models", "model_aliases": {"BAAI/bge-m3": "small"}})
    one_sentence(run_worker(lacking, "--roles", "embed"), "sparse_linear.pt")


def test_sweep_with_other_roles_is_refused(settings: Settings) -> None:
    one_sentence(run_worker(settings, "--roles", "sweep,embed"), "sweep")


def test_a_setting_that_cannot_be_read_is_named(settings: Settings) -> None:
    env = {**environment(settings, os.environ), "TRIVET_LEASE_SECONDS": "soon"}
    ran = subprocess.run(
        [sys.executable, "-m", "workers.main", "--roles", "sweep"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    one_sentence(ran, "TRIVET_LEASE_SECONDS")


def test_a_client_says_that_redis_does_not_answer(settings: Settings) -> None:
    client = Trivet(settings=settings.model_copy(update={"redis_url": "redis://user:hidden@127.0.0.1:1/0"}))
    with pytest.raises(LedgerUnavailable, match="does not answer") as caught:
        client.ingest("https://example.com/", collection="docs")
    assert "hidden" not in str(caught.value)

"""The examples, started as their own texts say, against a served API with real workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from tests.support.api import Api, free_port
from tests.support.fleet import ROOT
from tests.support.web import Server, answer
from trivet.client import Trivet
from trivet.settings import Settings

TEXT = "The example was ingested by a web app that knows nothing of models."


@pytest.fixture
def page(source: Server) -> str:
    source.pages["/example"] = answer(TEXT.encode(), Content_Type="text/plain")
    return source.url("/example")


@contextmanager
def started(api: Api, *command: str) -> Iterator[None]:
    """A program of this repository, with the API's address, until the block ends."""
    environment = {**os.environ, "INGEST_API": api.url, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment) as process:
        try:
            yield
        finally:
            process.terminate()


def first(port: int, do: object) -> httpx2.Response:
    """The first answer of a program that is only just starting."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return do()  # type: ignore[operator]  # a request
        except httpx2.TransportError:
            assert time.monotonic() < deadline, f"nobody listens on {port}"
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("command", "how"),
    [
        (["-m", "uvicorn", "examples.fastapi_app:app", "--port", "{port}"], "json"),
        (["examples/django_app.py", "runserver", "--noreload", "{port}"], "data"),
    ],
    ids=["fastapi", "django"],
)
def test_a_web_app_takes_a_document_in_and_says_what_became_of_it(
    running: Api, page: str, command: list[str], how: str
) -> None:
    port = free_port()
    with (
        started(running, *(word.format(port=port) for word in command)),
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as app,
    ):
        accepted = first(port, lambda: app.post("/documents", **{how: {"url": page}}))  # type: ignore[arg-type] # one argument by name
        assert accepted.status_code == 202, accepted.text
        task = accepted.json()["task_id"]
        assert running.get(f"/v1/tasks/{task}", headers={"Prefer": "wait=50"}).json()["status"] == "COMPLETED"
        assert app.get(f"/documents/{task}").json() == {"state": "completed", "chunks": 1, "error": None}
        assert app.post("/documents", **{how: {"url": "no url"}}).status_code == 400  # type: ignore[arg-type] # one argument by name


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_shell_ingests_and_searches_with_curl_alone(running: Api, page: str) -> None:
    done = subprocess.run(
        [ROOT / "examples" / "ingest.sh", page, "web app"],
        env={**os.environ, "INGEST_API": running.url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    status, found = done.stdout.split("\n", 1)
    assert status == "COMPLETED"
    assert TEXT in found


@pytest.mark.long
@pytest.mark.skipif(shutil.which("npm") is None, reason="node and npm are not installed")
def test_the_typescript_client_builds_passes_its_tests_and_runs_against_the_api(running: Api, live: Settings) -> None:
    built = subprocess.run(["make", "typescript"], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert built.returncode == 0, built.stdout + built.stderr
    done = subprocess.run(
        ["node", "clients/typescript/test/live.js", running.url], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
    assert len(Trivet(settings=live).tasks("typescript")) == 2

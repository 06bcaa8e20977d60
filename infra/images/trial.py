"""Valkey, S3 and a website on this machine, a whole Trivet inside the images, and what has to hold there."""

from __future__ import annotations

import inspect
import json
import queue
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from infra.images import agent
from infra.images.builders import Builder
from infra.local_web import LocalWeb, QuietHandler
from infra.prose import prose
from infra.serving import free_port
from trivet.cli.console import say
from trivet.client import Trivet
from trivet.embedded import servers
from trivet.errors import StartFailed
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import TaskState

_WORKER = ["python", "-m", "workers.main", "--roles"]
#: Target → the services that are tried in it.
SERVICES: dict[str, list[list[str]]] = {
    "cpu-worker": [
        [*_WORKER, "prepare,commit", "--concurrency", "2"],
        [*_WORKER, "sweep,gc"],
        [*_WORKER, "deliver"],
        [*_WORKER, "search"],
    ],
    "embed-worker": [[*_WORKER, "embed"]],
    "api": [["trivet", "serve"]],
}
_UID = 10001
#: Every package may have to come over the network.
_BUILD_SECONDS = 1800.0
_STEP_SECONDS = 300.0
_QUESTION = "Which bridge stands over the river?"


@dataclass
class Container:
    """What the trial knows of a container, and asks of it."""

    target: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    asked: queue.Queue[list[str]] = field(default_factory=queue.Queue)
    told: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    bytes: int = 0

    def answer(self, told: dict[str, Any]) -> list[str]:
        """Take in what the container tells; the command that it gets."""
        if set(told) != {"ended"}:
            self.told.put(told)
        if any(status is not None for status in told.get("ended", ())):
            self.told.put({"ended": told["ended"]})
        try:
            return self.asked.get_nowait()
        except queue.Empty:
            return []

    def hear(self, seconds: float) -> dict[str, Any]:
        """The next that it tells. Raises `StartFailed` where it is gone, or silent for too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                told = self.told.get(timeout=0.2)
            except queue.Empty:
                if self.process is not None and self.process.poll():
                    break
                continue
            if set(told) == {"ended"}:
                break
            return told
        raise StartFailed(
            f"The image {self.target} or a service in it did not start.", hint=f"See the end of {self.log}."
        )

    def run(self, *command: str) -> dict[str, Any]:
        """Run a command inside that must succeed. Raises `StartFailed`."""
        self.asked.put(list(command))
        told = self.hear(_STEP_SECONDS)
        if told["status"]:
            raise StartFailed(f"`{' '.join(command)}` failed in {self.target}: {(told['out'] + told['err'])[-2000:]}")
        return told

    def stop(self) -> None:
        """SIGTERM to its services. Raises `StartFailed` where one ends badly."""
        self.asked.put(["stop"])
        ends = self.hear(_STEP_SECONDS)["ends"]
        if any(ends):
            raise StartFailed(f"Services of {self.target} ended with {ends} after SIGTERM.", hint=f"See {self.log}.")


class _Handler(QuietHandler):
    """`/page` is the source that is ingested; what is posted to `/TARGET` is a container's."""

    def __init__(self, containers: dict[str, Container], *request: Any) -> None:
        self._containers = containers
        super().__init__(*request)

    def do_GET(self) -> None:
        self._send("text/plain; charset=utf-8", prose(1, 2000).encode())

    def do_POST(self) -> None:
        told = json.loads(self.whole_body())
        self._send("application/json", json.dumps(self._containers[self.path[1:]].answer(told)).encode())

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def trial(builder: Builder, folder: Path) -> dict[str, int]:
    """Build and try all targets; target → bytes of its image. Raises `StartFailed` with what does not hold."""
    containers = {target: Container(target, folder / f"{target}.log") for target in SERVICES}
    with _world(folder, containers) as (settings, url, place):
        env = _environment(settings, place)
        for target, container in containers.items():
            say(f"{target}: building")
            container.log.unlink(missing_ok=True)
            argv = ["python", "-c", inspect.getsource(agent), f"{url}/{target}", json.dumps(SERVICES[target]), "/"]
            container.process = builder.start(target, env, argv, container.log)
            _look(container, container.hear(_BUILD_SECONDS))
        _until_all_work(settings, containers)
        for target, container in containers.items():
            container.run("trivet", "doctor", "--json")
            say(f"{target}: trivet doctor finds nothing wrong")
        _ingest(containers["api"], f"http://127.0.0.1:{settings.api_port}", f"{url}/page")
        for target, container in containers.items():
            container.stop()
            say(f"{target}: ended by SIGTERM, exit status 0")
    return {target: container.bytes for target, container in containers.items()}


@contextmanager
def _world(folder: Path, containers: dict[str, Container]) -> Iterator[tuple[Settings, str, str]]:
    """The servers and the website: settings for them, the website's address, and its `host:port`."""
    with ExitStack() as stack:
        web = stack.enter_context(LocalWeb(partial(_Handler, containers)))
        settings = Settings(state_dir=folder, redis_prefix=f"{secrets.token_hex(4)}:", s3_prefix=secrets.token_hex(4))
        for server in (servers.valkey_of(settings), servers.s3_of(settings)):
            stack.enter_context(servers.running(server))
            settings = Settings(**settings.model_dump() | server.settings())
        yield settings.model_copy(update={"api_port": free_port()}), f"http://{web.place}", web.place


def _environment(settings: Settings, place: str) -> dict[str, str]:
    return {
        "TRIVET_REDIS_URL": settings.redis_url,
        "TRIVET_REDIS_PREFIX": settings.redis_prefix,
        "TRIVET_S3_ENDPOINT": settings.s3_endpoint,
        "TRIVET_S3_BUCKET": settings.s3_bucket,
        "TRIVET_S3_PREFIX": settings.s3_prefix,
        "TRIVET_S3_ACCESS_KEY": settings.s3_access_key,
        "TRIVET_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
        "TRIVET_MODEL_ALIASES": '{"BAAI/bge-m3": "embedded"}',
        "TRIVET_ALLOW_ADDRESSES": json.dumps([place]),
        "TRIVET_API_PORT": str(settings.api_port),
    }


def _look(container: Container, told: dict[str, Any]) -> None:
    container.bytes = told["bytes"]
    if told["uid"] != _UID or told["writable"]:
        raise StartFailed(
            f"{container.target} runs as user {told['uid']}, who may write {', '.join(told['writable']) or 'nothing'}.",
            hint=f"It must be {_UID}, who may write nothing that the image brings.",
        )
    size = f"{container.bytes / 1e6:,.0f} MB without weights"
    say(f"{container.target}: {size}; runs as {_UID} and can write nothing that it brings")


def _until_all_work(settings: Settings, containers: dict[str, Container]) -> None:
    """Raises `StartFailed` where a role is not served, or the API does not answer, in time."""
    client = Trivet(settings=settings)
    deadline = time.monotonic() + _STEP_SECONDS
    missing = set(Stage)
    while missing:
        workers = client.backlog()["workers"].values()
        missing = set(Stage) - {role for worker in workers for role in worker.get("roles", ())}
        if time.monotonic() > deadline:
            logs = ", ".join(str(container.log) for container in containers.values())
            raise StartFailed(f"Nobody serves {' or '.join(sorted(missing))}.", hint=f"See {logs}.")
        time.sleep(0.2)
    while True:
        try:
            socket.create_connection(("127.0.0.1", settings.api_port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise StartFailed("The API does not answer.", hint=f"See {containers['api'].log}.") from None
            time.sleep(0.2)
        else:
            return


def _ingest(api: Container, url: str, source: str) -> None:
    """One source through the API, from a key to a search. Raises `StartFailed`."""
    made = api.run("trivet", "keys", "create", "--name", "trial", "--scope", "admin", "--json")
    client = Trivet(url, api_key=json.loads(made["out"])["api_key"])
    client.create_collection("docs")
    view = client.ingest(source, collection="docs").wait(timeout=_STEP_SECONDS)
    if view.state is not TaskState.COMPLETED:
        raise StartFailed(f"The task ended {view.state}: {view.error}")
    found = json.loads(api.run("trivet", "search", "docs", _QUESTION, "--json")["out"])
    if not found["hits"]:
        raise StartFailed("A search in what was ingested finds nothing.")
    say(f"ingested through the API: {view.chunks} chunks; a search finds {len(found['hits'])}")

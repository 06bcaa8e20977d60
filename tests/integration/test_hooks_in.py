"""Webhooks in on real servers: SeaweedFS' own notifications, and a process that is killed in the middle."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from trivet.client import Trivet
from trivet.embedded import servers
from trivet.embedded.seaweedfs import SeaweedFS
from trivet.errors import LedgerUnavailable
from trivet.faults import arm, disarm
from trivet.hooks import Incoming, Ingest, open_scheme
from trivet.hooks.getting import GuardedGetter
from trivet.hooks.receiving import Receiver
from trivet.hooks.redis import RedisHooks
from trivet.hooks.service import Hooks
from trivet.limits.redis import RedisLimiter
from trivet.settings import Settings

BUCKET = "docs"


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    client = Trivet(settings=settings)
    client.create_collection("docs")
    book, limiter = RedisHooks(settings), RedisLimiter(settings)
    with closing(GuardedGetter(settings)) as getter:
        yield Receiver(settings, book, limiter, lambda _: client, getter)
    book.close()
    limiter.close()


def test_deliveries_become_tasks_of_the_ledger_once(settings: Settings, receiver: Receiver) -> None:
    hooks = Hooks(settings, settings.namespace)
    hook = hooks.add("s3", collection="docs", options={"buckets": [BUCKET]})
    incoming = open_scheme("s3", receiver.getter).sample(hook, time.time()).incoming
    first = receiver.receive(hook.hook_id, incoming)
    assert (first.ingested, first.deleted) == (1, 1)
    assert receiver.receive(hook.hook_id, incoming).status == "duplicate"
    views = Trivet(settings=settings).tasks()
    assert sorted((view.kind, view.object_id) for view in views) == [
        ("delete", hook.object_id("s3://docs/handbook%202025.pdf")),
        ("ingest", hook.object_id("s3://docs/handbook%202026.pdf")),
    ]
    assert hooks.get(hook.hook_id).last_kind.startswith("ObjectCreated:Put")
    hooks.close()


@pytest.mark.parametrize("point", ["hooks.before_action", "hooks.before_finish"])
def test_a_delivery_that_was_broken_off_is_gone_on_with_and_done_once(
    settings: Settings, receiver: Receiver, point: str
) -> None:
    hooks = Hooks(settings, settings.namespace)
    hook = hooks.add("hmac", collection="docs", options={"mapping": {"items": "$.u[*]", "url": "$"}})
    payload = b'{"u": ["https://example.com/a", "https://example.com/b", "https://example.com/c"]}'
    incoming = open_scheme("hmac", receiver.getter).sample(hook, time.time(), payload).incoming
    passed = iter((point == "hooks.before_action", False))

    def strike() -> None:
        # The second action, where it is one of several.
        if not next(passed, True):
            raise LedgerUnavailable("away")

    arm(point, strike)
    try:
        with pytest.raises(LedgerUnavailable):
            receiver.receive(hook.hook_id, incoming)
    finally:
        disarm()
    assert receiver.receive(hook.hook_id, incoming).ingested == 3
    assert len(Trivet(settings=settings).tasks()) == 3
    hooks.close()


class _Webhook(BaseHTTPRequestHandler):
    got: list[tuple[list[tuple[str, str]], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((list(self.headers.items()), body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_what_seaweedfs_itself_sends_is_read(settings: Settings, receiver: Receiver, tmp_path: Path) -> None:
    """Its filer's webhook, for an object that is put, changed and deleted through S3."""
    got: list[tuple[list[tuple[str, str]], bytes]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Bound", (_Webhook,), {"got": got}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hooks = Hooks(settings, settings.namespace)
    hook = hooks.add("s3", collection="docs", options={"buckets": [BUCKET]})
    token = hook.secrets[0].value.get_secret_value()
    # It reads its notifications from the folder that it runs in. Several workers send them in any order.
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notification.toml").write_text(
        "[notification.webhook]\nenabled = true\n"
        f'endpoint = "http://127.0.0.1:{server.server_port}/hook"\nbearer_token = "{token}"\nworkers = 1\n'
    )
    store = SeaweedFS(tmp_path / "data", bucket=BUCKET, log=tmp_path / "s3.log", rng=random.Random())
    with servers.running(store):
        keys: dict[str, Any] = dict(zip(("aws_access_key_id", "aws_secret_access_key"), store.keys, strict=True))
        style = Config(s3={"addressing_style": "path"})
        s3 = boto3.client("s3", endpoint_url=store.endpoint, region_name="us-east-1", config=style, **keys)
        s3.put_object(Bucket=BUCKET, Key="a b/ü+1.txt", Body=b"one")
        s3.delete_object(Bucket=BUCKET, Key="a b/ü+1.txt")
        deadline = time.monotonic() + 20
        meant: list[tuple[str, str]] = []
        while time.monotonic() < deadline and len(meant) < 2:
            time.sleep(0.1)
            meant = [pair for headers, body in list(got) for pair in _meant(receiver, hook.hook_id, headers, body)]
    server.shutdown()
    server.server_close()
    url = "s3://docs/a%20b/%C3%BC%2B1.txt"
    assert [pair for pair in meant if "b/" in pair[1]][:2] == [("ingest", url), ("delete", url)]
    hooks.close()


def _meant(receiver: Receiver, hook_id: str, headers: list[tuple[str, str]], body: bytes) -> list[tuple[str, str]]:
    hook, incoming = receiver.book.hook(hook_id), Incoming.of(headers, body)
    scheme = open_scheme("s3", receiver.getter)
    scheme.verify(hook, incoming, time.time())
    return [
        ("ingest" if isinstance(action, Ingest) else "delete", action.url)
        for action in scheme.read(hook, incoming).actions
    ]

"""OWASP API7 and API10 (2023) against the real app: every field that takes a URL, and what comes from others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.security.conftest import Guarded, Tenant
from tests.support.web import Server, answer
from trivet.client import Trivet
from trivet.errors import SourceError, SourceRefused, SourceTooLarge, SourceUnavailable
from trivet.fetch import fetch
from trivet.hooks.getting import GuardedGetter
from trivet.settings import Settings

#: Places that nobody outside has any business with, in the forms that have fooled others.
INSIDE = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://0.0.0.0/",
    "http://localhost/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://100.100.100.200/",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://127.0.0.1.nip.io@127.0.0.1/",
    "https://127.0.0.1:6379/",
]


class Trap:
    """A server on this machine that nobody may come to; it counts who does."""

    def __init__(self) -> None:
        self.visitors = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.visitors += 1
            connection.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    made = Trap()
    yield made
    made.close()


def places(trap: Trap) -> list[str]:
    return [*INSIDE, f"http://127.0.0.1:{trap.port}/", f"http://localhost:{trap.port}/"]


def test_no_webhook_is_registered_for_an_address_inside(guarded: Guarded, alice: Tenant, trap: Trap) -> None:
    for url in places(trap):
        channel = {"channel": "webhook", "configs": {"url": url}}
        body = {"webhook_name": "w", "event_types": ["object.created"], "channels": [channel]}
        told = guarded.ask("POST", "/v1/organizations/webhooks", alice.key, body)
        assert told.status_code in (400, 422), (url, told.status_code)
    assert trap.visitors == 0


def test_a_webhook_with_a_channel_that_is_refused_leaves_no_endpoint(guarded: Guarded, mallory: Tenant) -> None:
    good = {"channel": "webhook", "configs": {"url": "https://93.184.216.34/left"}}
    for bad in ({"channel": "email", "configs": {}}, {"channel": "webhook", "configs": {"url": "http://127.0.0.1/"}}):
        body = {"webhook_name": "two", "event_types": ["object.created"], "channels": [good, bad]}
        told = guarded.ask("POST", "/v1/organizations/webhooks", mallory.key, body)
        assert told.status_code == 400, told.text
    endpoints = Trivet(namespace=mallory.namespace, settings=guarded.settings).endpoints()
    assert [one.target for one in endpoints.list() if one.target.endswith("/left")] == []


@pytest.mark.parametrize(
    "scheme",
    [
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "\tfile:///etc/passwd",
        "upload:x/y",
        "gopher://127.0.0.1/",
        "ftp://h/",
        "dict://h/",
        "javascript:alert(1)",
        "//127.0.0.1/",
    ],
)
def test_no_source_of_another_scheme_is_taken_in(guarded: Guarded, alice: Tenant, scheme: str) -> None:
    collection, bucket = alice.ids["collection_identifier"], alice.ids["bucket_identifier"]
    told = guarded.ask("POST", f"/v1/collections/{collection}/ingest", alice.key, {"source": {"url": scheme}})
    assert told.status_code in (400, 422), told.text
    many = guarded.ask("POST", f"/v1/collections/{collection}/ingest", alice.key, {"sources": [{"url": scheme}]})
    assert many.status_code in (400, 422) or many.json()["accepted"] == 0, many.text
    for data in ({"url": scheme}, {"data": {"url": scheme}}):
        blob = {"property": "t", "type": "text", **data}
        told = guarded.ask("POST", f"/v1/buckets/{bucket}/objects", alice.key, {"blobs": [blob]})
        # An object may hold what no worker will fetch; it becomes no source.
        assert told.status_code in (200, 201, 400, 422), told.text
    task = guarded.ask("POST", f"/v1/tasks/{alice.ids['task_id']}/retry", alice.key, {"url": scheme})
    assert task.status_code in (400, 404, 409, 422), task.text


def test_the_api_itself_fetches_nothing_and_workers_refuse_what_is_inside(
    guarded: Guarded, alice: Tenant, trap: Trap, tmp_path: Path
) -> None:
    """A source is fetched by a worker alone, through the guard; so that is what each URL is given to here."""
    collection = alice.ids["collection_identifier"]
    for number, url in enumerate(places(trap)):
        guarded.ask("POST", f"/v1/collections/{collection}/ingest", alice.key, {"source": {"url": url}})
        blob = {"property": "t", "type": "text", "data": url}
        guarded.ask("POST", f"/v1/buckets/{alice.ids['bucket_identifier']}/objects", alice.key, {"blobs": [blob]})
        with pytest.raises(SourceError):
            fetch(guarded.settings, url, tmp_path / str(number))
    assert trap.visitors == 0


def test_the_url_of_a_retry_is_a_url_like_any_other(guarded: Guarded, alice: Tenant, trap: Trap) -> None:
    for url in places(trap)[:3]:
        told = guarded.ask("POST", f"/v1/tasks/{alice.ids['task_id']}/retry", alice.key, {"url": url})
        assert told.status_code < 500
    assert trap.visitors == 0


def test_no_hook_points_a_sender_or_its_certificates_inside(guarded: Guarded, alice: Tenant, trap: Trap) -> None:
    topic = "arn:aws:sns:eu-central-1:123456789012:t"
    body = {"scheme": "sns", "collection": "docs", "options": {"topics": [topic], "mapping": {}}}
    hook = guarded.ask("POST", "/v1/hooks", alice.key, body).json()["hook_id"]
    for url in places(trap):
        message = {
            "Type": "SubscriptionConfirmation",
            "TopicArn": topic,
            "MessageId": "1",
            "Message": "m",
            "Token": "t",
            "Timestamp": "2026-01-01T00:00:00Z",
            "SubscribeURL": url,
            "SigningCertURL": url,
            "Signature": "AAAA",
            "SignatureVersion": "2",
        }
        assert guarded.ask("POST", f"/v1/hooks/{hook}", body=message).status_code == 401
    assert trap.visitors == 0


def test_a_getter_goes_to_no_address_inside_by_name_by_number_or_by_redirect(trap: Trap) -> None:
    with closing(GuardedGetter(Settings())) as getter:
        for url in places(trap):
            with pytest.raises(SourceRefused):
                getter.get(url, 1000)

    def rebound(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "127.0.0.1"]

    with closing(GuardedGetter(Settings(), resolve=rebound)) as getter, pytest.raises(SourceRefused):
        getter.get("http://example.com/", 1000)
    assert trap.visitors == 0


def test_what_another_server_answers_is_bounded_and_its_redirects_are_not_followed(trap: Trap) -> None:
    pages = {
        "/big": answer(b"x" * 5000),
        "/small": answer(b"x" * 1000),
        "/away": answer(b"", 302, Location=f"http://127.0.0.1:{trap.port}/"),
    }
    with closing(Server(pages)) as server:
        settings = Settings(allow_addresses=(server.place,))
        with closing(GuardedGetter(settings)) as getter:
            assert getter.get(server.url("/small"), 1000) == b"x" * 1000
            with pytest.raises(SourceTooLarge):
                getter.get(server.url("/big"), 1000)
            with pytest.raises(SourceUnavailable, match="302"):
                getter.get(server.url("/away"), 1000)
            with pytest.raises(SourceUnavailable):
                getter.get(server.url("/missing"), 1000)
    assert trap.visitors == 0

"""OWASP API4 (2023) against the real app: what one caller may use up; and the wire below it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import httpx2
import pytest

from tests.security.conftest import MAX_BODY, Guarded, Tenant
from trivet.keys import KeyLimits


class Wire:
    """A connection to the API, byte for byte."""

    def __init__(self, guarded: Guarded) -> None:
        host, port = guarded.api.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)

    def send(self, *parts: bytes) -> None:
        """Send, unless the server has hung up already."""
        with suppress(OSError):
            for part in parts:
                self.socket.sendall(part)

    def answer(self) -> bytes:
        """All that comes until the server ends it, or an answer is whole."""
        got = b""
        try:
            while chunk := self.socket.recv(65536):
                got += chunk
                head, _, body = got.partition(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if body and length and len(body) >= int(length[0].split(b":")[1]):
                    break
        except (ConnectionResetError, TimeoutError):
            pass
        return got

    def close(self) -> None:
        self.socket.close()


def head_of(method: str, path: str, key: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {key}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


# ------------------------------------------------------------ requests that are held open


def test_a_key_follows_so_many_tasks_at_once_and_a_process_so_many_in_all(guarded: Guarded, alice: Tenant) -> None:
    key, other, third = (guarded.key("alice", "read", "ingest", limits=KeyLimits()) for _ in range(3))
    path = f"/v1/collections/{alice.ids['collection_identifier']}/ingest"
    task = guarded.ask("POST", path, key, {"source": {"url": "https://example.com/followed"}}).json()["task_id"]

    kept: list[Iterator[str]] = []
    with ExitStack() as streams:

        def follow(whose: str) -> httpx2.Response:
            headers = {"Authorization": f"Bearer {whose}"}
            answer = streams.enter_context(guarded.api.http.stream("GET", f"/v1/tasks/{task}/events", headers=headers))
            if answer.status_code == 200:
                # The stream holds its place from its first event on, and an iterator that is gone closes it.
                lines = answer.iter_lines()
                next(lines)
                kept.append(lines)
            else:
                answer.read()
            return answer

        assert [follow(key).status_code for _ in range(3)] == [200, 200, 429]
        assert [follow(other).status_code for _ in range(2)] == [200, 200]
        refused = follow(third)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "api_busy")
        assert int(refused.headers["Retry-After"]) > 0
        waited = guarded.ask("GET", f"/v1/tasks/{task}", third, headers={"Prefer": "wait=60"})
        assert (waited.status_code, "Preference-Applied" in waited.headers) == (200, False)
    deadline = time.monotonic() + 10
    while (waited := guarded.ask("GET", f"/v1/tasks/{task}", third, headers={"Prefer": "wait=1"})).is_success:
        if "Preference-Applied" in waited.headers:
            break
        assert time.monotonic() < deadline, "the places of those that have hung up were never given back"


# ------------------------------------------------------------ rates and quotas


def test_a_key_ingests_so_many_sources_a_day_one_by_one_or_together(guarded: Guarded, alice: Tenant) -> None:
    key = guarded.key("alice", "ingest", limits=KeyLimits(requests_per_minute=10_000, sources_per_day=5))
    path = f"/v1/collections/{alice.ids['collection_identifier']}/ingest"

    def send(count: int) -> int:
        sources = [{"url": f"https://example.com/{time.monotonic_ns()}/{n}"} for n in range(count)]
        return guarded.ask("POST", path, key, {"sources": sources} if count > 1 else {"source": sources[0]}).status_code

    assert [send(3), send(3), send(1), send(1), send(1)] == [202, 429, 202, 202, 429]
    refused = guarded.ask("POST", path, key, {"source": {"url": "https://example.com/x"}})
    assert 1 <= int(refused.headers["Retry-After"]) <= 86_400


def test_a_batch_that_is_submitted_again_is_not_charged_again(guarded: Guarded, alice: Tenant) -> None:
    key = guarded.key("alice", "ingest", limits=KeyLimits(requests_per_minute=10_000, sources_per_day=1))
    path = f"/v1/buckets/{alice.ids['bucket_identifier']}/batches"
    made = guarded.ask("POST", path, key, {"object_ids": [alice.ids["object_id"]]}).json()
    submit = f"{path}/{made['batch_id']}/submit"
    assert [guarded.ask("POST", submit, key).status_code for _ in range(3)] == [200, 200, 200]
    other = guarded.ask("POST", path, key, {"object_ids": [alice.ids["object_id"]]}).json()
    assert guarded.ask("POST", f"{path}/{other['batch_id']}/submit", key).status_code == 429


def test_a_source_that_is_none_keeps_none_of_the_others_out(guarded: Guarded, alice: Tenant) -> None:
    path = f"/v1/collections/{alice.ids['collection_identifier']}/ingest"
    sources: list[Any] = ["https://example.com/", None, 7, [], {}, {"url": 1}, {"url": "https://example.com/good"}]
    answer = guarded.ask("POST", path, alice.key, {"sources": sources})
    assert answer.status_code == 202, answer.text
    assert [one["status"] for one in answer.json()["results"]] == ["refused"] * 6 + ["accepted"]


@pytest.mark.parametrize("limit", [0, -1, 100_000, "many", "1e3"])
def test_pages_have_a_size_that_is_bounded(guarded: Guarded, alice: Tenant, limit: Any) -> None:
    answer = guarded.ask("GET", f"/v1/buckets?limit={limit}", alice.key)
    assert answer.status_code in (200, 422)
    if answer.status_code == 200:
        assert answer.json()["pagination"]["page_size"] <= 10_000


def test_so_many_sources_at_once_and_no_more(guarded: Guarded, alice: Tenant) -> None:
    path = f"/v1/collections/{alice.ids['collection_identifier']}/ingest"
    body = json.dumps({"sources": [{}] * 10_001})
    assert len(body) < MAX_BODY
    answer = guarded.ask("POST", path, alice.key, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


# ------------------------------------------------------------ bodies


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(guarded: Guarded, alice: Tenant) -> None:
    with closing(Wire(guarded)) as wire:
        wire.send(head_of("POST", "/v1/buckets", alice.key, f"Content-Length: {MAX_BODY + 1}"))
        answer = wire.answer()
    assert status(answer) == 413
    assert b'"success":false' in answer


def test_a_body_that_does_not_say_how_large_it_is_is_refused_when_it_is(guarded: Guarded, alice: Tenant) -> None:
    with closing(Wire(guarded)) as wire:
        wire.send(head_of("POST", "/v1/buckets", alice.key, "Transfer-Encoding: chunked"))
        wire.send(*[b"4000\r\n" + b" " * 0x4000 + b"\r\n"] * (MAX_BODY // 0x4000 + 4))
        assert status(wire.answer()) == 413


def test_a_body_at_the_limit_is_read(guarded: Guarded, alice: Tenant) -> None:
    body = b'{"bucket_name": "full"' + b" " * (MAX_BODY - 23) + b"}"
    answer = guarded.ask("POST", "/v1/buckets", alice.key, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code not in (408, 413)
    over = guarded.ask("POST", "/v1/buckets", alice.key, content=body + b" ")
    assert over.status_code == 413


def test_an_upload_may_be_as_large_as_a_source_and_nothing_else(guarded: Guarded, alice: Tenant) -> None:
    path = f"/v1/buckets/{alice.ids['bucket_identifier']}/objects"
    content = b"x" * (2 * MAX_BODY)
    sent = guarded.ask("POST", f"{path}/upload", alice.key, files={"file": ("a.txt", content, "text/plain")})
    assert sent.is_success, sent.text
    for where, key in ((path, alice.key), ("/v1/buckets", alice.key), ("/v1/keys", alice.key)):
        how = {"content": content, "headers": {"Content-Type": "application/json"}}
        assert guarded.ask("POST", where, key, **how).status_code == 413, where
    multipart = {"content": content, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
    assert guarded.ask("POST", "/v1/buckets", alice.key, **multipart).status_code == 413


def test_a_body_that_never_comes_is_given_up(guarded: Guarded, alice: Tenant) -> None:
    with closing(Wire(guarded)) as wire:
        wire.send(head_of("POST", "/v1/buckets", alice.key, "Content-Length: 100", "Content-Type: application/json"))
        answer = wire.answer()
    assert status(answer) == 408
    assert b"connection: close" in answer.lower()


def test_a_body_that_drips_is_given_up_however_steadily(guarded: Guarded, alice: Tenant) -> None:
    with closing(Wire(guarded)) as wire:
        wire.send(head_of("POST", "/v1/buckets", alice.key, "Content-Length: 100000", "Content-Type: application/json"))
        wire.socket.settimeout(0.1)
        got = b""
        for _ in range(400):
            try:
                wire.send(b" ")
                got = wire.socket.recv(65536)
                break
            except TimeoutError:
                continue
            except OSError:
                break
    assert status(got) in (408, 413)


def test_a_hooks_body_is_limited_too_and_an_unknown_hooks_is_not_even_read(guarded: Guarded, alice: Tenant) -> None:
    hook = alice.ids["hook_id"]
    assert guarded.ask("POST", f"/v1/hooks/{hook}", content=b"x" * (MAX_BODY + 1)).status_code == 413
    with closing(Wire(guarded)) as wire:
        wire.send(head_of("POST", "/v1/hooks/hook_" + "0" * 24, "", "Content-Length: 1000"))
        assert status(wire.answer()) == 404


@pytest.mark.parametrize(
    "body",
    [b"[" * 30_000, b'{"a":' * 10_000, b'{"bucket_name":' + b"9" * 5000 + b"}", b"\xff\xfe", b'"', b"\x00" * 100],
)
def test_bodies_that_break_parsers_are_refused_in_one_sentence(guarded: Guarded, alice: Tenant, body: bytes) -> None:
    answer = guarded.ask("POST", "/v1/buckets", alice.key, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["success"] is False
    assert "Traceback" not in answer.text
    assert len(answer.text) < 4000


@pytest.mark.parametrize("value", ["[" * 200 + "]" * 200, '"\\ud800"', '{"\\udc00": 1}', "NaN", "1e999"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/buckets", '{"bucket_name": "odd", "metadata": {"a": VALUE}}'),
        ("/v1/buckets", '{"bucket_name": "odd", "bucket_schema": {"properties": {}, "a": VALUE}}'),
        ("/v1/buckets/papers/objects", '{"blobs": [{"data": "x"}], "metadata": {"a": VALUE}}'),
        ("/v1/buckets/papers/uploads", '{"filename": "x", "metadata": {"a": VALUE}}'),
        ("/v1/collections", '{"collection_name": "odd", "metadata": {"a": VALUE}}'),
        ("/v1/collections/docs/ingest", '{"source": {"url": "https://h/"}, "metadata": {"a": VALUE}}'),
    ],
)
def test_what_could_not_be_shown_again_is_not_kept(
    guarded: Guarded, alice: Tenant, path: str, body: str, value: str
) -> None:
    told = guarded.ask(
        "POST",
        path,
        alice.key,
        content=body.replace("VALUE", value).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": f"{path} {value[:9]} {len(body)}"},
    )
    assert told.status_code == 400, told.text
    for listed in ("/v1/buckets", "/v1/buckets/papers/objects", "/v1/collections", "/v1/tasks"):
        assert guarded.ask("GET", f"{listed}?limit=1000", alice.key).status_code == 200


# ------------------------------------------------------------ the wire


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: -1",),
        ("Content-Length: +5",),
        ("Transfer-Encoding: xchunked",),
        ("X-Namespace : alice",),
        ("X\x00: y",),
        ("X: a\x00b",),
        ("X: a\rb",),
    ],
)
def test_requests_that_two_servers_could_read_in_two_ways_are_refused(
    guarded: Guarded, alice: Tenant, headers: tuple[str, ...]
) -> None:
    with closing(Wire(guarded)) as wire:
        smuggled = b"GET /v1/keys HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        wire.send(head_of("POST", "/v1/buckets/list", alice.key, *headers), b"0\r\n\r\n", smuggled)
        answer = wire.answer()
    assert status(answer) in (0, 400, 408, 411, 501)


def test_headers_have_a_size_that_is_bounded(guarded: Guarded, alice: Tenant) -> None:
    with closing(Wire(guarded)) as wire:
        wire.send(head_of("GET", "/v1/buckets", alice.key, "X: " + "a" * 300_000))
        assert status(wire.answer()) in (0, 400, 431)


INJECTED = "a\r\nSet-Cookie: session=stolen\r\n\r\n<script>"


def test_nothing_that_is_sent_gets_into_the_headers_of_an_answer(guarded: Guarded, alice: Tenant) -> None:
    """Line ends in every place that takes a text: no answer has a header that it should not have."""
    encoded = "a%0d%0aSet-Cookie:%20session=stolen"
    collection = alice.ids["collection_identifier"]
    answers = [
        guarded.ask("GET", f"/v1/buckets/{encoded}", alice.key),
        guarded.ask("GET", f"/v1/buckets?cursor={encoded}", alice.key),
        guarded.ask("POST", "/v1/buckets", alice.key, {"bucket_name": INJECTED}),
        guarded.ask(
            "POST", f"/v1/collections/{collection}/ingest", alice.key, {"source": {"url": "https://h/" + INJECTED}}
        ),
        guarded.ask("POST", "/v1/keys", alice.key, {"name": INJECTED}),
        guarded.ask("POST", "/v1/hooks", alice.key, {"scheme": INJECTED, "collection": "docs"}),
        guarded.ask("POST", f"/v1/hooks/{encoded}"),
        guarded.ask(
            "POST",
            f"/v1/buckets/{alice.ids['bucket_identifier']}/uploads",
            alice.key,
            {"filename": INJECTED, "content_type": f"text/plain{INJECTED}"},
        ),
    ]
    for answer in answers:
        assert "set-cookie" not in answer.headers, answer.request.url
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.status_code < 500


def test_a_forged_host_is_in_no_answer(guarded: Guarded, alice: Tenant) -> None:
    bucket = alice.ids["bucket_identifier"]
    for method, path, body in (
        ("GET", "/v1/buckets", None),
        ("POST", "/v1/hooks", {"scheme": "hmac", "collection": "docs"}),
        ("POST", f"/v1/buckets/{bucket}/uploads", {"filename": "a.txt", "content_type": "text/plain"}),
        ("GET", "/v1/nothing/", None),
    ):
        forged = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
        answer = guarded.ask(method, path, alice.key, body, headers=forged)
        assert "evil.example" not in answer.text + str(answer.headers)

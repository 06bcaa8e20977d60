"""Webhooks in, against the real app: for each scheme what is replayed, forged, another's, or too late."""

from __future__ import annotations

import time
from typing import Any

import httpx2
import pytest

from tests.security.conftest import Guarded, Tenant
from tests.support.hooking import OPTIONS
from trivet.hooks import SCHEMES, Hook, Incoming, open_scheme
from trivet.hooks.getting import GuardedGetter
from trivet.hooks.service import Hooks

#: SNS signs with a key that no test has: its deliveries are tried without a network elsewhere, and forged here.
SIGNABLE = sorted(set(SCHEMES) - {"sns"})


class Sender:
    """Delivers to one hook of a tenant's."""

    def __init__(self, guarded: Guarded, tenant: Tenant, scheme: str) -> None:
        self.guarded = guarded
        body = {"scheme": scheme, "collection": "docs", "options": OPTIONS[scheme]}
        made = guarded.ask("POST", "/v1/hooks", tenant.key, body)
        assert made.status_code == 201, made.text
        self.path: str = made.json()["url"]
        hooks = Hooks(guarded.settings, tenant.namespace)
        self.hook: Hook = hooks.get(made.json()["hook_id"])
        hooks.close()

    def signed(self, payload: bytes = b"", at: float | None = None) -> Incoming:
        scheme = open_scheme(self.hook.scheme, GuardedGetter(self.guarded.settings))
        return scheme.sample(self.hook, time.time() if at is None else at, payload).incoming

    def deliver(self, incoming: Incoming, **headers: str) -> httpx2.Response:
        sent = {**incoming.headers, **headers}
        return self.guarded.api.http.post(self.path, content=incoming.body, headers=sent)


@pytest.fixture(params=SIGNABLE)
def sender(request: pytest.FixtureRequest, guarded: Guarded, alice: Tenant) -> Sender:
    return Sender(guarded, alice, request.param)


def unique(scheme: str) -> bytes:
    """A payload that nobody has sent."""
    name = f"n{time.monotonic_ns()}"
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "docs"}, "object": {"key": f"{name}.pdf"}}}
    payloads: dict[str, Any] = {
        "standard": {"type": "x.created", "data": {"url": f"https://example.com/{name}"}},
        "hmac": {"url": f"https://example.com/{name}"},
        "s3": {"Records": [record]},
        "eventbridge": {"Records": [record]},
        "github": {
            "ref": "refs/heads/main",
            "after": "f" * 40,
            "repository": {"full_name": "o/r", "default_branch": "main"},
            "commits": [{"added": [f"{name}.md"]}],
        },
    }
    import json

    return json.dumps(payloads[scheme]).encode()


def test_a_delivery_becomes_a_task_of_its_tenant_once(sender: Sender, guarded: Guarded, alice: Tenant) -> None:
    incoming = sender.signed(unique(sender.hook.scheme))
    first = sender.deliver(incoming)
    assert (first.status_code, first.json()["status"], first.json()["ingested"]) == (200, "done", 1), first.text
    task_id = first.json()["actions"][0]["task_id"]
    assert guarded.ask("GET", f"/v1/tasks/{task_id}", alice.key).status_code == 200
    again = sender.deliver(incoming)
    assert (again.status_code, again.json()["status"]) == (200, "duplicate")
    assert again.json()["actions"] == first.json()["actions"]


def test_what_is_forged_is_refused_and_leaves_nothing(sender: Sender, guarded: Guarded, alice: Tenant) -> None:
    before = guarded.ask("GET", "/v1/tasks?limit=1", alice.key).json()["total_count"]
    incoming = sender.signed(unique(sender.hook.scheme))
    forged = [
        Incoming({}, incoming.body),
        Incoming(dict.fromkeys(incoming.headers, ""), incoming.body),
        Incoming({name: f"{value}0" for name, value in incoming.headers.items()}, incoming.body),
        Incoming({name: value[:-1] for name, value in incoming.headers.items()}, incoming.body),
    ]
    if sender.hook.scheme not in ("s3", "eventbridge"):
        # Where a token is sent, nothing vouches for the body.
        forged.append(Incoming(incoming.headers, b" " + incoming.body))
    for each in forged:
        assert sender.deliver(each).status_code == 401, each.headers
    after = guarded.ask("GET", "/v1/tasks?limit=1", alice.key).json()["total_count"]
    assert after == before


def test_the_refusal_does_not_say_what_was_wrong(sender: Sender) -> None:
    incoming = sender.signed(unique(sender.hook.scheme))
    said = {
        sender.deliver(Incoming({}, incoming.body)).text,
        sender.deliver(Incoming({name: f"{value}0" for name, value in incoming.headers.items()}, incoming.body)).text,
        sender.deliver(Incoming({}, b"")).text,
        sender.deliver(Incoming({}, b"nonsense")).text,
    }
    assert len(said) == 1


def test_another_tenants_hook_of_the_same_kind_takes_none_of_it(
    sender: Sender, guarded: Guarded, mallory: Tenant
) -> None:
    other = Sender(guarded, mallory, sender.hook.scheme)
    assert other.deliver(sender.signed(unique(sender.hook.scheme))).status_code == 401


def test_headers_that_are_there_twice_count_for_nothing(sender: Sender, guarded: Guarded) -> None:
    incoming = sender.signed(unique(sender.hook.scheme))
    twice = [pair for name, value in incoming.headers.items() for pair in ((name, value), (name, value))]
    assert guarded.api.http.post(sender.path, content=incoming.body, headers=twice).status_code == 401


def test_an_api_key_is_no_signature(sender: Sender, alice: Tenant, operator: str) -> None:
    body = sender.signed(unique(sender.hook.scheme)).body
    for key in (alice.key, operator):
        assert sender.deliver(Incoming({"authorization": f"Bearer {key}"}, body)).status_code == 401


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_signed_time_is_held_against_the_clock(guarded: Guarded, alice: Tenant, seconds: float) -> None:
    sender = Sender(guarded, alice, "standard")
    late = sender.signed(unique("standard"), at=time.time() + seconds)
    assert sender.deliver(late).status_code == 401


def test_a_deleted_hook_is_unknown_to_everybody(sender: Sender, guarded: Guarded, alice: Tenant) -> None:
    incoming = sender.signed(unique(sender.hook.scheme))
    assert guarded.ask("DELETE", f"/v1/hooks/{sender.hook.hook_id}", alice.key).status_code == 200
    gone = sender.deliver(incoming)
    assert gone.status_code == 404
    nobody = guarded.api.http.post("/v1/hooks/hook_" + "0" * 24, content=incoming.body)
    assert gone.text.replace(sender.hook.hook_id, "H") == nobody.text.replace("hook_" + "0" * 24, "H")


def test_a_hook_cannot_put_anything_into_another_namespace(guarded: Guarded, alice: Tenant, mallory: Tenant) -> None:
    sender = Sender(guarded, alice, "hmac")
    body = b'{"url": "https://example.com/z", "namespace": "mallory", "collection": "other"}'
    told = sender.deliver(sender.signed(body), **{"X-Namespace": "mallory"})
    task = told.json()["actions"][0]["task_id"]
    assert guarded.ask("GET", f"/v1/tasks/{task}", alice.key).status_code == 200
    assert guarded.ask("GET", f"/v1/tasks/{task}", mallory.key).status_code == 404


def test_snss_forgeries_are_refused_without_a_look_at_the_net(guarded: Guarded, alice: Tenant) -> None:
    sender = Sender(guarded, alice, "sns")
    signed = sender.signed()
    changed = signed.body.replace(b"eu-central-1.amazonaws.com", b"eu-central-1.amazonaws.com.evil.example")
    for body in (changed, signed.body.replace(b'"SignatureVersion": "2"', b'"SignatureVersion": "3"'), b"{}", b""):
        assert sender.deliver(Incoming({}, body)).status_code in (400, 401)


def test_a_test_of_a_hook_ingests_nothing_and_is_its_owners_alone(
    sender: Sender, guarded: Guarded, alice: Tenant, mallory: Tenant
) -> None:
    before = guarded.ask("GET", "/v1/tasks?limit=1", alice.key).json()["total_count"]
    path = f"{sender.path}/test"
    told = guarded.ask("POST", path, alice.key)
    assert told.status_code == 200
    assert told.json()["actions"]
    own = guarded.ask("POST", path, alice.key, content=unique(sender.hook.scheme))
    assert len(own.json()["actions"]) == 1
    assert guarded.ask("POST", path, mallory.key).status_code == 404
    assert guarded.ask("POST", path).status_code == 401
    assert guarded.ask("GET", "/v1/tasks?limit=1", alice.key).json()["total_count"] == before

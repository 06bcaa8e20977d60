"""Standard Webhooks, held against the specification's own library."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from tests.support.hooking import Desk
from trivet.errors import HookRefused, InvalidRequest
from trivet.hooks import Incoming

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def by_the_library(secret: str, delivery: str, at: float, body: bytes) -> Incoming:
    signed = Webhook(secret).sign(delivery, datetime.fromtimestamp(at, UTC), body.decode())
    headers = {"webhook-id": delivery, "webhook-timestamp": str(int(at)), "webhook-signature": signed}
    return Incoming(headers, body)


@given(delivery=st.text("abc_123", min_size=1, max_size=40), name=st.text(max_size=20))
def test_what_the_specifications_library_signs_is_verified(delivery: str, name: str) -> None:
    import json

    desk = Desk()
    hook = desk.hooks.add("standard", collection="c", secret=SECRET)
    body = json.dumps({"type": "document.created", "data": {"url": "https://h/a", "name": name}}).encode()
    assert desk.receive(hook, by_the_library(SECRET, delivery, desk.clock.now(), body)).ingested == 1


def test_one_of_several_signatures_is_enough_and_of_another_version_none() -> None:
    desk = Desk()
    hook = desk.hooks.add("standard", collection="c", secret=SECRET)
    right = by_the_library(SECRET, "msg_1", desk.clock.now(), b'{"data":{"url":"https://h/a"}}')
    value = right.headers["webhook-signature"]
    several = {**right.headers, "webhook-signature": f"v1,AAAA v1a,BBBB {value}"}
    assert desk.receive(hook, Incoming(several, right.body)).ingested == 1
    other = {**right.headers, "webhook-id": "msg_2", "webhook-signature": value.replace("v1,", "v2,")}
    with pytest.raises(HookRefused):
        desk.receive(hook, Incoming(other, right.body))


def test_the_id_and_the_time_are_signed_so_neither_can_be_changed_for_a_replay() -> None:
    desk = Desk()
    hook = desk.hooks.add("standard", collection="c", secret=SECRET)
    right = by_the_library(SECRET, "msg_1", desk.clock.now(), b'{"data":{"url":"https://h/a"}}')
    for name, value in (("webhook-id", "msg_2"), ("webhook-timestamp", str(int(desk.clock.now()) + 1))):
        with pytest.raises(HookRefused):
            desk.receive(hook, Incoming({**right.headers, name: value}, right.body))


@pytest.mark.parametrize("stamp", ["", "nan", "1e9", "-5", "١٧٠٠٠٠٠٠٠٠", "17" * 20, " 1700000000 0"])
def test_a_time_that_is_none_is_refused(stamp: str) -> None:
    desk = Desk()
    hook = desk.hooks.add("standard", collection="c", secret=SECRET)
    right = by_the_library(SECRET, "msg_1", desk.clock.now(), b"{}")
    with pytest.raises(HookRefused):
        desk.receive(hook, Incoming({**right.headers, "webhook-timestamp": stamp}, right.body))


@pytest.mark.parametrize("secret", ["short", "whsec_", "whsec_QUJD", "whsec_" + "A" * 200, "whsec_!!!" + "A" * 40])
def test_a_secret_of_another_form_is_refused(secret: str) -> None:
    with pytest.raises(InvalidRequest):
        Desk().hooks.add("standard", collection="c", secret=secret)


def test_the_payload_of_the_specification_is_read_by_default() -> None:
    desk = Desk()
    hook = desk.add("standard")
    data = {"url": "https://h/a.pdf"}
    assert desk.sent(hook, {"type": "document.updated", "data": data}) == [("ingest", "https://h/a.pdf")]
    named = hook.object_id("https://h/a.pdf")
    assert desk.sent(hook, {"type": "document.deleted", "data": data}) == [("delete", named)]

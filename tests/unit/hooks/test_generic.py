"""Generic HMAC, and the mapping from payloads to sources."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hooking import Desk
from trivet.errors import HookRefused, InvalidRequest, TrivetError
from trivet.hooks import Incoming
from trivet.hooks.mapping import Mapping, check_path

SECRET = "correct horse battery staple"
BODY = b'{"url": "https://h/a"}'


def mac(text: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.new(SECRET.encode(), text, algorithm).digest()


def desk_with(**options: Any) -> tuple[Desk, Any]:
    desk = Desk()
    return desk, desk.hooks.add("hmac", collection="c", options=options, secret=SECRET)


def test_the_signature_alone() -> None:
    desk, hook = desk_with()
    assert desk.receive(hook, Incoming({"x-signature": mac(BODY).hex()}, BODY)).ingested == 1


def test_a_prefix_another_header_algorithm_and_encoding() -> None:
    desk, hook = desk_with(header="X-Shop-Hmac", prefix="v=", algorithm="sha512", encoding="base64")
    value = "v=" + base64.b64encode(mac(BODY, "sha512")).decode()
    assert desk.receive(hook, Incoming({"x-shop-hmac": value}, BODY)).ingested == 1
    with pytest.raises(HookRefused):
        desk.receive(hook, Incoming({"x-shop-hmac": value.removeprefix("v=")}, BODY))


def test_slacks_form() -> None:
    desk, hook = desk_with(
        header="X-Slack-Signature",
        prefix="v0=",
        timestamp_header="X-Slack-Request-Timestamp",
        signed="v0:{timestamp}:{body}",
    )
    at = str(int(desk.clock.now()))
    headers = {"x-slack-request-timestamp": at, "x-slack-signature": "v0=" + mac(f"v0:{at}:".encode() + BODY).hex()}
    assert desk.receive(hook, Incoming(headers, BODY)).ingested == 1
    desk.clock.advance(301)
    with pytest.raises(HookRefused):
        desk.receive(hook, Incoming(headers, BODY))


def test_pairs_as_stripe_and_mixpeek_send_them() -> None:
    desk, hook = desk_with(header="X-Mixpeek-Signature", style="pairs")
    at = str(int(desk.clock.now()))
    right = mac(f"{at}.".encode() + BODY).hex()
    for value in (f"t={at}", f"v1={right}", f"t={at},t={at},v1={right}", f"t={at},v0={right}", f"t=1,v1={right}"):
        with pytest.raises(HookRefused):
            desk.receive(hook, Incoming({"x-mixpeek-signature": value}, BODY))
    value = f"t={at},v1={'0' * 64},v1={right}"
    assert desk.receive(hook, Incoming({"x-mixpeek-signature": value}, BODY)).ingested == 1


def test_a_signed_id_tells_equal_bodies_apart_and_is_known_again() -> None:
    desk, hook = desk_with(id_header="X-Id", signed="{id}.{body}")
    for delivery, status in (("a", "done"), ("a", "duplicate"), ("b", "done")):
        headers = {"x-id": delivery, "x-signature": mac(f"{delivery}.".encode() + BODY).hex()}
        assert desk.receive(hook, Incoming(headers, BODY)).status == status


@pytest.mark.parametrize(
    "wrong",
    [
        {"signed": "nothing"},
        {"signed": "{body}{body}"},
        {"signed": "{timestamp}.{body}"},
        {"timestamp_header": "X-Time"},
        {"id_header": "X-Id"},
        {"header": "X Bad"},
        {"header": "X-A\r\nX-B"},
        {"algorithm": "md5"},
        {"mapping": {"url": "nonsense["}},
    ],
)
def test_options_by_which_something_would_not_be_signed_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        desk_with(**wrong)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        Desk().hooks.add("hmac", collection="c", secret="short")


# ------------------------------------------------------------ mapping


def meant(mapping: dict[str, Any], payload: Any) -> list[tuple[str, str]]:
    desk, hook = desk_with(mapping=mapping)
    return desk.sent(hook, payload)


def test_items_urls_ids_types_and_metadata_are_found() -> None:
    desk, hook = desk_with(
        mapping={
            "items": "$.event.files[?@.kind == 'doc']",
            "url": "$.links.raw",
            "object_id": "$.id",
            "metadata": {"title": "$.title", "nothing": "$.nothing"},
        }
    )
    files = [
        {"kind": "doc", "id": "a-1", "links": {"raw": "https://h/a"}, "title": "A"},
        {"kind": "image", "id": "b-1", "links": {"raw": "https://h/b"}},
    ]
    desk.receive(hook, desk.signed(hook, {"event": {"files": files}}))
    (call,) = desk.producer.calls
    assert (call.url, call.object_id, call.metadata) == ("https://h/a", "a-1", {"title": "A"})


def test_plain_urls_in_a_list_are_items_too() -> None:
    sent = meant({"items": "$.urls[*]", "url": "$"}, {"urls": ["https://h/a", 3, "https://h/b"]})
    assert sent == [("ingest", "https://h/a"), ("ingest", "https://h/b")]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("page.deleted", "delete"),
        ("REMOVED", "delete"),
        ("page.updated", "ingest"),
        ("page.viewed", None),
    ],
)
def test_the_event_says_what_has_happened(event: str, expected: str | None) -> None:
    mapping: dict[str, Any] = {"event": "$.what", "ingests": ["*.updated", "*.created"]}
    expects = [expected] if expected else []
    assert [what for what, _ in meant(mapping, {"what": event, "url": "https://h/a"})] == expects
    # Of the item, or else of the whole payload.
    mapping |= {"items": "$.items[*]"}
    payloads: list[dict[str, Any]] = [
        {"what": event, "items": [{"url": "https://h/a"}]},
        {"what": "page.viewed", "items": [{"what": event, "url": "https://h/a"}]},
    ]
    for payload in payloads:
        assert [what for what, _ in meant(mapping, payload)] == expects


def test_a_rename_deletes_what_the_old_url_named() -> None:
    payload = {"url": "https://h/new", "was": "https://h/old"}
    sent = meant({"old_url": "$.was"}, payload)
    assert [what for what, _ in sent] == ["delete", "ingest"]
    assert meant({"old_url": "$.was"}, {**payload, "was": "https://h/new"}) == [("ingest", "https://h/new")]


@pytest.mark.parametrize(
    "path",
    [
        "$..a..b",
        "$[?@.a][?@.b]",
        "$[?$.a == 1]",
        "$[?match(@.a, '(a+)+')]",
        "$[?search(@.a, 'b')]",
        "$[?length(@.a) > 1]",
        "$.a | $.b",
        "nonsense[",
        "$" + "[?(" * 50,
        "$" + ".a" * 200,
        "@.a",
        "^.a",
        "$.a =~ /x/",
    ],
)
def test_a_path_that_could_cost_more_than_its_payload_or_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValueError):
        check_path(path)
    with pytest.raises(InvalidRequest):
        desk_with(mapping={"items": path})


@pytest.mark.parametrize(
    "path", ["$", "$.a", "$['a b']", "$[0]", "$[-1]", "$[*].url", "$..url", "$.a[?@.b && @.c > 1]"]
)
def test_usual_paths_are_allowed(path: str) -> None:
    assert check_path(path) == path


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("url"), inner, max_size=4)
    ),
    max_leaves=25,
)


@given(
    payload=st.dictionaries(st.text(max_size=8), json_values, max_size=5), path=st.sampled_from(["$", "$..url", "$.*"])
)
def test_no_payload_brings_the_mapping_down(payload: dict[str, Any], path: str) -> None:
    desk = Desk()
    hook = desk.add("hmac")
    mapping = Mapping(items=path, url="$.url", object_id="$.id", old_url="$.old", event="$.event")
    try:
        actions, ignored = mapping.actions(hook, payload)
    except TrivetError:
        return
    assert all(isinstance(sentence, str) for sentence in ignored)
    assert all(action.object_id for action in actions)


@given(st.binary(max_size=200))
def test_no_signed_body_brings_a_hook_down(body: bytes) -> None:
    desk, hook = desk_with()
    with suppress(InvalidRequest):
        desk.receive(hook, Incoming({"x-signature": mac(body).hex()}, body))


def test_a_hash_of_another_algorithm_is_refused() -> None:
    desk, hook = desk_with()
    with pytest.raises(HookRefused):
        desk.receive(hook, Incoming({"x-signature": hashlib.sha256(BODY).hexdigest()}, BODY))


def test_a_payload_with_very_many_items_is_refused() -> None:
    desk, hook = desk_with(mapping={"items": "$.u[*]", "url": "$"})
    body = json.dumps({"u": ["https://h/a"] * 20_001}).encode()
    with pytest.raises(InvalidRequest):
        desk.receive(hook, Incoming({"x-signature": mac(body).hex()}, body))


@pytest.mark.parametrize("body", [b'{"url": "https://h/\\ud800"}', b'{"url": "https://h/a", "\\udfff": 1}'])
def test_half_of_a_surrogate_pair_is_refused_and_a_whole_one_is_text(body: bytes) -> None:
    desk, hook = desk_with()
    with pytest.raises(InvalidRequest):
        desk.receive(hook, Incoming({"x-signature": mac(body).hex()}, body))
    whole = b'{"url": "https://h/\\ud83d\\ude00"}'
    assert desk.receive(hook, Incoming({"x-signature": mac(whole).hex()}, whole)).ingested == 1

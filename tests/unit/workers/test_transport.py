"""What the sieve in front of a queue lets through."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.transport import MOST_BYTES, Unreadable, head, sift

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def message(content: Any = None, *, encoding: str | None = "base64", **headers: Any) -> dict[str, Any]:
    text = json.dumps([[], {"door": "any", "bell": ""}, {"chain": None}] if content is None else content)
    return {
        "body": base64.b64encode(text.encode()).decode() if encoding == "base64" else text,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "trivet.embed", "id": "1", **headers},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "trivet.embed"},
            "delivery_tag": "tag",
            **({"body_encoding": encoding} if encoding else {}),
        },
    }


def sifted(value: object) -> dict[str, Any]:
    return sift(json.dumps(value).encode())


@pytest.mark.parametrize("encoding", ["base64", "utf-8", None])
def test_a_message_of_celery_passes_unchanged(encoding: str | None) -> None:
    made = message(encoding=encoding)
    assert sifted(made) == made


def test_a_message_of_the_first_version_of_the_protocol_passes() -> None:
    made = message({"task": "trivet.accept", "id": "1", "args": [{"url": "https://host/a"}], "kwargs": {}})
    made["headers"] = {}
    assert sifted(made) == made
    del made["headers"]
    assert sifted(made)["headers"] == {}


def test_no_sender_has_a_say_in_how_long_a_task_may_run() -> None:
    assert "timelimit" not in sifted(message(timelimit=[0.001, None]))["headers"]


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_or_refused(element: bytes) -> None:
    with pytest.raises(Unreadable):
        sift(element)


@given(JSON)
def test_json_of_any_kind_is_refused_unless_it_is_a_message(value: Any) -> None:
    with pytest.raises(Unreadable):
        sifted(value)


@given(
    where=st.sampled_from(["body", "headers", "properties", "content-type", "content-encoding"]),
    value=JSON,
    drop=st.booleans(),
)
def test_a_message_with_anything_in_a_field_is_read_or_refused(where: str, value: Any, drop: bool) -> None:
    made = message()
    if drop:
        del made[where]
    else:
        made[where] = value
    try:
        found = sifted(made)
    except Unreadable:
        return
    assert isinstance(found["properties"]["delivery_tag"], str)
    assert isinstance(found["headers"], dict)


@given(
    field=st.sampled_from(["delivery_tag", "delivery_info", "body_encoding", "task", "id", "compression"]), value=JSON
)
def test_anything_in_a_header_or_property_is_read_or_refused(field: str, value: Any) -> None:
    made = message()
    made["headers" if field in ("task", "id", "compression") else "properties"][field] = value
    try:
        sifted(made)
    except Unreadable:
        return


def test_what_is_too_large_is_not_even_read() -> None:
    with pytest.raises(Unreadable, match="4194304 are allowed"):
        sift(b"x" * (MOST_BYTES + 1))


@pytest.mark.parametrize(
    "element",
    [
        b'{"url": "https://user:secret@host/a?token=secret", "x": 1}',
        json.dumps(message([["https://host/?q=secret"], {}, {}])).encode(),
        b"https://host/" + b"a" * 90 + b"?q=secret",
        b"\xff\xfe Authorization: Bearer secretsecret",
    ],
)
def test_the_log_shows_no_secret_of_an_element(element: bytes) -> None:
    shown = head(element)
    assert "secret" not in shown
    assert base64.b64encode(b"https://host")[:12].decode() not in shown
    assert len(shown) <= 120

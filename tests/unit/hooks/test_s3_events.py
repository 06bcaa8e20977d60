"""S3 events of every form: what came, what went, what was renamed, and in which order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hooking import Desk
from trivet.errors import InvalidRequest
from trivet.hooks import Hook


def record(name: str, key: str = "a.pdf", bucket: str = "docs", **thing: str) -> dict[str, Any]:
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key, **thing}}}


def records(*each: dict[str, Any]) -> dict[str, Any]:
    return {"Records": list(each)}


def event(kind: str, key: str = "a.pdf", **detail: Any) -> dict[str, Any]:
    thing = {"key": key, **detail.pop("object", {})}
    return {"source": "aws.s3", "detail-type": kind, "detail": {"bucket": {"name": "docs"}, "object": thing, **detail}}


def filer(kind: str, key: str = "/buckets/docs/a.pdf", **message: Any) -> dict[str, Any]:
    return {"key": key, "event_type": kind, "message": message}


INGEST = [("ingest", "s3://docs/a.pdf")]


def gone(hook: Hook, url: str = "s3://docs/a.pdf") -> tuple[str, str]:
    return ("delete", hook.object_id(url))


@pytest.mark.parametrize(
    "payload",
    [
        records(record("ObjectCreated:Put")),
        records(record("s3:ObjectCreated:CompleteMultipartUpload", versionId="v7")),
        records(record("ObjectCreated:Copy")),
        records(record("ObjectRestore:Completed")),
        # One version of several went: what the key names now is for a fetch to see.
        records(record("ObjectRemoved:Delete", versionId="v7")),
        event("Object Created", reason="PutObject"),
        event("Object Restore Completed"),
        event("Object Deleted", object={"version-id": "v7"}, **{"deletion-type": "Permanently Deleted"}),
        filer("create", new_entry={"name": "a.pdf"}),
        filer("update", old_entry={"name": "a.pdf"}, new_entry={"name": "a.pdf"}),
    ],
)
def test_what_came_or_changed_is_ingested(payload: dict[str, Any]) -> None:
    desk = Desk()
    assert desk.sent(desk.add("s3"), payload) == INGEST


@pytest.mark.parametrize(
    "payload",
    [
        records(record("ObjectRemoved:Delete")),
        records(record("ObjectRemoved:Delete", versionId="null")),
        records(record("s3:ObjectRemoved:DeleteMarkerCreated", versionId="v7")),
        records(record("LifecycleExpiration:Delete")),
        records(record("LifecycleExpiration:DeleteMarkerCreated", versionId="v7")),
        event("Object Deleted", **{"deletion-type": "Permanently Deleted"}),
        event("Object Deleted", object={"version-id": "v7"}, **{"deletion-type": "Delete Marker Created"}),
        filer("delete", old_entry={"name": "a.pdf"}),
    ],
)
def test_what_went_is_deleted(payload: dict[str, Any]) -> None:
    desk = Desk()
    hook = desk.add("s3")
    assert desk.sent(hook, payload) == [gone(hook)]


def test_a_rename_deletes_the_old_object_and_ingests_the_new_one() -> None:
    desk = Desk()
    hook = desk.add("s3")
    moved = filer(
        "rename", old_entry={"name": "a.pdf"}, new_entry={"name": "b.pdf"}, new_parent_path="/buckets/docs/archive"
    )
    assert desk.sent(hook, moved) == [gone(hook), ("ingest", "s3://docs/archive/b.pdf")]
    away = filer("rename", old_entry={"name": "a.pdf"}, new_entry={"name": "a.pdf"}, new_parent_path="/tmp")
    assert desk.sent(hook, away) == [gone(hook)]


def test_a_move_by_copy_and_delete_is_the_same() -> None:
    desk = Desk()
    hook = desk.add("s3")
    both = records(record("ObjectCreated:Copy", "b.pdf"), record("ObjectRemoved:Delete", "a.pdf"))
    assert desk.sent(hook, both) == [("ingest", "s3://docs/b.pdf"), gone(hook)]


@pytest.mark.parametrize(
    "payload",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "docs"},
        records(),
        records(record("ObjectTagging:Put")),
        records(record("ObjectCreated:Put", bucket="secret")),
        records(record("ObjectCreated:Put", "folder/")),
        records(record("ObjectCreated:Put", "")),
        records(None, 3, {}),  # type: ignore[arg-type]  # hostile
        event("Object Tags Added"),
        filer("create", "/buckets/docs/folder", new_entry={"name": "folder", "is_directory": True}),
        filer("create", "/etc/passwd", new_entry={"name": "passwd"}),
        filer("chmod", new_entry={"name": "a.pdf"}),
    ],
)
def test_what_is_no_object_of_the_hook_is_left(payload: dict[str, Any]) -> None:
    desk = Desk()
    assert desk.sent(desk.add("s3"), payload) == []


def test_prefixes_and_suffixes_choose() -> None:
    desk = Desk()
    hook = desk.add("s3", prefixes=["public/"], suffixes=[".pdf", ".md"])
    names = ["public/a.pdf", "private/a.pdf", "public/a.exe", "public/x/b.md"]
    sent = desk.sent(hook, records(*(record("ObjectCreated:Put", name) for name in names)))
    assert [url for _, url in sent] == ["s3://docs/public/a.pdf", "s3://docs/public/x/b.md"]


def test_keys_of_records_are_form_encoded_and_those_of_eventbridge_are_not() -> None:
    desk = Desk()
    hook = desk.add("s3")
    assert desk.sent(hook, records(record("ObjectCreated:Put", "M%C3%A4rz+2026%2B1.pdf"))) == [
        ("ingest", "s3://docs/M%C3%A4rz%202026%2B1.pdf")
    ]
    assert desk.sent(hook, event("Object Created", "März 2026+1%20.pdf")) == [
        ("ingest", "s3://docs/M%C3%A4rz%202026%2B1%2520.pdf")
    ]


@given(st.text(min_size=1, max_size=40).filter(lambda key: not key.endswith("/")))
def test_the_url_of_any_key_is_read_back_as_that_key(key: str) -> None:
    from trivet.fetch.s3 import _request

    try:
        key.encode()
    except UnicodeEncodeError:
        return
    desk = Desk()
    hook = desk.add("s3")
    actions = desk.receiver._scheme("s3").read(hook, desk.signed(hook, event("Object Created", key))).actions
    if actions:
        assert _request(actions[0].url, "") == {"Bucket": "docs", "Key": key}


def test_an_event_that_comes_late_does_not_undo_a_later_one() -> None:
    desk = Desk()
    hook = desk.add("s3")
    later = records(record("ObjectRemoved:Delete", sequencer="0055AED6DCD90281E6"))
    earlier = records(record("ObjectCreated:Put", sequencer="0055AED6DCD90281E5"))
    assert desk.sent(hook, later) == [gone(hook)]
    assert desk.sent(hook, earlier) == []
    newest = records(record("ObjectCreated:Put", sequencer="0055AED6DCD90281E7"))
    assert desk.sent(hook, newest) == INGEST


def test_a_sequencer_that_is_none_orders_nothing() -> None:
    desk = Desk()
    hook = desk.add("s3")
    for sequencer in ("zz", "", "f" * 200):
        assert desk.sent(hook, records(record("ObjectCreated:Put", sequencer=sequencer, eTag=sequencer))) == INGEST


def test_the_token_may_be_sent_with_and_without_its_scheme() -> None:
    from trivet.hooks import Incoming

    desk = Desk()
    hook = desk.hooks.add("s3", collection="c", options={"buckets": ["docs"]}, secret="0123456789abcdef")
    for number, value in enumerate(("Bearer 0123456789abcdef", "0123456789abcdef")):
        body = desk.signed(hook, records(record("ObjectCreated:Put", f"{number}.pdf"))).body
        assert desk.receive(hook, Incoming({"authorization": value}, body)).ingested == 1


@pytest.mark.parametrize("wrong", [{"buckets": []}, {"buckets": "docs"}, {"bucket": "docs"}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Desk().add("s3", **wrong)


def test_a_payload_that_is_no_event_is_refused() -> None:
    desk = Desk()
    hook = desk.add("s3")
    with pytest.raises(InvalidRequest):
        desk.receive(hook, desk.signed(hook, {"hello": "world"}))

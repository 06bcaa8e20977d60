"""An entry of the stream as far as deliveries look into it."""

from __future__ import annotations

import json

from trivet.delivery.values import StreamEvent

PREFIX = "trivet."


def stream_event(entry: str, body: bytes) -> StreamEvent | None:
    """The event of an entry, or None where it is none. `fan_out.lua` judges the same."""
    try:
        event = json.loads(body.decode("utf-8", "surrogateescape"))
        data = event["data"]
        event_id, kind, namespace = event["id"], event["type"], data["namespace"]
        collection = data.get("collection") or ""
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not all(isinstance(text, str) for text in (event_id, kind, namespace, collection)):
        return None
    return StreamEvent(entry, event_id, kind.removeprefix(PREFIX), namespace, collection, body)


def subject_of(body: bytes) -> str:
    """The object that an event is of; empty where it names none."""
    subject = json.loads(body).get("subject")
    return subject if isinstance(subject, str) else ""

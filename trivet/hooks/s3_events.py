"""What object stores say of changes: records of S3, events of EventBridge, and those of SeaweedFS' filer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote_plus

from pydantic import Field

from trivet.errors import InvalidRequest
from trivet.hooks.signatures import mapping, text
from trivet.hooks.values import Action, Delete, Hook, Ingest, Reading
from trivet.values import Frozen

_SEQUENCER = re.compile(r"[0-9A-Fa-f]{1,64}", re.ASCII)
#: Where SeaweedFS keeps buckets in its tree of files.
_BUCKETS = "/buckets/"


class S3Options(Frozen):
    """Which objects."""

    #: Buckets that the hook may name; the workers' TRIVET_ALLOW_BUCKETS must have them too.
    buckets: tuple[str, ...] = Field(min_length=1, max_length=100)
    #: Keys that begin so; none: all.
    prefixes: tuple[str, ...] = ()
    #: Keys that end so; none: all.
    suffixes: tuple[str, ...] = ()

    def refusal(self, bucket: str, key: str) -> str:
        """Why an object is not one of the hook's; empty where it is."""
        if bucket not in self.buckets:
            return f"Bucket {bucket[:80]!r} is not one of this hook's."
        if not key or key.endswith("/"):
            return f"{key[:200]!r} is no object."
        if self.prefixes and not key.startswith(self.prefixes):
            return f"{key[:200]!r} is not below the hook's prefixes."
        if self.suffixes and not key.endswith(self.suffixes):
            return f"{key[:200]!r} has none of the hook's suffixes."
        return ""


def reading(options: S3Options, hook: Hook, payload: Mapping[str, Any]) -> Reading:
    """What a payload means that is one of the three. Raises `InvalidRequest` for any other."""
    if payload.get("Event") == "s3:TestEvent":
        return Reading("s3:TestEvent", ignored=("A test event says that the notification is set up.",))
    if isinstance(payload.get("Records"), list):
        return _of(options, hook, _records(payload["Records"]))
    if payload.get("source") == "aws.s3" and isinstance(payload.get("detail"), dict):
        return _of(options, hook, _eventbridge(payload))
    if "event_type" in payload and isinstance(payload.get("message"), dict):
        return _of(options, hook, _seaweedfs(payload))
    raise InvalidRequest("The delivery is no S3 event: it has no Records, no detail of aws.s3 and no event_type.")


#: One change: the event's name, bucket, key, the sequencer, and whether the object is there afterwards (None: it
#: changed in a way that matters to nobody here).
_Change = tuple[str, str, str, str, bool | None]


def _of(options: S3Options, hook: Hook, changes: Iterator[_Change]) -> Reading:
    actions: list[Action] = []
    ignored: list[str] = []
    kinds: list[str] = []
    for kind, bucket, key, order, there in changes:
        kinds.append(kind)
        if there is None:
            ignored.append(f"{kind[:60]!r} changes no object's content.")
        elif why := options.refusal(bucket, key):
            ignored.append(why)
        else:
            url = f"s3://{bucket}/{quote(key, safe='/')}"
            order = order.lower() if _SEQUENCER.fullmatch(order) else ""
            named = hook.object_id(url)
            actions.append(Ingest(url, named, order=order) if there else Delete(named, url, order))
    return Reading(", ".join(dict.fromkeys(kinds))[:100] or "nothing", tuple(actions), tuple(ignored))


def _records(records: list[Any]) -> Iterator[_Change]:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html

    Keys are form-encoded.
    """
    for record in map(mapping, records):
        kind = text(record.get("eventName")).removeprefix("s3:")
        s3 = mapping(record.get("s3"))
        thing = mapping(s3.get("object"))
        version = text(thing.get("versionId"))
        yield (
            kind,
            text(mapping(s3.get("bucket")).get("name")),
            unquote_plus(text(thing.get("key"))),
            text(thing.get("sequencer")),
            _there(kind, version),
        )


def _there(kind: str, version: str) -> bool | None:
    family, _, how = kind.partition(":")
    if family == "ObjectCreated" or kind == "ObjectRestore:Completed":
        return True
    if family == "ObjectRemoved" or family == "LifecycleExpiration":
        # One version of several is gone for good: what the key names now is for a fetch to see.
        return how == "Delete" and version not in ("", "null")
    return None


def _eventbridge(event: Mapping[str, Any]) -> Iterator[_Change]:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html; keys stand as they are."""
    kind, detail = text(event.get("detail-type")), mapping(event.get("detail"))
    thing = mapping(detail.get("object"))
    there = {"Object Created": True, "Object Restore Completed": True, "Object Deleted": False}.get(kind)
    if kind == "Object Deleted" and text(detail.get("deletion-type")).startswith("Permanently"):
        there = text(thing.get("version-id")) not in ("", "null")
    bucket = text(mapping(detail.get("bucket")).get("name"))
    yield kind, bucket, text(thing.get("key")), text(thing.get("sequencer")), there


def _seaweedfs(event: Mapping[str, Any]) -> Iterator[_Change]:
    """SeaweedFS' notification.webhook: a path in the filer's tree, before and after. A rename is one event."""
    kind, message = text(event.get("event_type")), mapping(event.get("message"))
    path = text(event.get("key"))
    old, new = mapping(message.get("old_entry")), mapping(message.get("new_entry"))
    if bool(old.get("is_directory")) or bool(new.get("is_directory")):
        yield kind, "", path, "", None
        return
    if not path.startswith(_BUCKETS):
        yield kind, "", path, "", None
        return
    folder = path.rpartition("/")[0]
    target = f"{text(message.get('new_parent_path')) or folder}/{text(new.get('name')) or path.rpartition('/')[2]}"
    if kind == "rename" or (old and new and target != path):
        yield kind, *_place(path), "", False
        if target.startswith(_BUCKETS):
            yield kind, *_place(target), "", True
        return
    yield kind, *_place(path), "", {"create": True, "update": True, "delete": False}.get(kind)


def _place(path: str) -> tuple[str, str]:
    bucket, _, key = path.removeprefix(_BUCKETS).partition("/")
    return bucket, key

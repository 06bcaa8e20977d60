"""Ids, hashes and URLs: everything here is a pure function of its arguments."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import secrets
import time
import uuid
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from trivet.errors import InvalidRequest

#: Namespace of all event ids: uuid5(NAMESPACE_URL, "https://trivet.dev/events").
EVENT_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://trivet.dev/events")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OBJECT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@+-]{0,127}")
#: What a source URL may start with; `trivet.fetch.FETCHERS` has one fetcher for each.
SCHEMES = ("https", "http", "s3", "data", "file", "upload")

_DEFAULT_PORTS = {"http": 80, "https": 443}


def new_task_id() -> str:
    """`task_` + 32 hex digits that sort by time of creation (48 bits of milliseconds, 80 random bits)."""
    return f"task_{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


def check_name(value: str, what: str) -> str:
    """A namespace or collection name as it is, or `InvalidRequest`: it becomes part of keys in Redis and S3."""
    if not _NAME.fullmatch(value):
        raise InvalidRequest(
            f"{what} {value[:80]!r} is not a valid name.",
            hint="Use 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit.",
        )
    return value


def check_object_id(value: str) -> str:
    """A caller's own object id as it is, or `InvalidRequest`."""
    if not _OBJECT_ID.fullmatch(value):
        raise InvalidRequest(
            f"Object id {value[:140]!r} is not valid.",
            hint="Use 1 to 128 letters, digits or . _ ~ : @ + -, starting with a letter or digit.",
        )
    return value


def canonical_url(url: str) -> str:
    """The URL in the form that names one source: scheme and host in lower case, no default port, no fragment.

    Raises `InvalidRequest` for anything that is no absolute URL.
    """
    if is_data_url(url):
        return "data:" + url[5:]
    parts = _split(url)
    host = (parts.hostname or "").rstrip(".").lower()
    if parts.scheme in ("http", "https") and not host:
        raise InvalidRequest(f"{redact_url(url)!r} names no host.", hint="Give a full URL, such as https://host/path.")
    port = parts.port
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS.get(parts.scheme):
        netloc += f":{port}"
    if parts.scheme in ("s3", "upload"):
        netloc = parts.netloc
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._") or ("/" if parts.scheme in ("http", "https") else "")
    return urlunsplit((parts.scheme, netloc, path, parts.query, ""))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError:
        raise InvalidRequest(
            "The source URL cannot be read.", hint="Give a full URL, such as https://host/path."
        ) from None
    if not parts.scheme:
        raise InvalidRequest(
            f"{redact_url(url)!r} is not an absolute URL.", hint="Start it with https://, http://, s3:// or data:."
        )
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        meant = difflib.get_close_matches(scheme, SCHEMES, n=1)
        raise InvalidRequest(
            f"{redact_url(url)!r} has the scheme {scheme[:20]!r}, which cannot be fetched.",
            hint=f"Did you mean {meant[0]}?" if meant else f"Use one of {', '.join(SCHEMES)}.",
        )
    return parts._replace(scheme=scheme)


def is_data_url(url: str) -> bool:
    """Whether the URL holds its content itself; schemes are case-insensitive."""
    return url[:5].lower() == "data:"


def redact_url(url: str) -> str:
    """The URL without user info, query and fragment (a `?…` stays where a query was); data URLs keep their type."""
    if is_data_url(url):
        return url.split(",", 1)[0][:80] + ",…"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(unreadable URL)"
    if not parts.netloc and "@" in parts.path:
        # `https:user:password@host`: no host was recognised, so what stands there may be anything.
        return f"{parts.scheme}:(unreadable URL)"
    netloc = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit((parts.scheme, netloc, parts.path, "", "")) + ("?…" if parts.query else "")


def object_id_for(namespace: str, collection: str, url: str) -> str:
    """`obj_` + 24 hex digits of SHA-256 over namespace, collection and canonical URL."""
    text = "\x00".join((namespace, collection, canonical_url(url)))
    return "obj_" + hashlib.sha256(text.encode()).hexdigest()[:24]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any, length: int = 16) -> str:
    """The first `length` hex digits of SHA-256 over the value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def event_id(task_id: str, run: int, kind: str) -> str:
    """uuid5 over task, run and kind: the same on every redelivery. The ledger's Lua computes the same."""
    return str(uuid.uuid5(EVENT_NAMESPACE, f"{task_id}/{run}/{kind}"))


def chunk_id(object_id: str, ordinal: int, text: str, context: str) -> str:
    """`doc_` + 24 hex digits: stable for the same text at the same place of the same object."""
    return "doc_" + digest([object_id, ordinal, context, text], 24)

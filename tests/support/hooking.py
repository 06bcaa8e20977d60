"""Hooks of every scheme over books in memory, with a producer that only notes what it is asked for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trivet.clock import ManualClock
from trivet.errors import SourceRefused, TrivetError
from trivet.hooks import Hook, Incoming, Received
from trivet.hooks.memory import MemoryHooks
from trivet.hooks.receiving import Receiver
from trivet.hooks.service import Hooks
from trivet.limits.memory import MemoryLimiter
from trivet.settings import Settings

TOPIC = "arn:aws:sns:eu-central-1:123456789012:documents"
#: What a hook of each scheme needs at least.
OPTIONS: dict[str, dict[str, Any]] = {
    "standard": {},
    "github": {},
    "s3": {"buckets": ["docs"]},
    "sns": {"topics": [TOPIC], "s3": {"buckets": ["docs"]}},
    "eventbridge": {"buckets": ["docs"]},
    "hmac": {},
}


@dataclass(frozen=True)
class Asked:
    """One call of the producer."""

    what: str
    url: str
    object_id: str
    key: str
    metadata: dict[str, Any] = field(default_factory=dict)
    task_id: str = ""


@dataclass
class Noting:
    """A `Producer`."""

    calls: list[Asked] = field(default_factory=list)
    #: Raised by the next calls, one each.
    errors: list[TrivetError | None] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def _asked(self, what: str, url: str, object_id: str, key: str, metadata: dict[str, Any] | None = None) -> Asked:
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        known = next((call for call in self.calls if call.key == key), None)
        if known is not None:
            return known
        made = Asked(what, url, object_id, key, metadata or {}, f"task_{next(self._numbers)}")
        self.calls.append(made)
        return made

    def ingest(
        self,
        url: str,
        *,
        collection: str,
        object_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: dict[str, Any] | None = None,
        media_type: str | None = None,
    ) -> Asked:
        return self._asked("ingest", url, object_id or "", idempotency_key or "", metadata)

    def delete(self, object_id: str, *, collection: str, idempotency_key: str = "") -> Asked:
        return self._asked("delete", "", object_id, idempotency_key)


@dataclass
class NotingGetter:
    """A `Getter` that has a few files and no net."""

    files: dict[str, bytes] = field(default_factory=dict)
    got: list[str] = field(default_factory=list)

    def get(self, url: str, most_bytes: int) -> bytes:
        self.got.append(url)
        if url not in self.files:
            raise SourceRefused("The net is not there.")
        return self.files[url]

    def close(self) -> None:
        pass


class Desk:
    """Everything that a delivery passes, without servers."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.clock = ManualClock()
        self.book = MemoryHooks(self.clock)
        self.producer = Noting()
        self.getter = NotingGetter()
        self.hooks = Hooks(self.settings, "ns", book=self.book, clock=self.clock)
        self.receiver = Receiver(
            self.settings, self.book, MemoryLimiter(self.clock), lambda _: self.producer, self.getter, self.clock
        )

    def add(self, scheme: str, **options: Any) -> Hook:
        return self.hooks.add(scheme, collection="c", options={**OPTIONS[scheme], **options})

    def signed(self, hook: Hook, payload: Any = b"") -> Incoming:
        """A delivery as the hook's sender makes it; the certificate that it needs can be got."""
        from trivet.hooks import open_scheme

        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        sample = open_scheme(hook.scheme, self.getter).sample(hook, self.clock.now(), body)
        if hook.scheme == "sns":
            certificates = sample.scheme._certificates._kept  # type: ignore[attr-defined] # only SNS has certificates
            from cryptography.hazmat.primitives.serialization import Encoding

            self.getter.files |= {url: each.public_bytes(Encoding.PEM) for url, each in certificates.items()}
        return sample.incoming

    def receive(self, hook: Hook, incoming: Incoming) -> Received:
        return self.receiver.receive(hook.hook_id, incoming)

    def sent(self, hook: Hook, payload: Any = b"") -> list[tuple[str, str]]:
        """What a delivery of this payload was asked to do: (what, url or object id)."""
        before = len(self.producer.calls)
        self.receive(hook, self.signed(hook, payload))
        return [(call.what, call.url or call.object_id) for call in self.producer.calls[before:]]

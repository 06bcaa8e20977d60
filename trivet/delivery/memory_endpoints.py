"""The twin of the book of endpoints: it lives in this process, with a stream of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

from pydantic import SecretStr

from trivet.clock import Clock
from trivet.delivery.reading import stream_event
from trivet.delivery.refusals import unknown_endpoint
from trivet.delivery.values import (
    Attempt,
    Delivery,
    DeliveryState,
    Endpoint,
    EndpointState,
    FannedOut,
    NewEndpoint,
    SigningSecret,
    StreamEvent,
    Waiting,
)
from trivet.settings import Settings

_Method = TypeVar("_Method", bound=Callable[..., Any])


def locked(method: _Method) -> _Method:
    @wraps(method)
    def held(self: MemoryEndpoints, *arguments: Any, **named: Any) -> Any:
        with self._lock:
            return method(self, *arguments, **named)

    return held  # type: ignore[return-value]  # the same signature


@dataclass
class Row:
    """A delivery with what Redis keeps beside it."""

    delivery: Delivery
    body: bytes
    operation: str
    due: float
    epoch: int = 0
    owner: str = ""
    lease_end: float = 0.0
    expiries: int = 0
    first_failed: float | None = None
    paused_before: float = 0.0


@dataclass
class Desk:
    """What the book knows of one endpoint."""

    endpoint: Endpoint
    rows: dict[str, Row] = field(default_factory=dict)
    log: list[Attempt] = field(default_factory=list)
    turn: int = 0
    paused_seconds: float = 0.0
    failures: int = 0

    def change(self, **changes: Any) -> None:
        self.endpoint = self.endpoint.model_copy(update=changes)


class MemoryEndpoints:
    """`EndpointBook` without Redis; `append` is what a transition does there."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.RLock()
        self._stream: list[tuple[str, bytes]] = []
        self._read = 0
        self._desks: dict[str, Desk] = {}
        self._operations: dict[str, tuple[str, list[Row]]] = {}
        self._numbers = 0

    def close(self) -> None:
        pass

    @locked
    def append(self, body: bytes) -> str:
        """Put an event on the stream; returns its stream id."""
        entry = f"{int(self._clock.now() * 1000)}-{len(self._stream)}"
        self._stream.append((entry, body))
        return entry

    # ------------------------------------------------------------ endpoints

    @locked
    def add(self, endpoint: NewEndpoint) -> Endpoint:
        if endpoint.endpoint_id not in self._desks:
            now = self._clock.now()
            since = self._stream[-1][0] if self._stream else "0-0"
            fields = dict(endpoint)
            self._desks[endpoint.endpoint_id] = Desk(Endpoint(**fields, changed_at=now, created_at=now, since=since))
        return self.endpoint(endpoint.endpoint_id)

    @locked
    def endpoint(self, endpoint_id: str) -> Endpoint:
        return self._desk(endpoint_id).endpoint

    @locked
    def endpoints(self, namespace: str) -> list[Endpoint]:
        found = [desk.endpoint for desk in self._desks.values() if desk.endpoint.namespace == namespace]
        return sorted(found, key=lambda endpoint: (endpoint.created_at, endpoint.endpoint_id))

    @locked
    def remove(self, endpoint_id: str) -> None:
        self._desks.pop(endpoint_id, None)

    @locked
    def rotate_secret(self, endpoint_id: str, secret: str, overlap_seconds: float) -> Endpoint:
        desk, now = self._desk(endpoint_id), self._clock.now()
        old = desk.endpoint.secrets
        if all(each.value.get_secret_value() != secret for each in old):
            until = now + overlap_seconds
            ends = [SigningSecret(value=s.value, expires_at=min(s.expires_at or until, until)) for s in old]
            kept = [each for each in ends if (each.expires_at or 0) > now]
            desk.change(secrets=(SigningSecret(value=SecretStr(secret)), *kept))
        return desk.endpoint

    @locked
    def pause(self, endpoint_id: str, reason: str) -> bool:
        desk = self._desk(endpoint_id)
        if desk.endpoint.state is EndpointState.PAUSED:
            return False
        desk.change(state=EndpointState.PAUSED, reason=reason, changed_at=self._clock.now())
        return True

    @locked
    def resume(self, endpoint_id: str) -> bool:
        desk, now = self._desk(endpoint_id), self._clock.now()
        if desk.endpoint.state is EndpointState.ACTIVE:
            return False
        desk.paused_seconds += now - desk.endpoint.changed_at
        desk.failures = 0
        desk.change(state=EndpointState.ACTIVE, reason="", changed_at=now, failing_since=None)
        for row in desk.rows.values():
            row.due = min(row.due, now)
        return True

    @locked
    def caught_up(self, endpoint_id: str, missed_until: str) -> None:
        desk = self._desk(endpoint_id)
        if desk.endpoint.missed_until == missed_until:
            desk.change(missed_from=None, missed_until=None)
        elif desk.endpoint.missed_until:
            desk.change(missed_from=missed_until)

    @locked
    def waiting(self, endpoint_id: str) -> Waiting:
        desk = self._desks.get(endpoint_id)
        states = [row.delivery.state for row in desk.rows.values()] if desk else []
        return Waiting(states.count(DeliveryState.PENDING), states.count(DeliveryState.LEASED))

    @locked
    def log(self, endpoint_id: str, limit: int) -> list[Attempt]:
        return self._desk(endpoint_id).log[:limit]

    def _desk(self, endpoint_id: str) -> Desk:
        if endpoint_id not in self._desks:
            raise unknown_endpoint(endpoint_id)
        return self._desks[endpoint_id]

    # ------------------------------------------------------------ the stream

    def wait(self, after: str, seconds: float) -> bool:
        if any(_place(entry) > _place(after) for entry, _ in self._stream):
            return True
        self._clock.sleep(seconds)
        return False

    @locked
    def fan_out(self, count: int) -> FannedOut:
        if not self._desks:
            self._read = len(self._stream)
        entries = self._stream[self._read : self._read + count]
        self._read += len(entries)
        made = unreadable = 0
        for entry, body in entries:
            event = stream_event(entry, body)
            if event is None:
                unreadable += 1
                continue
            for desk in self._desks.values():
                endpoint = desk.endpoint
                wanted = endpoint.wants(event.kind, event.namespace, event.collection)
                if not wanted or _place(entry) <= _place(endpoint.since):
                    continue
                if endpoint.state is EndpointState.ACTIVE:
                    made += self._enqueue(desk, event, "")
                else:
                    first = min(endpoint.missed_from or entry, entry, key=_place)
                    last = max(endpoint.missed_until or entry, entry, key=_place)
                    desk.change(missed_from=first, missed_until=last)
        return FannedOut(len(entries), made, unreadable, self._stream[self._read - 1][0] if self._read else "0-0")

    def stream(self, first: str, last: str) -> Iterator[StreamEvent]:
        low = (0, 0) if first == "-" else _place(first)
        high = (float("inf"), 0) if last == "+" else _place(last, end=True)
        for entry, body in list(self._stream):
            if low <= _place(entry) <= high and (event := stream_event(entry, body)) is not None:
                yield event

    @locked
    def find(self, endpoint_id: str, event_id: str) -> StreamEvent | None:
        desk = self._desks.get(endpoint_id)
        row = desk.rows.get(event_id) if desk else None
        if row is not None and row.body:
            return stream_event(row.delivery.entry, row.body)
        return next((event for event in self.stream("-", "+") if event.event_id == event_id), None)

    @locked
    def put(self, endpoint_id: str, events: Sequence[StreamEvent], *, operation: str) -> int:
        desk = self._desk(endpoint_id)
        return sum(self._enqueue(desk, event, operation) for event in events)

    def _enqueue(self, desk: Desk, event: StreamEvent, operation: str) -> int:
        old = desk.rows.get(event.event_id)
        if old and (not operation or old.delivery.state is DeliveryState.LEASED or old.operation == operation):
            return 0
        now = self._clock.now()
        delivery = Delivery(
            endpoint_id=desk.endpoint.endpoint_id,
            event_id=event.event_id,
            kind=event.kind,
            entry=event.entry,
            state=DeliveryState.PENDING,
            created_at=now,
        )
        desk.rows[event.event_id] = Row(delivery, event.body, operation, now)
        return 1


def _place(entry: str, *, end: bool = False) -> tuple[float, float]:
    """A stream id as numbers; one without its second half means all of a millisecond."""
    head, _, tail = entry.partition("-")
    return float(head), float(tail) if tail else (float("inf") if end else 0.0)

"""Twins for tests: a book that lives in this process with a stream of its own, and an endpoint that keeps what it gets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, TypeVar

from pydantic import SecretStr

from trivet.clock import Clock
from trivet.delivery.reading import stream_event
from trivet.delivery.refusals import unknown_endpoint
from trivet.delivery.values import (
    LOST,
    Attempt,
    Claimed,
    Delivery,
    DeliveryState,
    Endpoint,
    EndpointState,
    FannedOut,
    NewEndpoint,
    Outcome,
    SigningSecret,
    StreamEvent,
    Waiting,
)
from trivet.settings import Settings

_ILL = 3
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _locked(method: _Method) -> _Method:
    @wraps(method)
    def held(self: MemoryDeliveries, *arguments: Any, **named: Any) -> Any:
        with self._lock:
            return method(self, *arguments, **named)

    return held  # type: ignore[return-value]  # the same signature


@dataclass
class _Row:
    delivery: Delivery
    body: bytes
    operation: str
    due: float
    epoch: int = 0
    owner: str = ""
    lease_end: float = 0.0
    expiries: int = 0
    first: float | None = None
    paused_before: float = 0.0


@dataclass
class _Desk:
    """What the book knows of one endpoint."""

    endpoint: Endpoint
    rows: dict[str, _Row] = field(default_factory=dict)
    log: list[Attempt] = field(default_factory=list)
    turn: int = 0
    paused_seconds: float = 0.0
    failures: int = 0

    def change(self, **changes: Any) -> None:
        self.endpoint = self.endpoint.model_copy(update=changes)


class MemoryDeliveries:
    """`Deliveries` without Redis; `append` is what a transition does there."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.RLock()
        self._stream: list[tuple[str, bytes]] = []
        self._read = 0
        self._desks: dict[str, _Desk] = {}
        self._operations: dict[str, tuple[str, list[_Row]]] = {}
        self._numbers = 0

    def close(self) -> None:
        pass

    @_locked
    def append(self, body: bytes) -> str:
        """Put an event on the stream; returns its stream id."""
        entry = f"{int(self._clock.now() * 1000)}-{len(self._stream)}"
        self._stream.append((entry, body))
        return entry

    # ------------------------------------------------------------ endpoints

    @_locked
    def add(self, endpoint: NewEndpoint) -> Endpoint:
        if endpoint.endpoint_id not in self._desks:
            now = self._clock.now()
            if not self._desks:
                self._read = len(self._stream)
            since = self._stream[-1][0] if self._stream else "0-0"
            fields = dict(endpoint)
            self._desks[endpoint.endpoint_id] = _Desk(Endpoint(**fields, changed_at=now, created_at=now, since=since))
        return self.endpoint(endpoint.endpoint_id)

    @_locked
    def endpoint(self, endpoint_id: str) -> Endpoint:
        return self._desk(endpoint_id).endpoint

    @_locked
    def endpoints(self, namespace: str) -> list[Endpoint]:
        found = [desk.endpoint for desk in self._desks.values() if desk.endpoint.namespace == namespace]
        return sorted(found, key=lambda endpoint: (endpoint.created_at, endpoint.endpoint_id))

    @_locked
    def remove(self, endpoint_id: str) -> None:
        self._desks.pop(endpoint_id, None)

    @_locked
    def rotate_secret(self, endpoint_id: str, secret: str, overlap_seconds: float) -> Endpoint:
        desk, now = self._desk(endpoint_id), self._clock.now()
        old = desk.endpoint.secrets
        if all(each.value.get_secret_value() != secret for each in old):
            until = now + overlap_seconds
            ends = [SigningSecret(value=s.value, expires_at=min(s.expires_at or until, until)) for s in old]
            kept = [each for each in ends if (each.expires_at or 0) > now]
            desk.change(secrets=(SigningSecret(value=SecretStr(secret)), *kept))
        return desk.endpoint

    @_locked
    def pause(self, endpoint_id: str, reason: str) -> bool:
        desk = self._desk(endpoint_id)
        if desk.endpoint.state is EndpointState.PAUSED:
            return False
        desk.change(state=EndpointState.PAUSED, reason=reason, changed_at=self._clock.now())
        return True

    @_locked
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

    @_locked
    def caught_up(self, endpoint_id: str, missed_from: str) -> None:
        desk = self._desk(endpoint_id)
        if desk.endpoint.missed_from == missed_from:
            desk.change(missed_from=None)

    @_locked
    def waiting(self, endpoint_id: str) -> Waiting:
        desk = self._desks.get(endpoint_id)
        states = [row.delivery.state for row in desk.rows.values()] if desk else []
        return Waiting(states.count(DeliveryState.PENDING), states.count(DeliveryState.LEASED))

    @_locked
    def log(self, endpoint_id: str, limit: int) -> list[Attempt]:
        return self._desk(endpoint_id).log[:limit]

    def _desk(self, endpoint_id: str) -> _Desk:
        if endpoint_id not in self._desks:
            raise unknown_endpoint(endpoint_id)
        return self._desks[endpoint_id]

    # ------------------------------------------------------------ the stream

    def wait(self, after: str, seconds: float) -> bool:
        if any(_place(entry) > _place(after) for entry, _ in self._stream):
            return True
        self._clock.sleep(seconds)
        return False

    @_locked
    def fan_out(self, count: int) -> FannedOut:
        entries = self._stream[self._read : self._read + count] if self._desks else []
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
                    missed = min(endpoint.missed_from or entry, entry, key=_place)
                    desk.change(missed_from=missed)
        return FannedOut(len(entries), made, unreadable, entries[-1][0] if entries else "")

    def stream(self, first: str, last: str) -> Iterator[StreamEvent]:
        low = (0, 0) if first == "-" else _place(first)
        high = (float("inf"), 0) if last == "+" else _place(last, end=True)
        for entry, body in list(self._stream):
            if low <= _place(entry) <= high and (event := stream_event(entry, body)) is not None:
                yield event

    @_locked
    def find(self, endpoint_id: str, event_id: str) -> StreamEvent | None:
        desk = self._desks.get(endpoint_id)
        row = desk.rows.get(event_id) if desk else None
        if row is not None and row.body:
            return stream_event(row.delivery.entry, row.body)
        return next((event for event in self.stream("-", "+") if event.event_id == event_id), None)

    # ------------------------------------------------------------ deliveries

    @_locked
    def put(self, endpoint_id: str, events: Sequence[StreamEvent], *, operation: str) -> int:
        desk = self._desk(endpoint_id)
        return sum(self._enqueue(desk, event, operation) for event in events)

    def _enqueue(self, desk: _Desk, event: StreamEvent, operation: str) -> int:
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
        desk.rows[event.event_id] = _Row(delivery, event.body, operation, now)
        return 1

    @_locked
    def claim(
        self, worker: str, operation: str, *, most: int, per_endpoint: int, lease_seconds: float
    ) -> list[Claimed]:
        last, rows = self._operations.get(worker, ("", []))
        if last == operation:
            return [self._claimed(row) for row in rows if row.owner == worker]
        now = self._clock.now()
        self._expire(now, lease_seconds)
        taken: list[_Row] = []
        while len(taken) < most and (row := self._next(worker, per_endpoint, now)) is not None:
            desk = self._desks[row.delivery.endpoint_id]
            self._numbers += 1
            desk.turn = row.epoch = self._numbers
            row.owner, row.lease_end = worker, now + lease_seconds
            if row.first is None:
                row.first, row.paused_before = now, desk.paused_seconds
            _change(row, state=DeliveryState.LEASED, attempts=row.delivery.attempts + 1)
            taken.append(row)
        self._operations[worker] = (operation, taken)
        return [self._claimed(row) for row in taken]

    def _expire(self, now: float, lease_seconds: float) -> None:
        for desk in self._desks.values():
            for row in desk.rows.values():
                if row.owner and row.lease_end <= now:
                    row.expiries += 1
                    row.owner, row.due = "", now + lease_seconds * (2 ** min(row.expiries - 1, 10) - 1)
                    _change(row, state=DeliveryState.PENDING)

    def _next(self, worker: str, per_endpoint: int, now: float) -> _Row | None:
        for desk in sorted(self._desks.values(), key=lambda desk: desk.turn):
            held = sum(row.owner == worker for row in desk.rows.values())
            full = held >= (1 if desk.failures >= _ILL else per_endpoint)
            if full or desk.endpoint.state is EndpointState.PAUSED:
                continue
            due = [r for r in desk.rows.values() if r.delivery.state is DeliveryState.PENDING and r.due <= now]
            if due:
                return min(due, key=lambda row: (row.due, row.delivery.event_id))
        return None

    def _claimed(self, row: _Row) -> Claimed:
        return Claimed(row.delivery, self._desks[row.delivery.endpoint_id].endpoint, row.body, row.epoch)

    def _mine(self, claimed: Claimed) -> tuple[_Desk, _Row] | None:
        desk = self._desks.get(claimed.delivery.endpoint_id)
        row = desk.rows.get(claimed.delivery.event_id) if desk else None
        return (desk, row) if desk and row and row.epoch == claimed.epoch else None

    @_locked
    def heartbeat(self, claimed: Sequence[Claimed], lease_seconds: float) -> list[Claimed]:
        lost = []
        for each in claimed:
            found = self._mine(each)
            if found and found[1].owner:
                found[1].lease_end = self._clock.now() + lease_seconds
            else:
                lost.append(each)
        return lost

    @_locked
    def release(self, claimed: Sequence[Claimed]) -> int:
        found = [mine for each in claimed if (mine := self._mine(each)) and mine[1].owner]
        for _, row in found:
            row.owner, row.due = "", self._clock.now()
            _change(row, state=DeliveryState.PENDING, attempts=row.delivery.attempts - 1)
        return len(found)

    @_locked
    def delivered(self, claimed: Claimed, *, status: str, seconds: float) -> str:
        found = self._mine(claimed)
        if not found:
            return LOST
        desk, row = found
        if row.owner:
            row.owner, row.body = "", b""
            _change(row, state=DeliveryState.DELIVERED, status=status, error="")
            desk.failures = 0
            desk.change(failing_since=None, last_success_at=self._clock.now())
            self._note(desk, row, True, seconds, None)
        return str(row.delivery.state)

    @_locked
    def failed(
        self, claimed: Claimed, *, status: str, error: str, seconds: float, delay_seconds: float, pause: str = ""
    ) -> tuple[str, bool]:
        found = self._mine(claimed)
        if not found:
            return LOST, False
        desk, row = found
        if not row.owner:
            return str(row.delivery.state), False
        now, patience = self._clock.now(), self._settings.deliver_patience_hours * 3600
        row.owner = ""
        desk.failures += 1
        failing_since = desk.endpoint.failing_since or now
        desk.change(failing_since=failing_since)
        if not pause and now - failing_since >= patience:
            pause = f"It has taken nothing for {patience / 3600:g} h."
        paused = bool(pause) and self.pause(desk.endpoint.endpoint_id, pause)
        tried = now - (row.first or now) - (desk.paused_seconds - row.paused_before)
        next_at = None
        if desk.endpoint.state is EndpointState.PAUSED:
            next_at = now + delay_seconds
        elif tried < patience:
            next_at = now + min(delay_seconds, patience - tried)
        row.due = next_at or now
        state = DeliveryState.GIVEN_UP if next_at is None else DeliveryState.PENDING
        _change(row, state=state, status=status, error=error)
        self._note(desk, row, False, seconds, next_at)
        return str(state), paused

    def _note(self, desk: _Desk, row: _Row, ok: bool, seconds: float, next_at: float | None) -> None:
        is_ = row.delivery
        line = Attempt(
            at=self._clock.now(),
            event_id=is_.event_id,
            kind=is_.kind,
            attempt=is_.attempts,
            ok=ok,
            status=is_.status,
            error=is_.error,
            seconds=seconds,
            next_at=next_at,
        )
        desk.log = [line, *desk.log][: self._settings.delivery_log_length]

    @_locked
    def delivery(self, endpoint_id: str, event_id: str) -> Delivery | None:
        desk = self._desks.get(endpoint_id)
        row = desk.rows.get(event_id) if desk else None
        if row is None:
            return None
        pending = row.delivery.state is DeliveryState.PENDING
        return row.delivery.model_copy(update={"next_at": row.due if pending else None})


def _change(row: _Row, **changes: Any) -> None:
    row.delivery = row.delivery.model_copy(update=changes)


def _place(entry: str, *, end: bool = False) -> tuple[float, float]:
    """A stream id as numbers; one without its second half means all of a millisecond."""
    head, _, tail = entry.partition("-")
    return float(head), float(tail) if tail else (float("inf") if end else 0.0)


class MemoryTransport:
    """Keeps what is sent. What `answers` holds is given back first, one per sending; then all is taken."""

    signs = False

    def __init__(self, settings: Settings | None = None) -> None:
        self.sent: list[tuple[str, str, bytes]] = []
        self.answers: list[Outcome | Exception] = []

    def check(self, target: str) -> None:
        """Every target is fine."""

    def send(self, endpoint: Endpoint, event: Delivery, body: bytes) -> Outcome:
        """Keep (endpoint id, event id, body)."""
        self.sent.append((endpoint.endpoint_id, event.event_id, body))
        answer = self.answers.pop(0) if self.answers else Outcome(True, "200")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing is open."""

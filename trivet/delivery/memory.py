"""Twins for tests: a book in this process with a stream of its own, and an endpoint that keeps what it gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trivet.delivery.memory_endpoints import Desk, MemoryEndpoints, Row, locked
from trivet.delivery.values import (
    LOST,
    Attempt,
    Claimed,
    Delivery,
    DeliveryState,
    Endpoint,
    EndpointState,
    Outcome,
)
from trivet.settings import Settings

_ILL = 3


class MemoryDeliveries(MemoryEndpoints):
    """`Deliveries` without Redis; `append` is what a transition does there."""

    @locked
    def claim(
        self, worker: str, operation: str, *, most: int, per_endpoint: int, lease_seconds: float
    ) -> list[Claimed]:
        last, rows = self._operations.get(worker, ("", []))
        if last == operation:
            return [self._claimed(row) for row in rows if row.owner == worker]
        now = self._clock.now()
        self._expire(now, lease_seconds)
        taken: list[Row] = []
        while len(taken) < most and (row := self._next(worker, per_endpoint, now)) is not None:
            desk = self._desks[row.delivery.endpoint_id]
            self._numbers += 1
            desk.turn = row.epoch = self._numbers
            row.owner, row.lease_end = worker, now + lease_seconds
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

    def _next(self, worker: str, per_endpoint: int, now: float) -> Row | None:
        for desk in sorted(self._desks.values(), key=lambda desk: desk.turn):
            held = sum(row.owner == worker for row in desk.rows.values())
            full = held >= (1 if desk.failures >= _ILL else per_endpoint)
            if full or desk.endpoint.state is EndpointState.PAUSED:
                continue
            due = [r for r in desk.rows.values() if r.delivery.state is DeliveryState.PENDING and r.due <= now]
            if due:
                return min(due, key=lambda row: (row.due, row.delivery.event_id))
        return None

    def _claimed(self, row: Row) -> Claimed:
        return Claimed(row.delivery, self._desks[row.delivery.endpoint_id].endpoint, row.body, row.epoch)

    def _mine(self, claimed: Claimed) -> tuple[Desk, Row] | None:
        desk = self._desks.get(claimed.delivery.endpoint_id)
        row = desk.rows.get(claimed.delivery.event_id) if desk else None
        return (desk, row) if desk and row and row.epoch == claimed.epoch else None

    @locked
    def heartbeat(self, claimed: Sequence[Claimed], lease_seconds: float) -> list[Claimed]:
        lost = []
        for each in claimed:
            found = self._mine(each)
            if found and found[1].owner:
                found[1].lease_end = self._clock.now() + lease_seconds
            else:
                lost.append(each)
        return lost

    @locked
    def release(self, claimed: Sequence[Claimed]) -> int:
        found = [mine for each in claimed if (mine := self._mine(each)) and mine[1].owner]
        for _, row in found:
            row.owner, row.due = "", self._clock.now()
            _change(row, state=DeliveryState.PENDING, attempts=row.delivery.attempts - 1)
        return len(found)

    @locked
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

    @locked
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
        if row.first_failed is None:
            row.first_failed, row.paused_before = now, desk.paused_seconds
        tried = now - row.first_failed - (desk.paused_seconds - row.paused_before)
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

    def _note(self, desk: Desk, row: Row, ok: bool, seconds: float, next_at: float | None) -> None:
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

    @locked
    def delivery(self, endpoint_id: str, event_id: str) -> Delivery | None:
        desk = self._desks.get(endpoint_id)
        row = desk.rows.get(event_id) if desk else None
        if row is None:
            return None
        pending = row.delivery.state is DeliveryState.PENDING
        return row.delivery.model_copy(update={"next_at": row.due if pending else None})


def _change(row: Row, **changes: Any) -> None:
    row.delivery = row.delivery.model_copy(update=changes)


class MemoryTransport:
    """Keeps what is sent. What `answers` holds is given back first, one per sending; then all is taken."""

    def __init__(self, _settings: Settings | None = None) -> None:
        self.sent: list[tuple[str, str, bytes]] = []
        self.answers: list[Outcome | Exception] = []

    def send(self, endpoint: Endpoint, event: Delivery, body: bytes) -> Outcome:
        """Keep (endpoint id, event id, body)."""
        self.sent.append((endpoint.endpoint_id, event.event_id, body))
        answer = self.answers.pop(0) if self.answers else Outcome(True, "200")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing is open."""

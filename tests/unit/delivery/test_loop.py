"""The deliverer over the twins: what it does with answers, errors and a book that is away."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from trivet.clock import SystemClock
from trivet.delivery import DeliveryState, EndpointState, NewEndpoint, Outcome
from trivet.delivery.loop import Deliverer, backoff
from trivet.delivery.memory import MemoryDeliveries, MemoryTransport
from trivet.delivery.values import StreamEvent
from trivet.errors import EndpointFailed, LedgerUnavailable, TransientError
from trivet.faults import arm, disarm
from trivet.settings import Settings

SETTINGS = Settings(
    deliver_retry_seconds=0.01,
    deliver_retry_max_seconds=0.05,
    lease_seconds=0.5,
    heartbeat_seconds=0.1,
    stop_seconds=5.0,
)


class Book(MemoryDeliveries):
    """Tells when a delivery changes."""

    def __init__(self) -> None:
        super().__init__(SETTINGS, SystemClock())
        self.away = 0
        self.calls = 0

    def claim(self, *arguments: Any, **named: Any) -> Any:
        self._maybe_away()
        return super().claim(*arguments, **named)

    def delivered(self, *arguments: Any, **named: Any) -> Any:
        self._maybe_away()
        return super().delivered(*arguments, **named)

    def _maybe_away(self) -> None:
        self.calls += 1
        if self.away > 0:
            self.away -= 1
            raise LedgerUnavailable("Redis does not answer.")


@pytest.fixture
def book() -> Book:
    made = Book()
    made.add(NewEndpoint(endpoint_id="end_1", namespace="ns", transport="memory", target="memory:"))
    return made


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    disarm()


def run(book: Book, transport: MemoryTransport, until: Callable[[], bool]) -> None:
    """Deliver until the condition holds."""
    over = threading.Event()
    watched = Deliverer(SETTINGS, book, over.is_set, random=Random(1), transports={"memory": transport})
    thread = threading.Thread(target=watched.run)
    thread.start()
    try:
        for _ in range(1000):
            if until():
                break
            threading.Event().wait(0.01)
        assert until()
    finally:
        over.set()
        thread.join(30)


def emit(book: Book, *event_ids: str) -> None:
    for event_id in event_ids:
        book.append(json.dumps({"id": event_id, "type": "trivet.x", "data": {"namespace": "ns"}}).encode())


def states(book: Book, *event_ids: str) -> set[str]:
    found = [book.delivery("end_1", event_id) for event_id in event_ids]
    return {delivery.state if delivery else "" for delivery in found}


def all_delivered(book: Book, *event_ids: str) -> Callable[[], bool]:
    return lambda: states(book, *event_ids) == {DeliveryState.DELIVERED}


def test_whatever_an_endpoint_answers_at_first_the_event_arrives(book: Book) -> None:
    transport = MemoryTransport()
    transport.answers = [
        EndpointFailed("It is away."),
        Outcome(False, "500", "It answered 500."),
        Outcome(False, "429", "It answered 429.", retry_after=3600.0),
        RuntimeError("a bug"),
    ]
    emit(book, "e1")
    run(book, transport, all_delivered(book, "e1"))
    assert [event_id for _, event_id, _ in transport.sent] == ["e1"] * 5
    errors = [attempt.error for attempt in reversed(book.log("end_1", 10))]
    assert errors == [
        "It is away.",
        "It answered 500.",
        "It answered 429.",
        "Sending ended with an unexpected RuntimeError.",
        "",
    ]


def test_an_endpoint_that_is_paused_is_told_in_the_log_with_the_event(book: Book) -> None:
    transport = MemoryTransport()
    transport.answers = [Outcome(False, "410", "It answered 410.", gone=True)]
    emit(book, "e1")
    with capture_logs() as logs:
        run(book, transport, lambda: book.endpoint("end_1").state is EndpointState.PAUSED)
    assert [(entry["event"], entry["event_id"]) for entry in logs] == [("endpoint.paused", "e1")]


def test_a_book_that_is_away_is_waited_for(book: Book) -> None:
    transport = MemoryTransport()
    emit(book, "e1")
    book.away = 2
    run(book, transport, all_delivered(book, "e1"))
    assert len(transport.sent) == 1


def test_a_delivery_that_was_sent_is_told_of_when_the_book_is_back(book: Book) -> None:
    transport = MemoryTransport()

    def away() -> None:
        book.away = 1

    arm("deliver.after_send", away)
    emit(book, "e1")
    run(book, transport, all_delivered(book, "e1"))
    assert len(transport.sent) == 1


@pytest.mark.parametrize("hook", ["after_read", "after_fan_out", "after_claim", "before_send", "after_send"])
def test_an_error_between_two_steps_loses_nothing(book: Book, hook: str) -> None:
    struck: list[str] = []

    def once() -> None:
        if not struck:
            struck.append(hook)
            raise TransientError("It was asked for.")

    arm(f"deliver.{hook}", once)
    emit(book, "e1", "e2")
    run(book, MemoryTransport(), all_delivered(book, "e1", "e2"))
    assert struck


def test_an_unknown_transport_is_tried_again_and_stops_nobody_else(book: Book) -> None:
    book.add(NewEndpoint(endpoint_id="end_2", namespace="ns", transport="pigeon", target="coo"))
    emit(book, "e1")
    run(book, MemoryTransport(), lambda: all_delivered(book, "e1")() and bool(book.log("end_2", 1)))
    assert "pigeon" in book.log("end_2", 1)[0].error


def test_an_endpoint_that_is_gone_is_paused(book: Book) -> None:
    transport = MemoryTransport()
    transport.answers = [Outcome(False, "410", "It answered 410.", gone=True)]
    emit(book, "e1")
    run(book, transport, lambda: book.endpoint("end_1").state == "paused")
    assert book.endpoint("end_1").reason == "It answered 410: it is gone."


def test_pauses_double_with_jitter_up_to_the_longest() -> None:
    settings = Settings(deliver_retry_seconds=5, deliver_retry_max_seconds=100)
    ceilings = [5, 10, 20, 40, 80, 100, 100]
    for attempts, ceiling in enumerate(ceilings, start=1):
        found = [backoff(attempts, None, settings, Random(n)) for n in range(200)]
        assert ceiling / 2 <= min(found) < max(found) <= ceiling
    assert backoff(10_000, None, settings, Random(1)) <= 100


def test_what_the_endpoint_asks_for_is_honoured_within_bounds() -> None:
    settings = Settings(deliver_retry_seconds=5, deliver_retry_max_seconds=100)
    assert backoff(1, 60, settings, Random(1)) == 60
    assert backoff(1, 1e9, settings, Random(1)) == 100
    assert backoff(1, 0, settings, Random(1)) >= 2.5


def test_a_delivery_for_which_no_thread_is_to_be_had_is_not_kept(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    book.put("end_1", [StreamEvent("1-0", "e", "ingest.completed", "ns", "", b"{}")], operation="")
    deliverer = Deliverer(SETTINGS, book, lambda: False, transports={"memory": MemoryTransport(SETTINGS)})
    monkeypatch.setattr(threading.Thread, "start", refuse)
    deliverer._deal()
    assert book.waiting("end_1").leased == 1
    assert deliverer._all_held() == [], "its lease runs out"

"""The process that sends events: one thread reads the stream, one thread per delivery sends, this one deals out."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import structlog

from trivet.clock import Clock, SystemClock
from trivet.delivery import Claimed, Deliveries, DeliveryState, Outcome, Transport, open_transport
from trivet.delivery.values import LOST
from trivet.errors import LedgerUnavailable, TrivetError
from trivet.faults import fault
from trivet.ids import redact_url
from trivet.settings import Settings

log = structlog.get_logger(__name__)

_PAGE = 100
#: How long the reader waits for an event before it looks whether to stop, and the dealer for something to do.
_READ_SECONDS = 1.0
_DEAL_SECONDS = 0.25
#: Between two tries of a Redis that is away.
_OUTAGE_SECONDS = 0.5


def deliver_forever(settings: Settings, stopping: Callable[[], bool]) -> None:
    """Send events until `stopping()`; then finish what is being sent, or hand it back after `settings.drain_seconds`.

    An unreachable Redis is waited for, and no event or endpoint can end it.
    """
    from trivet.delivery.redis import RedisDeliveries

    book = RedisDeliveries(settings)
    try:
        Deliverer(settings, book, stopping).run()
    finally:
        book.close()


@dataclass
class Deliverer:
    """Reads, deals out, sends, keeps leases. One per process; `run` is called once."""

    settings: Settings
    book: Deliveries
    stopping: Callable[[], bool]
    clock: Clock = field(default_factory=SystemClock)
    random: Random = field(default_factory=Random)
    transports: dict[str, Transport] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._held: dict[tuple[str, str, int], Claimed] = {}
        self._lock = threading.Lock()
        #: Set when there may be something to deal out: an event has come, or a thread is free.
        self._news = threading.Event()

    def run(self) -> None:
        """Until `stopping()`."""
        reader = threading.Thread(target=self._read_forever, name="trivet-events", daemon=True)
        reader.start()
        beat = self.clock.monotonic()
        try:
            while not self.stopping():
                beat = self._keep(beat)
                self._guarded("claim", self._deal)
                self._news.wait(_DEAL_SECONDS)
                self._news.clear()
            self._finish(beat)
        finally:
            reader.join(_READ_SECONDS + 5)
            for transport in self.transports.values():
                transport.close()

    # ------------------------------------------------------------ reading

    def _read_forever(self) -> None:
        after = "0-0"
        while not self.stopping():
            try:
                after = self._read(after)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next event must be read
                _complain("events.unread", error)
                self.clock.sleep(_OUTAGE_SECONDS)

    def _read(self, after: str) -> str:
        # Read even where nothing came: after a wipe the stream's ids may begin anew, below the last one read.
        if self.book.wait(after, _READ_SECONDS):
            fault("deliver.after_read")
        done = self.book.fan_out(_PAGE)
        fault("deliver.after_fan_out")
        if done.unreadable:
            log.warning("events.unreadable", count=done.unreadable, last=done.last)
        if done.deliveries:
            self._news.set()
        return done.last

    # ------------------------------------------------------------ dealing out

    def _deal(self) -> None:
        settings = self.settings
        room = settings.deliver_threads - len(self._held)
        if room <= 0:
            return
        claimed = self.book.claim(
            self._worker,
            uuid.uuid4().hex,
            most=room,
            # One slow endpoint leaves a thread for the others, whatever the settings say.
            per_endpoint=min(settings.deliver_per_endpoint, max(1, settings.deliver_threads - 1)),
            lease_seconds=settings.lease_seconds,
        )
        if claimed:
            fault("deliver.after_claim")
        for each in claimed:
            with self._lock:
                self._held[_key(each)] = each
            try:
                threading.Thread(target=self._deliver, args=(each,), name="trivet-deliver", daemon=True).start()
            except RuntimeError as error:
                # No thread is to be had. Kept in hand, its lease would be prolonged for as long as this process lives.
                _complain("deliver.not_started", error)
                with self._lock:
                    self._held.pop(_key(each))

    def _keep(self, beat: float) -> float:
        """Prolong all leases once in a while; returns when that was."""
        now = self.clock.monotonic()
        if now - beat < self.settings.heartbeat_seconds:
            return beat
        held = self._all_held()
        if held:
            self._guarded("heartbeat", lambda: self.book.heartbeat(held, self.settings.lease_seconds))
        return now

    def _all_held(self) -> list[Claimed]:
        with self._lock:
            return list(self._held.values())

    def _finish(self, beat: float) -> None:
        until = self.clock.monotonic() + self.settings.drain_seconds
        while self._all_held() and self.clock.monotonic() < until:
            beat = self._keep(beat)
            self._news.wait(_DEAL_SECONDS)
            self._news.clear()
        left = self._all_held()
        if left:
            self._guarded("release", lambda: self.book.release(left))

    def _guarded(self, what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - a process that delivers goes on
            _complain(f"deliver.{what}_failed", error)
            self.clock.sleep(_OUTAGE_SECONDS)

    # ------------------------------------------------------------ sending

    def _deliver(self, claimed: Claimed) -> None:
        try:
            self._send_and_tell(claimed)
        except Exception as error:  # noqa: BLE001 - its lease runs out, and it is sent again
            _complain("deliver.failed", error)
        finally:
            with self._lock:
                self._held.pop(_key(claimed), None)
            self._news.set()

    def _send_and_tell(self, claimed: Claimed) -> None:
        fault("deliver.before_send")
        began = self.clock.monotonic()
        outcome = self._send(claimed)
        seconds = self.clock.monotonic() - began
        fault("deliver.after_send")
        self._tell(claimed, outcome, seconds)
        fault("deliver.after_ledger")

    def _send(self, claimed: Claimed) -> Outcome:
        try:
            transport = self._transport(claimed.endpoint.transport)
            return transport.send(claimed.endpoint, claimed.delivery, claimed.body)
        except TrivetError as error:
            return Outcome(False, error=error.message)
        except Exception as error:
            # A bug of this program must not end the process, nor lose the event.
            log.exception("deliver.unexpected", endpoint=claimed.endpoint.endpoint_id)
            return Outcome(False, error=f"Sending ended with an unexpected {type(error).__name__}.")

    def _transport(self, name: str) -> Transport:
        with self._lock:
            if name not in self.transports:
                self.transports[name] = open_transport(self.settings, name)
            return self.transports[name]

    def _tell(self, claimed: Claimed, outcome: Outcome, seconds: float) -> None:
        """Write down what came of it. A ledger that is away is waited for as long as the lease may last."""
        until = self.clock.monotonic() + self.settings.lease_seconds
        while True:
            try:
                self._tell_once(claimed, outcome, seconds)
                return
            except LedgerUnavailable:
                if self.clock.monotonic() >= until:
                    raise
                self.clock.sleep(_OUTAGE_SECONDS)

    def _tell_once(self, claimed: Claimed, outcome: Outcome, seconds: float) -> None:
        facts = {"endpoint": claimed.endpoint.endpoint_id, "event_id": claimed.delivery.event_id}
        if outcome.taken:
            state = self.book.delivered(claimed, status=outcome.status, seconds=seconds)
        else:
            delay = backoff(claimed.delivery.attempts, outcome.retry_after, self.settings, self.random)
            state, paused = self.book.failed(
                claimed,
                status=outcome.status,
                error=outcome.error,
                seconds=seconds,
                delay_seconds=delay,
                pause=f"It answered {outcome.status}: it is gone." if outcome.gone else "",
            )
            if paused:
                log.warning("endpoint.paused", target=redact_url(claimed.endpoint.target), **facts)
            if state == DeliveryState.GIVEN_UP:
                log.warning("delivery.given_up", error=outcome.error, **facts)
        if state == LOST:
            log.info("delivery.lease_lost", **facts)


def backoff(attempts: int, asked: float | None, settings: Settings, random: Random) -> float:
    """Seconds until the next attempt after so many: doubling, with jitter between half and the whole of it.

    What the endpoint asks for is honoured up to the longest pause.
    """
    longest = settings.deliver_retry_max_seconds
    ceiling = min(longest, settings.deliver_retry_seconds * 2.0 ** min(max(attempts, 1) - 1, 60))
    return max(ceiling * random.uniform(0.5, 1.0), min(asked or 0.0, longest))


def _key(claimed: Claimed) -> tuple[str, str, int]:
    return claimed.delivery.endpoint_id, claimed.delivery.event_id, claimed.epoch


def _complain(event: str, error: Exception) -> None:
    if isinstance(error, TrivetError):
        log.warning(event, error=error.message)
    else:
        log.exception(event)

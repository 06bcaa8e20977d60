"""The indexer: reads completion events in a consumer group of its own and brings their objects into the index.

At least once, and resumed: an event is acknowledged when the index has what S3 showed for its object, on disk. A group
or an index that is new begins with all that is on S3; events that come meanwhile wait in the group.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from trivet.clock import Clock, SystemClock
from trivet.delivery.groups import EventGroup
from trivet.errors import IndexUnavailable, LedgerRefused, PermanentError, TransientError
from trivet.faults import fault
from trivet.index.marks import Marks
from trivet.index.sync import Sync
from trivet.index.writing import FAULTS as WRITING_FAULTS
from trivet.index.writing import Writer
from trivet.names import EventKind
from trivet.settings import Settings
from trivet.stores.layout import Layout
from trivet.values import Event

log = structlog.get_logger(__name__)

#: What changes what a collection's readers see.
_KINDS = frozenset({f"trivet.{EventKind.COMPLETED}", f"trivet.{EventKind.DELETED}"})
#: One process opens the index; it goes on with what the one before it had not acknowledged.
_CONSUMER = "indexer"
_PAGE = 100
_BLOCK_SECONDS = 1.0
_IDLE_SECONDS = 60.0
#: Between two tries of a Redis, S3 or index that is away.
_OUTAGE_SECONDS = 0.5
_OUTAGE_MOST_SECONDS = 15.0
_FRESH_SECONDS = 0.02

#: Every fault hook of the indexer, writing included.
FAULTS = ("index.after_read", *WRITING_FAULTS, "index.before_ack", "index.after_ack")


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the indexer is."""

    #: All that was on S3 has been brought in once.
    filled: bool
    #: Events that it has still to read or to acknowledge; None where Redis does not tell.
    behind: int | None
    #: Seconds that an event took, on average of late.
    seconds_per_event: float
    events: int
    objects: int
    #: Objects whose bytes on S3 could not be read.
    damaged: int
    #: What keeps it from going on just now, one sentence; empty where nothing does.
    waiting: str = ""
    #: Collections of the index that were damaged and dropped since the process began, as "namespace/name".
    healed: tuple[str, ...] = ()


class Indexer:
    """One per index; `run` is called once, everything else from any thread."""

    def __init__(
        self,
        settings: Settings,
        marks: Marks,
        sync: Sync,
        writer: Writer,
        settle: Callable[[], None],
        stopping: Callable[[], bool],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._sync = sync
        self._writer = writer
        self._settle = settle
        self._stopping = stopping
        self._clock = clock or SystemClock()
        self._marks = marks
        #: Not before all shards were looked at.
        self._filled = self._checked = False
        self._healed: tuple[str, ...] = ()
        #: Counts what was dropped to be filled anew: a search across that has missed something.
        self.drops = 0
        self._seconds = 0.0
        self._events = self._objects = self._damaged = 0
        self._waiting = ""
        self._group = EventGroup(settings, settings.index_group, _CONSUMER)
        self._asking = EventGroup(settings, settings.index_group, _CONSUMER)
        #: Set when something was written; whoever optimizes clears it.
        self.grown = threading.Event()

    def close(self) -> None:
        """Close the connections to Redis."""
        self._group.close()
        self._asking.close()

    def run(self) -> None:
        """Until `stopping()`. Redis, S3 or the index being away is waited for, and no object can end it."""
        pause = _OUTAGE_SECONDS
        while not self._stopping():
            try:
                self._consume()
            except TransientError as error:
                self._waiting = error.message
                log.warning("index.waits", error=error.message)
                self._clock.sleep(pause)
                pause = min(2 * pause, _OUTAGE_MOST_SECONDS)
            else:
                pause = _OUTAGE_SECONDS

    @property
    def filled(self) -> bool:
        """Whether all that was on S3 has been brought in once."""
        return self._filled

    def standing(self) -> Standing:
        """How far it is."""
        try:
            info = self._asking.info()
            behind = None if info is None or info.lag is None else info.lag + info.pending
        except TransientError:
            behind = None
        return Standing(
            filled=self._filled,
            behind=behind,
            seconds_per_event=self._seconds,
            events=self._events,
            objects=self._objects,
            damaged=self._damaged,
            waiting=self._waiting,
            healed=self._healed,
        )

    def fresh(self, seconds: float) -> int | None:
        """Wait so long at most until all that is on the stream is in the index; how many events are missing then.

        Where they will take longer than that, it is not waited at all. None where nobody can tell.
        """
        until = self._clock.monotonic() + seconds
        while True:
            standing = self.standing()
            left = until - self._clock.monotonic()
            if not standing.behind or left <= 0 or standing.behind * standing.seconds_per_event > left:
                return standing.behind
            self._clock.sleep(_FRESH_SECONDS)

    # ------------------------------------------------------------ events

    def _heal(self) -> None:
        """Drop what is damaged; what was is brought in by the fill that follows."""
        if not self._checked:
            self._healed = self._sync.check()
            self._filled, self._checked = self._marks.filled, True
        if self._sync.damaged:
            # In this order: no search may take what is dropped for what there is.
            self._filled = False
            self.drops += 1
            self._healed = tuple(sorted({*self._healed, *self._sync.heal()}))

    def _consume(self) -> None:
        self._heal()
        if self._group.info() is None:
            # What happened without a group nobody has kept: said before there is one, so that no kill can hide it.
            self._filled = False
            self._marks.set_filled(False)
        self._group.create("new")
        if not self._filled:
            self._fill()
        after = "0"
        while (page := self._group.unfinished(_PAGE, after)) and not self._stopping():
            after = page[-1][0]
            self._take(page)
        while not self._stopping() and not self._sync.damaged:
            try:
                page = self._group.take_over(_IDLE_SECONDS, _PAGE) or self._group.read(_PAGE, _BLOCK_SECONDS)
            except LedgerRefused:
                if self._group.info() is not None:
                    raise
                # The stream is gone, and the group with it: begin anew.
                return
            self._waiting = ""
            self._take(page)

    def _fill(self) -> None:
        report = self._sync.fill(stopping=self._stopping)
        self._objects += report.indexed + report.removed
        self._damaged += report.damaged
        if not report.stopped:
            self._marks.set_filled(True)
            self._filled = True
        self.grown.set()

    def _take(self, page: Iterable[tuple[str, Event]]) -> None:
        """Bring in the objects of some events, each once, then acknowledge all of them."""
        page = list(page)
        if not page:
            return
        fault("index.after_read")
        began = self._clock.monotonic()
        named = {_place(event) for _, event in page if event.type in _KINDS}
        for place in sorted(place for place in named if place is not None):
            self._bring(*place)
        if named:
            self._settle()
        fault("index.before_ack")
        self._group.ack(*(stream_id for stream_id, _ in page))
        fault("index.after_ack")
        self._events += len(page)
        spent = (self._clock.monotonic() - began) / len(page)
        self._seconds = spent if not self._seconds else 0.8 * self._seconds + 0.2 * spent

    def _bring(self, namespace: str, collection: str, object_id: str) -> None:
        layout = Layout.of(self._settings, namespace, collection)
        try:
            outcome = self._writer.bring(layout, object_id)
        except IndexUnavailable:
            raise
        except PermanentError as error:
            # No later try would find more; `trivet index verify` names the object until it is ingested again.
            self._damaged += 1
            log.warning("index.damaged", object_id=object_id, collection=collection, error=error.message)
        else:
            self._objects += 1
            self.grown.set()
            log.info("index.brought", object_id=object_id, collection=collection, outcome=outcome)


def _place(event: Event) -> tuple[str, str, str] | None:
    place = tuple(event.data.get(name) for name in ("namespace", "collection", "object_id"))
    if all(isinstance(name, str) and name for name in place):
        return place  # type: ignore[return-value] # three texts, as was just seen
    return None

"""Consumer groups on the event stream, for consumers of users' own.

A group remembers what was read and what was acknowledged. What a consumer read and did not acknowledge is given to
another one when it has lain idle for long enough, so every event is seen at least once. While a group exists, the
stream is not cut before what it has still to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import redis
import structlog
from redis.exceptions import ResponseError

from trivet.delivery import GROUP
from trivet.delivery.redis import connect_exactly
from trivet.errors import InvalidRequest
from trivet.ids import check_name
from trivet.ledger.redis_reading import RedisReader
from trivet.settings import Settings
from trivet.values import Event

log = structlog.get_logger(__name__)

_BLOCK_SECONDS = 1.0
_PAGE = 100
#: Entries that are counted one by one: so many at once, and at most.
_COUNTED = 500
_MOST_COUNTED = 5000


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """How far a group is."""

    #: Events on the stream that nobody of the group has read; None where there are too many to count and Redis cannot
    #: tell.
    lag: int | None
    #: Read and not acknowledged.
    pending: int
    #: Consumer → what it has read and not acknowledged.
    consumers: dict[str, int]
    #: Stream id of the last event that was read.
    last: str


class EventGroup(RedisReader):
    """One consumer of one group. Close it; a fork opens its own."""

    def __init__(
        self, settings: Settings, group: str, consumer: str, *, namespace: str = "", client: redis.Redis | None = None
    ) -> None:
        """With a `namespace`, events of others are acknowledged unseen."""
        super().__init__(settings, client or connect_exactly(settings))
        self.group = check_name(group, "Consumer group")
        self.consumer = check_name(consumer, "Consumer")
        if group == GROUP:
            raise InvalidRequest(f"The group {GROUP!r} is Trivet's own.", hint="Give yours another name.")
        self._namespace = namespace
        self._stream = self._key("events")

    def close(self) -> None:
        """Close the connections to Redis."""
        self._client.close()

    def create(self, start: Literal["new", "oldest"] = "new") -> bool:
        """Begin after the newest event, or with the oldest that the stream has. False where the group was there."""

        def make() -> bool:
            try:
                self._client.xgroup_create(self._stream, self.group, id="$" if start == "new" else "0", mkstream=True)
            except ResponseError as error:
                if str(error).startswith("BUSYGROUP"):
                    return False
                raise
            return True

        return bool(self._do(make))

    def drop(self) -> bool:
        """Forget the group, so that the stream need not keep anything for it. False where there was none."""
        # The stream may not exist either, which Redis takes for an error.
        if not self._do(lambda: self._client.exists(self._stream)):
            return False
        return bool(self._do(lambda: self._client.xgroup_destroy(self._stream, self.group)))

    def read(self, count: int = _PAGE, block_seconds: float = 0.0) -> list[tuple[str, Event]]:
        """The next events that nobody of the group has read, waiting for one so long at most."""
        seconds = min(block_seconds, self._socket_seconds - 1)
        return self._ask(">", count, max(1, round(seconds * 1000)) if seconds > 0 else None)

    def unfinished(self, count: int = _PAGE, after: str = "0") -> list[tuple[str, Event]]:
        """What this consumer has read and not acknowledged, after a stream id: where to begin after a crash."""
        return self._ask(after, count, None)

    def take_over(self, idle_seconds: float, count: int = _PAGE) -> list[tuple[str, Event]]:
        """Events that another consumer read so long ago and has not acknowledged; they are this one's from now on."""
        answer = self._do(
            lambda: self._client.xautoclaim(
                self._stream, self.group, self.consumer, min_idle_time=round(idle_seconds * 1000), count=count
            )
        )
        return self._events(answer[1])

    def ack(self, *stream_ids: str) -> int:
        """Say that they are done with. How many were this group's to acknowledge."""
        return int(self._do(lambda: self._client.xack(self._stream, self.group, *stream_ids))) if stream_ids else 0

    def info(self) -> GroupInfo | None:
        """How far the group is, or None where there is none."""

        def ask() -> tuple[list[Any], list[Any]]:
            if not self._client.exists(self._stream):
                return [], []
            groups = [g for g in self._client.xinfo_groups(self._stream) if g["name"] == self.group]
            return groups, self._client.xinfo_consumers(self._stream, self.group) if groups else []

        groups, consumers = self._do(ask)
        if not groups:
            return None
        facts = groups[0]
        return GroupInfo(
            lag=self._do(lambda: unread(self._client, self._stream, facts)),
            pending=facts["pending"],
            consumers={each["name"]: each["pending"] for each in consumers},
            last=facts["last-delivered-id"],
        )

    def _ask(self, start: str, count: int, block: int | None) -> list[tuple[str, Event]]:
        answer = self._do(
            lambda: self._client.xreadgroup(self.group, self.consumer, {self._stream: start}, count=count, block=block)
        )
        pages = answer.values() if isinstance(answer, dict) else [page for _, page in answer or ()]
        entries = [entry for page in pages for entry in (page[0] if page and isinstance(page[0], list) else page)]
        return self._events(entries)

    def _events(self, entries: list[tuple[str, dict[str, str] | None]]) -> list[tuple[str, Event]]:
        """What can be read and is this namespace's; the rest is acknowledged, or it would come again for ever."""
        found, others = [], []
        for stream_id, fields in entries:
            event = _event((fields or {}).get("event", ""))
            if event is None:
                log.warning("event.unreadable", entry=stream_id, group=self.group)
            if event is None or (self._namespace and event.data.get("namespace") != self._namespace):
                others.append(stream_id)
            else:
                found.append((stream_id, event))
        self.ack(*others)
        return found


def unread(client: redis.Redis, stream: str, group: dict[str, Any]) -> int | None:
    """Entries that a group, as `XINFO GROUPS` tells of it, has still to read; None for too many to count.

    Redis tells no lag once entries were deleted that the group had not read, and counts on those that were cut off.
    """
    given = group.get("lag")
    if given is not None:
        return min(int(given), int(client.xlen(stream)))
    counted, after = 0, group["last-delivered-id"]
    while counted < _MOST_COUNTED:
        page: list[Any] = client.xrange(stream, min=f"({after}", count=_COUNTED) or []
        counted += len(page)
        if len(page) < _COUNTED:
            return counted
        after = page[-1][0]
    return None


def _event(text: str) -> Event | None:
    try:
        return Event.model_validate_json(text)
    except ValueError:
        return None


def consume(
    settings: Settings,
    group: str,
    consumer: str,
    *,
    namespace: str = "",
    start: Literal["new", "oldest"] = "new",
    idle_seconds: float = 60.0,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Event, Callable[[], None]]]:
    """Events with the callable that acknowledges each, for ever or until `stopping()`; waits for the next.

    The group is made where there is none. A consumer begins with what it had not acknowledged when it ended, so its
    name must be its own; what others leave unacknowledged for `idle_seconds` is taken over. Raises `LedgerUnavailable`.
    """
    reader = EventGroup(settings, group, consumer, namespace=namespace)
    try:
        reader.create(start)
        after = "0"
        while page := reader.unfinished(after=after):
            after = page[-1][0]
            yield from _with_ack(reader, page)
        while not stopping():
            page = reader.take_over(idle_seconds) or reader.read(block_seconds=_BLOCK_SECONDS)
            yield from _with_ack(reader, page)
    finally:
        reader.close()


def _with_ack(reader: EventGroup, page: list[tuple[str, Event]]) -> Iterator[tuple[Event, Callable[[], None]]]:
    for stream_id, event in page:

        def ack(stream_id: str = stream_id) -> None:
            reader.ack(stream_id)

        yield event, ack

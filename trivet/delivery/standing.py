"""How far the consumer groups of the stream are, and whether anybody sends to endpoints: for `trivet doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trivet.delivery.groups import unread
from trivet.ledger.redis_reading import RedisReader


@dataclass(frozen=True, slots=True)
class GroupStanding:
    """One consumer group."""

    name: str
    #: Events that it has still to read or to acknowledge; None where Redis cannot tell.
    behind: int | None
    #: How long ago any of its consumers asked for events; None where none ever did.
    silent_seconds: float | None


@dataclass(frozen=True, slots=True)
class EndpointStandings:
    """All endpoints together."""

    active: int
    paused: int
    #: Deliveries in line.
    waiting: int


class Standing(RedisReader):
    """Thread-safe; open it after a fork, and close it."""

    def close(self) -> None:
        """Close the connections to Redis."""
        self._client.close()

    def groups(self) -> list[GroupStanding]:
        """Trivet's own, and those of users."""
        stream = self._key("events")

        def ask() -> list[tuple[dict[str, Any], int | None, list[dict[str, Any]]]]:
            if not self._client.exists(stream):
                return []
            groups = self._client.xinfo_groups(stream)
            return [
                (group, unread(self._client, stream, group), self._client.xinfo_consumers(stream, group["name"]))
                for group in groups
            ]

        return [
            GroupStanding(
                name=group["name"],
                behind=None if lag is None else lag + group["pending"],
                silent_seconds=min((each["idle"] / 1000 for each in consumers), default=None),
            )
            for group, lag, consumers in self._do(ask)
        ]

    def endpoints(self) -> EndpointStandings:
        """Of all namespaces."""
        ids = self._do(lambda: self._client.zrange(self._key("endpoints"), 0, -1))
        pipe = self._client.pipeline(transaction=False)
        for endpoint_id in ids:
            pipe.hget(self._key("endpoint", endpoint_id), "state")
            pipe.zcard(self._key("outgoing", endpoint_id))
        facts = self._do(pipe.execute)
        paused = sum(state == "paused" for state in facts[::2])
        return EndpointStandings(active=len(ids) - paused, paused=paused, waiting=sum(facts[1::2]))

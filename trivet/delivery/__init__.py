"""Events out: the book of endpoints and deliveries, the transports, and their seams.

An event stands on the Redis stream from the moment of its transition. `fan_out` makes one delivery of it for every
endpoint that wants it; a delivery is leased, sent by the endpoint's transport, and told of. Every step may be done
twice. An endpoint gets each event at least once, always under the same id, in no promised order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Protocol, cast

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
from trivet.errors import MissingDependency, NotUnderstood
from trivet.settings import Settings

#: The consumer group that deliveries are made from; users' own groups have other names.
GROUP = "deliver"


class EndpointBook(Protocol):
    """The endpoints. All methods raise `LedgerUnavailable`; those that name one raise `UnknownEndpoint`."""

    def add(self, endpoint: NewEndpoint) -> Endpoint:
        """Register; it gets the events that come after this. An id that is there already stays as it is."""

    def endpoint(self, endpoint_id: str) -> Endpoint: ...

    def endpoints(self, namespace: str) -> list[Endpoint]:
        """All of a namespace, the oldest first."""

    def remove(self, endpoint_id: str) -> None:
        """Forget it with all that waits for it. Not an error where there is none."""

    def rotate_secret(self, endpoint_id: str, secret: str, overlap_seconds: float) -> Endpoint:
        """Sign with this secret from now on; those before it sign along for the overlap."""

    def pause(self, endpoint_id: str, reason: str) -> bool:
        """Send nothing more: what waits stays in line, what comes is passed over. False where it was paused."""

    def resume(self, endpoint_id: str) -> bool:
        """Send what waits, at once. False where it was not paused."""

    def caught_up(self, endpoint_id: str, missed_until: str) -> None:
        """Forget that events up to this stream id were missed."""

    def waiting(self, endpoint_id: str) -> Waiting: ...

    def log(self, endpoint_id: str, limit: int) -> list[Attempt]:
        """Attempts, newest first."""

    def put(self, endpoint_id: str, events: Sequence[StreamEvent], *, operation: str) -> int:
        """Send events (again), once per operation; an empty one leaves what ever was in line. How many it did."""

    def stream(self, first: str, last: str) -> Iterator[StreamEvent]:
        """The readable events of the stream from one stream id to another, both included (`-` and `+`: the ends)."""

    def find(self, endpoint_id: str, event_id: str) -> StreamEvent | None:
        """An event by its id: from its delivery, else from the stream, as long as either has it."""

    def close(self) -> None: ...


class Deliveries(EndpointBook, Protocol):
    """The whole book. Every method bears being applied twice."""

    def wait(self, after: str, seconds: float) -> bool:
        """Whether the stream has an event after this stream id, waiting for one so long at most."""

    def fan_out(self, count: int) -> FannedOut:
        """Take the next events of the stream and make a delivery for each endpoint that wants them, in one step."""

    def claim(
        self, worker: str, operation: str, *, most: int, per_endpoint: int, lease_seconds: float
    ) -> list[Claimed]:
        """Lease what is due, endpoint by endpoint in turn, at most `per_endpoint` of one in this worker's hands."""

    def heartbeat(self, claimed: Sequence[Claimed], lease_seconds: float) -> list[Claimed]:
        """Prolong leases; returns those that are lost."""

    def release(self, claimed: Sequence[Claimed]) -> int:
        """Hand leases back, uncharged. How many it did."""

    def delivered(self, claimed: Claimed, *, status: str, seconds: float) -> str:
        """The endpoint has it. Returns the delivery's state, or `LOST`, and then nothing was changed."""

    def failed(
        self, claimed: Claimed, *, status: str, error: str, seconds: float, delay_seconds: float, pause: str = ""
    ) -> tuple[str, bool]:
        """The endpoint has not taken it: again after the delay, or given up. `pause`: a reason to pause it at once.

        Returns the delivery's state or `LOST`, and whether the endpoint was paused for this.
        """

    def delivery(self, endpoint_id: str, event_id: str) -> Delivery | None:
        """One delivery, for as long as it is remembered."""


class Transport(Protocol):
    """One way to send an event. Thread-safe."""

    def send(self, endpoint: Endpoint, event: Delivery, body: bytes) -> Outcome:
        """Send the bytes once. Raises `EndpointFailed` where there was no answer."""

    def close(self) -> None: ...


#: Name → module:class, imported only when it is asked for; each is made with the settings. What each of them may send
#: to stands in `trivet.delivery.targets`.
TRANSPORTS = {
    "webhook": "trivet.delivery.webhook:WebhookTransport",
    "sns": "trivet.delivery.sns:SnsTransport",
    "sqs": "trivet.delivery.sqs:SqsTransport",
    "memory": "trivet.delivery.memory:MemoryTransport",
}


def open_transport(settings: Settings, name: str) -> Transport:
    """The transport of this name. Raises `NotUnderstood` for one that a newer version may know."""
    if name not in TRANSPORTS:
        raise NotUnderstood(f"No transport is called {name!r}.")
    module, _, attribute = TRANSPORTS[name].partition(":")
    try:
        made = getattr(import_module(module), attribute)(settings)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"Sending to a {name} needs the package {error.name!r}, which is not installed.",
            hint="Install it with: pip install 'trivet[prepare]'",
        ) from None
    return cast("Transport", made)


__all__ = [
    "GROUP",
    "LOST",
    "TRANSPORTS",
    "Attempt",
    "Claimed",
    "Deliveries",
    "Delivery",
    "DeliveryState",
    "Endpoint",
    "EndpointBook",
    "EndpointState",
    "FannedOut",
    "NewEndpoint",
    "Outcome",
    "SigningSecret",
    "StreamEvent",
    "Transport",
    "Waiting",
    "open_transport",
]

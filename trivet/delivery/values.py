"""What events are sent to, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import SecretStr

from trivet.ids import redact_url
from trivet.values import Frozen

#: What `delivered` and `failed` answer where the lease was another's.
LOST = "lost"


class EndpointState(StrEnum):
    """Whether an endpoint is sent anything."""

    ACTIVE = "active"
    PAUSED = "paused"


class DeliveryState(StrEnum):
    """Where one event to one endpoint stands."""

    #: It is sent when its time has come and its endpoint is active.
    PENDING = "pending"
    #: A process is sending it.
    LEASED = "leased"
    #: The endpoint has taken it.
    DELIVERED = "delivered"
    #: The endpoint has not taken it for as long as the settings have patience; a replay sends it again.
    GIVEN_UP = "given_up"


class SigningSecret(Frozen):
    """A secret that signs; one that was replaced signs along until it expires."""

    #: `whsec_` and base64, after Standard Webhooks.
    value: SecretStr
    #: Seconds since the epoch; None for the current one.
    expires_at: float | None = None


class NewEndpoint(Frozen):
    """What a registration states."""

    endpoint_id: str
    namespace: str
    #: A name in `trivet.delivery.TRANSPORTS`.
    transport: str
    #: A URL, the ARN of an SNS topic, or the URL of an SQS queue; it may hold a secret.
    target: str
    #: Without the prefix `trivet.`; none: all.
    kinds: tuple[str, ...] = ()
    #: None: all of the namespace.
    collections: tuple[str, ...] = ()
    description: str = ""
    #: The current one first; none where the transport signs nothing.
    secrets: tuple[SigningSecret, ...] = ()

    def wants(self, kind: str, namespace: str, collection: str) -> bool:
        """Whether an event of this kind is for this endpoint."""
        return (
            namespace == self.namespace
            and (not self.kinds or kind in self.kinds)
            and (not self.collections or collection in self.collections)
        )


class Endpoint(NewEndpoint):
    """An endpoint as it stands. Times are seconds since the epoch."""

    state: EndpointState = EndpointState.ACTIVE
    #: Why it is paused.
    reason: str = ""
    #: Since when it is in its state.
    changed_at: float
    created_at: float
    #: Stream id of the last event before the registration.
    since: str
    #: First failure after its last success or resume.
    failing_since: float | None = None
    last_success_at: float | None = None
    #: Stream id of the first event that it was not sent because it was paused.
    missed_from: str | None = None
    #: The last such one.
    missed_until: str | None = None

    def live_secrets(self, now: float) -> tuple[str, ...]:
        """Those that sign, the current one first."""
        return tuple(s.value.get_secret_value() for s in self.secrets if s.expires_at is None or s.expires_at > now)

    def public(self) -> dict[str, Any]:
        """JSON form without secrets; of a target's query only that there is one."""
        return {**self.model_dump(mode="json"), "target": redact_url(self.target)}


class Delivery(Frozen):
    """One event to one endpoint. Times are seconds since the epoch."""

    endpoint_id: str
    event_id: str
    #: Of the event, without the prefix `trivet.`.
    kind: str
    #: Stream id of the event; empty for a test.
    entry: str
    state: DeliveryState
    #: Times that it was sent, the one under way among them.
    attempts: int = 0
    created_at: float
    #: When it is sent next at the earliest, where it is pending.
    next_at: float | None = None
    #: Of the last attempt: an HTTP status or an error code of AWS; empty where there was no answer.
    status: str = ""
    error: str = ""


class Attempt(Frozen):
    """A line of an endpoint's log."""

    #: When it ended, in seconds since the epoch.
    at: float
    event_id: str
    kind: str
    attempt: int
    ok: bool
    status: str = ""
    error: str = ""
    seconds: float
    #: When the next one is due; None where there is none.
    next_at: float | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that a process has leased."""

    delivery: Delivery
    endpoint: Endpoint
    #: The CloudEvent, byte for byte as it stands on the stream.
    body: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class FannedOut:
    """What one reading of the stream did."""

    read: int = 0
    deliveries: int = 0
    #: Entries that are no event; they are passed over.
    unreadable: int = 0
    #: Stream id up to which all is read.
    last: str = "0-0"


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much an endpoint has still to get."""

    pending: int
    leased: int


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """An event on the stream, unread: what a replay needs to know."""

    entry: str
    event_id: str
    kind: str
    namespace: str
    collection: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an endpoint answered."""

    taken: bool
    #: An HTTP status, or an error code of AWS.
    status: str = ""
    #: One sentence, where the event was not taken.
    error: str = ""
    #: What the endpoint asks to wait, in seconds.
    retry_after: float | None = None
    #: There is no such endpoint any more: trying on is of no use.
    gone: bool = False

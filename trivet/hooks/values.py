"""What a hook is, what comes in through it, and what that means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trivet.delivery.values import SigningSecret
from trivet.ids import object_id_for, redact_url
from trivet.values import Frozen


class NewHook(Frozen):
    """What the creation of a hook states."""

    #: `hook_` and 24 hex digits; whoever knows it may try to deliver.
    hook_id: str
    namespace: str
    collection: str
    #: A name in `trivet.hooks.SCHEMES`.
    scheme: str
    #: What the scheme made of what was given; complete.
    options: dict[str, Any]
    description: str = ""
    #: The current one first; none where the scheme needs none.
    secrets: tuple[SigningSecret, ...] = ()

    def object_id(self, url: str) -> str:
        """Id of the object that this URL names in the hook's collection: the same as of an ingest by this URL."""
        return object_id_for(self.namespace, self.collection, url)


class Hook(NewHook):
    """A hook as it stands. Times are seconds since the epoch."""

    created_at: float
    #: The last delivery that was verified and worked on.
    last_at: float | None = None
    #: Its kind, such as `push`.
    last_kind: str = ""

    def live_secrets(self, now: float) -> tuple[str, ...]:
        """Those that verify, the current one first."""
        return tuple(s.value.get_secret_value() for s in self.secrets if s.expires_at is None or s.expires_at > now)

    def public(self) -> dict[str, Any]:
        """JSON form without secrets."""
        return self.model_dump(mode="json", exclude={"secrets"})


@dataclass(frozen=True, slots=True)
class Incoming:
    """One request as it came: nothing of it is believed yet."""

    #: By lower-case name; a header that was there twice is not in here.
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, headers: Iterable[tuple[str, str]], body: bytes) -> Incoming:
        """Of a list of headers, in which two servers on the way might each believe another one."""
        seen: dict[str, list[str]] = {}
        for name, value in headers:
            seen.setdefault(name.lower(), []).append(value)
        return cls({name: values[0] for name, values in seen.items() if len(values) == 1}, body)

    def header(self, name: str) -> str:
        """Its value without blanks around it; empty where it is not there."""
        return self.headers.get(name.lower(), "").strip()


@dataclass(frozen=True, slots=True)
class Verified:
    """What the signature vouches for."""

    #: What tells the delivery from all others. Nobody who cannot sign can change it.
    delivery: str
    #: When it was signed, in seconds since the epoch; None where the scheme signs no time.
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Ingest:
    """A source that came or changed."""

    url: str
    object_id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    media_type: str = ""
    #: Where the sender counts the changes of an object, the number of this one, in hex digits.
    order: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """A source that went."""

    object_id: str
    #: What it was; for the reader.
    url: str = ""
    order: str = ""


Action = Ingest | Delete


@dataclass(frozen=True, slots=True)
class Reading:
    """What a delivery means."""

    #: What the sender calls it, such as `push` or `ObjectCreated:Put`.
    kind: str
    actions: tuple[Action, ...] = ()
    #: What in it leads to nothing, and why: one sentence each.
    ignored: tuple[str, ...] = ()
    #: A URL that must be got to confirm a subscription; the scheme has checked it.
    confirm: str = ""


class Done(Frozen):
    """What one action has become."""

    action: Literal["ingest", "delete"]
    object_id: str
    #: Redacted.
    url: str = ""
    #: Empty where it was refused.
    task_id: str = ""
    error: str = ""

    @classmethod
    def of(cls, action: Action, *, task_id: str = "", error: str = "") -> Done:
        """The record of an action."""
        kind: Literal["ingest", "delete"] = "ingest" if isinstance(action, Ingest) else "delete"
        return cls(action=kind, object_id=action.object_id, url=redact_url(action.url), task_id=task_id, error=error)


class Received(Frozen):
    """What a delivery has become; what its sender is told."""

    hook_id: str
    kind: str
    status: Literal["done", "confirmed", "duplicate"]
    ingested: int = 0
    deleted: int = 0
    refused: int = 0
    #: The first of them.
    actions: tuple[Done, ...] = ()
    ignored: tuple[str, ...] = ()

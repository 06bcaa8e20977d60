"""Webhooks in: hooks, the schemes that their senders sign with, and their seams.

A delivery is verified on its raw bytes before anything is read from them, then known again if it has been here, then
read: every scheme says which sources come, change and go, and these are ingested and deleted as by any client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

from trivet.errors import InvalidRequest, MissingDependency
from trivet.hooks.values import (
    Action,
    Delete,
    Done,
    Hook,
    Incoming,
    Ingest,
    NewHook,
    Reading,
    Received,
    Verified,
)


@dataclass(frozen=True, slots=True)
class Begun:
    """Whether a delivery is to be worked on."""

    #: What it has become when it was here before.
    outcome: Received | None = None
    #: Another request is working on it.
    busy: bool = False


class HookBook(Protocol):
    """The hooks, and what came in. Every method raises `LedgerUnavailable` and bears being applied twice."""

    def add(self, hook: NewHook) -> Hook:
        """Keep a hook; an id that is there already stays as it is. Raises `InvalidRequest` for one too many."""

    def hook(self, hook_id: str) -> Hook:
        """Raises `UnknownHook`."""

    def hooks(self, namespace: str) -> list[Hook]:
        """All of a namespace, the oldest first."""

    def remove(self, hook_id: str) -> None:
        """Forget it. Not an error where there is none."""

    def rotate_secret(self, hook_id: str, secret: str, overlap_seconds: float) -> Hook:
        """Verify with this secret from now on, and for the overlap with those before it. Raises `UnknownHook`."""

    def begin(self, hook_id: str, delivery: str, owner: str, lease_seconds: float) -> Begun:
        """Take a delivery on, unless it was here before or another owner is at it; a dead owner's lease ends."""

    def finish(self, hook_id: str, delivery: str, outcome: Received, keep_seconds: float) -> None:
        """Remember what became of it."""

    def give_up(self, hook_id: str, delivery: str, owner: str) -> None:
        """Let the sender try it again at once."""

    def newest(self, hook_id: str, object_id: str, order: str, keep_seconds: float) -> bool:
        """Whether no later change of the object came by; if so, this one counts as the latest. Equal is not later."""

    def close(self) -> None: ...


class Scheme(Protocol):
    """One way to sign and to say what changed. Thread-safe; keeps nothing of a delivery."""

    #: Whether a hook of it has a secret.
    secret: bool
    #: How long its senders go on with a delivery that they have signed once, where the setting's window is shorter.
    patience_seconds: float

    def new_secret(self) -> str:
        """A random secret in the scheme's form."""

    def check_secret(self, secret: str) -> None:
        """Raises `InvalidRequest` for one that another has made and that is too short or of another form."""

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options as JSON, those that are not given by default. Raises `InvalidRequest`."""

    def verify(self, hook: Hook, incoming: Incoming, now: float) -> Verified:
        """Raises `HookRefused` unless the hook's sender has signed these very bytes. Reads nothing else from them."""

    def read(self, hook: Hook, incoming: Incoming) -> Reading:
        """What a verified delivery means. Raises `InvalidRequest` for what is of no known form."""

    def sample(self, hook: Hook, now: float, payload: bytes = b"") -> Sample:
        """A delivery as the sender would make it: of this payload, or else of one that shows the most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A signed delivery, and the scheme that verifies it: another only where the sender's key cannot be had."""

    incoming: Incoming
    scheme: Scheme


class Getter(Protocol):
    """Gets a small file from a checked address."""

    def get(self, url: str, most_bytes: int) -> bytes:
        """The body of a 200. Raises `TrivetError`: `SourceRefused` for an address that is not allowed."""

    def close(self) -> None: ...


class Producer(Protocol):
    """What a hook does its work with; `trivet.Trivet` is one."""

    def ingest(
        self,
        url: str,
        *,
        collection: str,
        object_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: dict[str, Any] | None = None,
        media_type: str | None = None,
    ) -> Handle: ...

    def delete(self, object_id: str, *, collection: str, idempotency_key: str = "") -> Handle: ...


class Handle(Protocol):
    """What a producer gives for a task."""

    @property
    def task_id(self) -> str: ...


#: Name → module:class, imported only when it is asked for; each is made with a `Getter`.
SCHEMES = {
    "standard": "trivet.hooks.standard:StandardScheme",
    "github": "trivet.hooks.github:GitHubScheme",
    "s3": "trivet.hooks.s3:S3Scheme",
    "sns": "trivet.hooks.sns:SnsScheme",
    "eventbridge": "trivet.hooks.eventbridge:EventBridgeScheme",
    "hmac": "trivet.hooks.generic:HmacScheme",
}


def open_scheme(name: str, getter: Getter) -> Scheme:
    """The scheme of this name. Raises `InvalidRequest` and `MissingDependency`."""
    if name not in SCHEMES:
        known = ", ".join(SCHEMES)
        raise InvalidRequest(f"No scheme of webhooks is called {name[:40]!r}.", hint=f"Use one of {known}.")
    module, _, attribute = SCHEMES[name].partition(":")
    try:
        return cast("Scheme", getattr(import_module(module), attribute)(getter))
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"Hooks of the scheme {name} need the package {error.name!r}, which is not installed.",
            hint="Install it with: pip install 'trivet[api]'",
        ) from None


__all__ = [
    "SCHEMES",
    "Action",
    "Begun",
    "Delete",
    "Done",
    "Getter",
    "Handle",
    "Hook",
    "HookBook",
    "Incoming",
    "Ingest",
    "NewHook",
    "Producer",
    "Reading",
    "Received",
    "Sample",
    "Scheme",
    "Verified",
    "open_scheme",
]

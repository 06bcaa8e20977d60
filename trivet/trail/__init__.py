"""The audit log: who did what to what, when, from where, and what was answered. One bounded list per namespace.

It holds no secret, no body, no header, and of URLs no query: `entry` makes entries, and cleans what it is given.
"""

from __future__ import annotations

from typing import Protocol

from trivet.logs import redact_text
from trivet.values import Frozen

_LONGEST = 300


class Entry(Frozen):
    """One deed."""

    #: Seconds since the epoch.
    at: float
    namespace: str
    #: An API key's id, `hook_…`, `cli` for somebody at this machine's command line, or `anybody` where no key is asked.
    who: str
    #: Such as `key.create`, or the operationId of an HTTP request.
    action: str
    #: Ids of what it was done to, separated by blanks.
    target: str = ""
    #: The HTTP status, `ok`, or the code of an error.
    outcome: str = "ok"
    #: The address it came from.
    address: str = ""


class Trail(Protocol):
    """Keeps entries. Thread-safe."""

    def note(self, entry: Entry) -> None:
        """Append; the oldest leave. Raises `LedgerUnavailable`."""

    def entries(self, namespace: str, limit: int) -> list[Entry]:
        """Newest first. Raises `LedgerUnavailable`."""

    def close(self) -> None: ...


def entry(
    at: float, namespace: str, who: str, action: str, *, target: str = "", outcome: str = "ok", address: str = ""
) -> Entry:
    """An entry with all that may be a secret taken out of it."""
    return Entry(
        at=at,
        namespace=namespace,
        who=clean(who),
        action=clean(action),
        target=clean(target),
        outcome=clean(outcome),
        address=clean(address),
    )


def clean(text: str) -> str:
    """One short line, without queries of URLs and without secrets."""
    return " ".join(redact_text(text[: 8 * _LONGEST]).split())[:_LONGEST]


__all__ = ["Entry", "Trail", "clean", "entry"]

"""Every way from one state of a task to another: the only list of them.

The ledger's twin refuses what is not in it, the state machine holds Redis against it, and docs/ledger.md shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from trivet.names import EventKind
from trivet.values import TaskState

_S, _E = TaskState, EventKind
_OPEN = (_S.QUEUED, _S.PREPARING, _S.EMBEDDING, _S.COMMITTING)


@dataclass(frozen=True, slots=True)
class Transition:
    """`before` is None where a task comes into being."""

    before: TaskState | None
    after: TaskState
    #: The method of the ledger that does it, and when.
    by: str
    when: str
    event: EventKind | None = None


TRANSITIONS: tuple[Transition, ...] = (
    Transition(None, _S.QUEUED, "accept, restore", "its object is free", _E.ACCEPTED),
    Transition(None, _S.WAITING, "accept, restore", "another task of its object is active", _E.ACCEPTED),
    Transition(None, _S.EMBEDDING, "restore", "staged, and lost by the ledger", _E.STARTED),
    Transition(None, _S.SUPERSEDED, "restore", "a later task of its object is there", _E.SUPERSEDED),
    Transition(None, _S.COMPLETED, "restore", "committed, and lost by the ledger", _E.COMPLETED),
    Transition(None, _S.DELETED, "restore", "hidden, and lost by the ledger", _E.DELETED),
    Transition(_S.WAITING, _S.QUEUED, "finish, fail, cancel, sweep", "the task before it has ended"),
    Transition(_S.WAITING, _S.SUPERSEDED, "accept, retry", "a newer task waits for the same object", _E.SUPERSEDED),
    Transition(_S.WAITING, _S.CANCELLED, "cancel", "asked for", _E.CANCELLED),
    Transition(_S.QUEUED, _S.PREPARING, "claim", "a prepare worker leases it"),
    Transition(_S.QUEUED, _S.COMMITTING, "committing", "a delete's tombstone is about to be written"),
    Transition(_S.PREPARING, _S.EMBEDDING, "stage", "its shards are staged", _E.STARTED),
    Transition(_S.PREPARING, _S.SKIPPED, "finish", "nothing has changed since the visible generation", _E.SKIPPED),
    Transition(_S.EMBEDDING, _S.COMMITTING, "committing", "all shards are written, and it is about to be published"),
    Transition(_S.COMMITTING, _S.EMBEDDING, "restage", "another writer owns the generation"),
    Transition(_S.COMMITTING, _S.COMPLETED, "finish", "its generation is visible", _E.COMPLETED),
    Transition(_S.COMMITTING, _S.DELETED, "finish", "its tombstone is visible", _E.DELETED),
    Transition(_S.COMMITTING, _S.SKIPPED, "finish", "there was nothing to delete", _E.SKIPPED),
    Transition(_S.COMMITTING, _S.SUPERSEDED, "finish", "a higher generation is visible", _E.SUPERSEDED),
    *(
        Transition(state, _S.FAILED, "fail, sweep", "a permanent error, or its attempts are used up", _E.FAILED)
        for state in _OPEN
    ),
    *(
        Transition(state, _S.SUPERSEDED, "restore", "a later task of its object was staged, and is back", _E.SUPERSEDED)
        for state in _OPEN[:3]
    ),
    *(Transition(state, _S.CANCELLED, "cancel", "asked for", _E.CANCELLED) for state in _OPEN[:3]),
    *(
        Transition(state, after, "retry", when, _E.ACCEPTED)
        for state in (_S.FAILED, _S.CANCELLED)
        for after, when in (
            (_S.QUEUED, "asked for, and its object is free"),
            (_S.WAITING, "asked for, and another task of its object is active"),
        )
    ),
)

ALLOWED = frozenset((transition.before, transition.after) for transition in TRANSITIONS)

"""What a ledger says when it refuses: the same words, whichever keeps it."""

from __future__ import annotations

from trivet.errors import IdempotencyConflict, LeaseLost, TooLate, UnknownCollection, UnknownTask


def unknown_collection(namespace: str, name: str) -> UnknownCollection:
    """The collection was never created."""
    return UnknownCollection(
        f"Namespace {namespace!r} has no collection {name!r}.",
        hint=f"Create it: trivet collections create {name}",
    )


def unknown_task(task_id: str) -> UnknownTask:
    """There is no such task, or no longer."""
    return UnknownTask(f"No task is called {task_id[:80]!r}.", hint="List them with: trivet tasks")


def key_conflict(key: str, task_id: str) -> IdempotencyConflict:
    """The key stands for another request."""
    return IdempotencyConflict(
        f"Idempotency key {key!r} was used for another request, task {task_id}.",
        hint="Use a new key for a new request.",
    )


def too_late(task_id: str) -> TooLate:
    """The manifest may be written already."""
    return TooLate(f"Task {task_id} is committing and can no longer be cancelled.", hint="Wait for it to complete.")


def lease_lost(item: str) -> LeaseLost:
    """Another epoch holds the item, or nobody."""
    return LeaseLost(f"The lease of {item} is lost.")

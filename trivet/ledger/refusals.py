"""What a ledger says when it refuses: the same words, whichever keeps it."""

from __future__ import annotations

from trivet.errors import (
    Conflict,
    IdempotencyConflict,
    LeaseLost,
    LedgerRefused,
    LedgerSchema,
    LedgerUnavailable,
    NotRetryable,
    TooLate,
    UnknownCollection,
    UnknownTask,
)

#: Of the ledger in Redis; `_common.lua` holds the same.
SCHEMA_VERSION = "2"


def unknown_collection(namespace: str, name: str) -> UnknownCollection:
    """The collection was never created."""
    return UnknownCollection(
        f"Namespace {namespace!r} has no collection {name!r}.",
        hint=f"Create it: trivet collections create {name}",
    )


def other_encoder(name: str, wish: str) -> Conflict:
    """The collection was changed between the request's look at it and its task."""
    return Conflict(
        f"Collection {name!r} is no longer embedded by {wish}: another request has just changed it.",
        hint="Look at the collection, and repeat the request if it still fits.",
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


def not_retryable(task_id: str, state: str) -> NotRetryable:
    """The task ended well, or made way for another."""
    return NotRetryable(
        f"Task {task_id} is {state}; only failed and cancelled tasks are run again.",
        hint="Ingest the object again to have it read anew.",
    )


def url_gone(task_id: str) -> NotRetryable:
    """The URL had a query or credentials, which are kept for a while only."""
    return NotRetryable(
        f"The full URL of task {task_id} is no longer known: queries and credentials are kept for a while only.",
        hint="Give it again: trivet retry TASK --url URL, or ingest the object anew.",
    )


def refused(message: str, where: str) -> LedgerUnavailable:
    """Redis answered with an error of its own, or a script with one of ours."""
    if not message.startswith("SCHEMA "):
        return LedgerRefused(f"Redis at {where} refuses: {message.rstrip('.')}.")
    version = message.removeprefix("SCHEMA ")
    if version.startswith("migrating"):
        return LedgerSchema(
            f"The ledger at {where} is being migrated.",
            hint="Wait until it is done; `trivet migrate` takes it up again.",
        )
    return LedgerSchema(
        f"The ledger at {where} has schema {version}, and this process knows schema {SCHEMA_VERSION}.",
        hint="Run: trivet migrate" if version < SCHEMA_VERSION else "Update this process to the version that wrote it.",
    )


def lease_lost(item: str) -> LeaseLost:
    """Another epoch holds the item, or nobody."""
    return LeaseLost(f"The lease of {item} is lost.")

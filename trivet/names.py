"""Names on the wire: Celery tasks and queues, stages, lanes, event kinds. Renaming one breaks queued messages."""

from __future__ import annotations

from enum import StrEnum

ACCEPT_TASK = "trivet.accept"
PREPARE_TASK = "trivet.prepare"
EMBED_TASK = "trivet.embed"
COMMIT_TASK = "trivet.commit"


class Stage(StrEnum):
    """What a work item asks for; also the worker role that does it."""

    PREPARE = "prepare"
    EMBED = "embed"
    COMMIT = "commit"


STAGE_TASKS = {Stage.PREPARE: PREPARE_TASK, Stage.EMBED: EMBED_TASK, Stage.COMMIT: COMMIT_TASK}

#: Ledger queue of work that any worker of the role can do.
ANY = "any"


class Lane(StrEnum):
    """How urgent a task is; a lane's weight is its share where several wait."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BULK = "bulk"


class TaskKind(StrEnum):
    """What a task does to its object."""

    INGEST = "ingest"
    DELETE = "delete"


class Role(StrEnum):
    """What a worker process does."""

    PREPARE = "prepare"
    EMBED = "embed"
    COMMIT = "commit"
    SWEEP = "sweep"
    DELIVER = "deliver"
    GC = "gc"
    SEARCH = "search"


#: Roles that wait for a doorbell; the others run loops of their own.
STAGE_ROLES = frozenset({Role.PREPARE, Role.EMBED, Role.COMMIT})


def celery_queue(stage: Stage, queue: str = ANY) -> str:
    """The Celery queue of a doorbell: one per stage, for embed one per encoder key."""
    return f"trivet.{stage}" if queue == ANY else f"trivet.{stage}.{queue}"


ACCEPT_QUEUE = "trivet.accept"


class EventKind(StrEnum):
    """Type of a CloudEvent, without the prefix `trivet.`."""

    ACCEPTED = "ingest.accepted"
    STARTED = "ingest.started"
    PROGRESS = "ingest.progress"
    COMPLETED = "ingest.completed"
    SKIPPED = "ingest.skipped"
    FAILED = "ingest.failed"
    CANCELLED = "ingest.cancelled"
    SUPERSEDED = "ingest.superseded"
    DELETED = "ingest.deleted"
    #: Beside `failed`: the task has used up its attempts and stands on the dead-letter list.
    DEAD_LETTERED = "ingest.dead_lettered"


TERMINAL_EVENTS = frozenset(EventKind) - {
    EventKind.ACCEPTED,
    EventKind.STARTED,
    EventKind.PROGRESS,
    EventKind.DEAD_LETTERED,
}

"""Answers that several resources share."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, Field

from trivet.values import TaskState


class Status(StrEnum):
    """Where something stands, in Mixpeek's words."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    COMPLETED_WITH_ERRORS = "COMPLETED_WITH_ERRORS"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    INTERRUPTED = "INTERRUPTED"
    UNKNOWN = "UNKNOWN"
    SKIPPED = "SKIPPED"
    DRAFT = "DRAFT"
    ACTIVE = "ACTIVE"
    ARCHIVED = "ARCHIVED"
    SUSPENDED = "SUSPENDED"
    DEACTIVATED = "DEACTIVATED"


STATUS_OF: dict[TaskState, Status] = {
    TaskState.WAITING: Status.PENDING,
    TaskState.QUEUED: Status.QUEUED,
    TaskState.PREPARING: Status.PROCESSING,
    TaskState.EMBEDDING: Status.PROCESSING,
    TaskState.COMMITTING: Status.PROCESSING,
    TaskState.COMPLETED: Status.COMPLETED,
    TaskState.SKIPPED: Status.SKIPPED,
    TaskState.FAILED: Status.FAILED,
    TaskState.CANCELLED: Status.CANCELED,
    TaskState.SUPERSEDED: Status.SKIPPED,
    TaskState.DELETED: Status.COMPLETED,
}


class Deleted(BaseModel):
    """It is gone, or on its way out."""

    success: bool = True
    message: str = Field("Successfully deleted", examples=["Successfully deleted"])
    task_ids: list[str] = Field(default_factory=list, description="Tasks that hide objects; none: it is done already.")


def timestamp(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

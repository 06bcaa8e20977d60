"""Retry is a decision, not a loop: what an error means for a work item."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from trivet.errors import TrivetError
from trivet.settings import Settings
from trivet.values import ErrorRecord


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write down, and when to try again if the error is transient."""

    record: ErrorRecord
    delay_seconds: float


def decide(error: Exception, stage: str, attempts: int, settings: Settings, random: Random) -> Decision:
    """Exponential backoff with full jitter (between half and the whole of base · 2^attempts, capped).

    An error that is none of ours is a bug of this program: it is tried again, since a newer worker may know better,
    and shown by its type alone, since its text may hold anything.
    """
    if isinstance(error, TrivetError):
        record = ErrorRecord(
            code=error.code, message=error.message, hint=error.hint, stage=stage, transient=error.transient
        )
    else:
        record = ErrorRecord(
            code="internal",
            message=f"{stage} ended with an unexpected {type(error).__name__}.",
            hint="The worker's log has the details under this task's id.",
            stage=stage,
            transient=True,
        )
    ceiling = min(settings.retry_max_seconds, settings.retry_base_seconds * 2**attempts)
    return Decision(record, ceiling * random.uniform(0.5, 1.0))

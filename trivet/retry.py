"""Retry is a decision, not a loop: what an error means for a work item."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from trivet.errors import LedgerUnavailable, NotUnderstood, StoreForbidden, StoreUnavailable, TrivetError
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import ErrorRecord

#: Between two tries of an item that failed through no fault of its own, about.
_OUTAGE_PAUSE_SECONDS = 5.0
#: Of the pause between two tries: any more of them would be above every sensible limit.
_MOST_DOUBLINGS = 60
#: Between two tries of an item that this worker does not understand: the next one may, and so may this one's heir.
_NOT_UNDERSTOOD_PAUSE_SECONDS = 2.0
#: How long a roll-out of workers that understand it may take.
_ROLL_OUT_SECONDS = 86400.0
#: Ten years: longer than any task lives, and still a number that every ledger can count with.
FOREVER_SECONDS = 10 * 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write down, and when to try again if the error is transient."""

    record: ErrorRecord
    delay_seconds: float
    #: None: the error is charged to the item. A number: it is nobody's fault, and fails the item only where such
    #: errors have gone on for that long.
    patience_seconds: float | None = None


def decide(error: Exception, stage: str, attempts: int, settings: Settings, random: Random) -> Decision:
    """Exponential backoff with full jitter (between half and the whole of base · 2^attempts, capped).

    An S3 or Redis that is away says nothing about the item: it is not charged, and tried again every few seconds. Nor
    does an S3 that refuses, which is what a key that was rotated, or a policy that was wrong for a while, looks like.
    The same goes for a worker that is too old for the item, and for a day. A commit is never given up for a transient
    error, since its generation may be visible already.
    """
    record = _record(error, stage)
    if isinstance(error, StoreForbidden):
        record = record.model_copy(update={"transient": True})
    away = isinstance(error, StoreUnavailable | StoreForbidden | LedgerUnavailable)
    if record.transient and (stage == Stage.COMMIT or away):
        pause = min(settings.retry_max_seconds, _OUTAGE_PAUSE_SECONDS * random.uniform(0.75, 1.25))
        patience = FOREVER_SECONDS if stage == Stage.COMMIT else settings.outage_patience_seconds
        return Decision(record, pause, patience)
    if isinstance(error, NotUnderstood):
        return Decision(record, _NOT_UNDERSTOOD_PAUSE_SECONDS * random.uniform(0.75, 1.25), _ROLL_OUT_SECONDS)
    ceiling = min(settings.retry_max_seconds, settings.retry_base_seconds * 2.0 ** min(attempts, _MOST_DOUBLINGS))
    return Decision(record, ceiling * random.uniform(0.5, 1.0))


def unexpected(kind: str, stage: str) -> ErrorRecord:
    """The record of an error that is none of ours, which is a bug of this program: it is tried again, since a newer
    worker may know better, and shown by its type alone, since its text may hold anything.
    """
    return ErrorRecord(
        code="internal",
        message=f"{stage} ended with an unexpected {kind}.",
        hint="The worker's log has the details under this task's id.",
        stage=stage,
        transient=True,
    )


def _record(error: Exception, stage: str) -> ErrorRecord:
    if not isinstance(error, TrivetError):
        return unexpected(type(error).__name__, stage)
    return ErrorRecord(
        code=error.code,
        message=encodable(error.message),
        hint=encodable(error.hint),
        stage=stage,
        transient=error.transient,
    )


def encodable(text: str) -> str:
    """The text with a question mark for every lone surrogate, which no JSON or log file could hold."""
    return text.encode("utf-8", "replace").decode("utf-8")

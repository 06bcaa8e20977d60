"""What every stage works with, opened once per process."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import structlog
from pydantic import ValidationError

from trivet.clock import Clock, SystemClock
from trivet.errors import LeaseLost, LedgerUnavailable, NotUnderstood
from trivet.ledger import Ledger
from trivet.names import Stage, TaskKind
from trivet.retry import Decision, decide, encodable, unexpected
from trivet.settings import Settings
from trivet.stages.keeper import LeaseKeeper
from trivet.stores import ObjectStore
from trivet.values import Lease

log = structlog.get_logger(__name__)


def never() -> bool:
    """The stop check of a process that nobody stops."""
    return False


def not_understood(what: str, error: ValidationError) -> NotUnderstood:
    """What a worker makes of a value in a work item that its own version cannot read."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or what
    return NotUnderstood(f"The {what} of this work item is of another version: {where}: {first['msg'].lower()}.")


def check_kind(payload: Mapping[str, Any], *known: TaskKind) -> TaskKind:
    """The kind of task that a lease is of. Raises `NotUnderstood` for one that only a newer version knows."""
    kind = payload.get("kind", TaskKind.INGEST)
    if kind not in known:
        raise NotUnderstood(f"A task of the kind {kind!r} is not known to this worker.")
    return TaskKind(kind)


def worker_name() -> str:
    """Host, process and a random tail: no two processes ever share it."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


@dataclass(frozen=True)
class StageContext:
    """Settings, ledger, store and the process' identity. Make it after a fork, with `open_context`."""

    settings: Settings
    ledger: Ledger
    store: ObjectStore
    worker: str
    keeper: LeaseKeeper
    clock: Clock = field(default_factory=SystemClock)
    random: Random = field(default_factory=Random)
    #: Whether the process has been asked to stop; looked at between pieces of work.
    stopping: Callable[[], bool] = never

    def operation(self) -> str:
        """A fresh operation id for one claim."""
        return secrets.token_hex(8)

    def settle(self, lease: Lease, error: Exception) -> None:
        """Tell the ledger that a work item failed; what the ledger cannot hear, its lease's expiry will say."""
        self.keeper.drop(lease)
        if isinstance(error, LeaseLost):
            log.info("lease.lost", item=lease.item)
            return
        decision = decide(error, lease.stage, lease.attempts, self.settings, self.random)
        internal = decision.record.code == "internal"
        log.warning(
            "item.failed", item=lease.item, code=decision.record.code, error=encodable(str(error)), exc_info=internal
        )
        try:
            outcome = self._fail(lease, decision)
        except (LeaseLost, LedgerUnavailable) as lost:
            log.warning("item.unsettled", item=lease.item, error=str(lost))
        except Exception:
            # An item that cannot be settled would be leased again and again: say less, but say it.
            log.exception("item.record_refused", item=lease.item)
            self._fail_barely(lease, decision)
        else:
            log.info("item.charged", item=lease.item, outcome=outcome)

    def _fail(self, lease: Lease, decision: Decision) -> str:
        return self.ledger.fail(
            lease,
            decision.record,
            delay_seconds=decision.delay_seconds,
            max_attempts=self.settings.max_attempts,
            patience_seconds=decision.patience_seconds,
        )

    def _fail_barely(self, lease: Lease, decision: Decision) -> None:
        bare = unexpected("error", lease.stage)
        try:
            self._fail(lease, replace(decision, record=bare))
        except Exception:
            # Its lease expires, and the sweep takes it from there.
            log.exception("item.unsettled", item=lease.item)

    def close(self) -> None:
        """Give back what is still held and strike the worker off."""
        # First, or a heartbeat would bring it back.
        self.keeper.close()
        try:
            given = self.ledger.farewell(self.worker)
            log.info("worker.gone", worker=self.worker, given_back=given)
        except LedgerUnavailable as error:
            log.warning("farewell.failed", worker=self.worker, error=error.message)


def open_context(
    settings: Settings,
    ledger: Ledger,
    store: ObjectStore,
    roles: Sequence[Stage],
    *,
    queues: Sequence[str] = (),
    parent: str = "",
    stopping: Callable[[], bool] = never,
) -> StageContext:
    """A context with a running lease keeper, which tells the ledger what `queues` of it this worker serves.

    `parent` names the process that starts this worker anew when it dies, and its siblings; empty where none does.
    """
    worker = worker_name()
    info = {"roles": list(roles), "queues": list(queues), "host": socket.gethostname(), "pid": os.getpid()}
    keeper = LeaseKeeper(ledger, settings, worker, roles, json.dumps(info | ({"parent": parent} if parent else {})))
    return StageContext(settings, ledger, store, worker, keeper, stopping=stopping)

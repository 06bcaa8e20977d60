"""The Celery task by which an app of any language enqueues: `trivet.accept` with an ingest request as JSON.

The message's id is the idempotency key unless the request has one, so a redelivered message is the same task. Until
this has run, the request has plain Celery's guarantees and no more.
"""

from __future__ import annotations

from typing import Any

import structlog
from celery import Task, shared_task
from celery.exceptions import Reject

from trivet import names
from trivet.accept import accept as take_in
from trivet.accept import parse_request
from trivet.errors import LedgerUnavailable, TrivetError
from trivet.stages.process import current

log = structlog.get_logger(__name__)


@shared_task(name=names.ACCEPT_TASK, bind=True)
def accept(self: Task, request: dict[str, Any]) -> None:
    """Take the request in; one that is refused is logged, since nobody waits for an answer."""
    ctx = current().ctx
    try:
        wanted = parse_request({"idempotency_key": self.request.id, "namespace": ctx.settings.namespace, **request})
        accepted = take_in(ctx.ledger, ctx.settings, wanted)
    except LedgerUnavailable as error:
        ctx.clock.sleep(1.0)
        raise Reject(error.message, requeue=True) from None
    except TrivetError as error:
        log.error("accept.refused", message_id=self.request.id, code=error.code, error=str(error))
    else:
        log.info("accept.taken", message_id=self.request.id, task_id=accepted.task_id, new=accepted.new)

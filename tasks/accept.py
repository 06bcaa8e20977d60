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
from trivet.stages.context import StageContext
from trivet.stages.process import current

log = structlog.get_logger(__name__)


@shared_task(name=names.ACCEPT_TASK, bind=True)
def accept(self: Task, request: Any = None) -> None:
    """Take the request in; one that is refused is logged, since nobody waits for an answer."""
    take(current().ctx, request, self.request.id)


def take(ctx: StageContext, request: object, message_id: str) -> None:
    """The same for a message of this id. A field that is null counts as left out."""
    defaults = {"idempotency_key": message_id, "namespace": ctx.settings.namespace}
    try:
        if isinstance(request, dict):
            request = defaults | {name: value for name, value in request.items() if value is not None}
        accepted = take_in(ctx.ledger, ctx.settings, parse_request(request), store=ctx.store)
    except LedgerUnavailable as error:
        ctx.clock.sleep(1.0)
        raise Reject(error.message, requeue=True) from None
    except TrivetError as error:
        log.error("accept.refused", message_id=message_id, code=error.code, error=str(error))
    else:
        log.info("accept.taken", message_id=message_id, task_id=accepted.task_id, new=accepted.new)

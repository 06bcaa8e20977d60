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
from trivet.errors import (
    InvalidRequest,
    LedgerUnavailable,
    NotUnderstood,
    StoreForbidden,
    StoreUnavailable,
    TrivetError,
)
from trivet.stages.context import StageContext
from trivet.stages.process import current

log = structlog.get_logger(__name__)

#: The form of a request that this worker knows. One that says a higher `schema_version` is left for a newer worker.
REQUEST_VERSION = 1
#: How long this process rests before it puts a message back, which may come right back to it.
_PAUSE_SECONDS = 1.0


# Unlike a doorbell it is not rung again: it must outlive the process that takes it in.
@shared_task(name=names.ACCEPT_TASK, bind=True, reject_on_worker_lost=True)
def accept(self: Task, request: Any = None, **_: object) -> None:
    """Take the request in; one that is refused is logged, since nobody waits for an answer."""
    take(current().ctx, request, self.request.id)


def take(ctx: StageContext, request: object, message_id: str) -> None:
    """The same for a message of this id. A field that is null counts as left out."""
    defaults = {"idempotency_key": message_id, "namespace": ctx.settings.namespace}
    try:
        if isinstance(request, dict):
            request = defaults | {name: value for name, value in request.items() if value is not None}
            _check_version(request.pop("schema_version", REQUEST_VERSION))
        accepted = take_in(ctx.ledger, ctx.settings, parse_request(request), store=ctx.store)
    except (LedgerUnavailable, StoreUnavailable, StoreForbidden, NotUnderstood) as error:
        log.warning("accept.put_back", message_id=message_id, code=error.code, error=str(error))
        ctx.clock.sleep(_PAUSE_SECONDS)
        raise Reject(error.message, requeue=True) from None
    except TrivetError as error:
        log.error("accept.refused", message_id=message_id, code=error.code, error=str(error))
    else:
        log.info("accept.taken", message_id=message_id, task_id=accepted.task_id, new=accepted.new)


def _check_version(version: object) -> None:
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InvalidRequest("schema_version: it is no version of a request.", hint="Leave it out, or send 1.")
    if version > REQUEST_VERSION:
        raise NotUnderstood(f"The request has version {version}, and this worker knows version {REQUEST_VERSION}.")

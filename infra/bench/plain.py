"""Plain Celery on Redis with a task that does nothing: what the ledger is held against."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task

QUEUE = "plain"


def plain_app(url: str, *, late: bool) -> tuple[Celery, Task]:
    """The app and its only task; `late` acknowledges after the task instead of before."""
    made = Celery("plain", broker=url)
    made.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_acks_late=late,
        task_reject_on_worker_lost=late,
        worker_prefetch_multiplier=1 if late else 4,
        broker_connection_retry_on_startup=True,
    )

    @made.task(name="plain.empty")
    def empty(**_: Any) -> None:
        return None

    return made, empty


#: What `celery -A infra.bench.plain` finds.
app: Celery | None = None
if "PLAIN_URL" in os.environ:
    app, _ = plain_app(os.environ["PLAIN_URL"], late=bool(os.environ.get("PLAIN_LATE")))

"""Plain Celery on Redis, with every setting that keeps a task when its worker dies; for the comparison.

celery -A infra.faults.plain_app worker
"""

from __future__ import annotations

import os
import time

import redis
from celery import Celery

#: Celery takes a task for lost after so long; it must be longer than a task takes. The default is an hour.
VISIBILITY_SECONDS = 8
_TASK_SECONDS = 0.2
_URL = os.environ.get("PLAIN_REDIS_URL", "redis://127.0.0.1:6379/0")
PREFIX = os.environ.get("PLAIN_PREFIX", "plain:")
RAN, DONE = f"{PREFIX}ran", f"{PREFIX}done"

app = Celery("plain", broker=_URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    result_backend=None,
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_SECONDS,
        # As often as it can look for what is overdue.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "global_keyprefix": PREFIX,
    },
)


@app.task(name="plain.work")  # type: ignore[untyped-decorator] # Celery's are
def work(number: int) -> None:
    """As a task that does something: it takes a while, then leaves its trace in one transaction."""
    time.sleep(_TASK_SECONDS)
    with redis.Redis.from_url(_URL) as client, client.pipeline(transaction=True) as pipe:
        pipe.hincrby(RAN, str(number), 1)
        pipe.sadd(DONE, str(number))
        pipe.execute()

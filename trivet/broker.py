"""The Celery app. Celery carries doorbells and gives fleets, routing and signals; the ledger holds the truth."""

from __future__ import annotations

from collections.abc import Sequence

from celery import Celery
from kombu import Exchange, Queue

from trivet.ledger import Ringer
from trivet.names import ACCEPT_QUEUE, ANY, STAGE_TASKS, Stage, celery_queue
from trivet.settings import Settings


def queue_names(roles: Sequence[Stage], encoder_keys: Sequence[str] = ()) -> list[str]:
    """The Celery queues of a worker with these roles that serves these encoder keys."""
    names = []
    for role in roles:
        names += [celery_queue(role, key) for key in (encoder_keys if role is Stage.EMBED else [ANY])]
    return names


def make_app(settings: Settings, *, include: Sequence[str] = (), queues: Sequence[str] = ()) -> Celery:
    """A Celery app on the ledger's Redis. Producers need no arguments; workers name their modules and queues."""
    app = Celery("trivet", broker=settings.redis_url, include=list(include))
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # the ledger takes over; a redelivered doorbell would loop on a poison child
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        # Without exchanges of their own all queues would share one, and get a copy each of what is sent to it.
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in queues],
        task_create_missing_queues=True,
        task_default_queue=ACCEPT_QUEUE,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_max_tasks_per_child=1000,
        worker_max_memory_per_child=1_500_000,  # KiB
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        # Whoever can publish to Redis could stop a worker by it, or end it by one malformed word.
        worker_enable_remote_control=False,
        broker_transport="trivet.transport:Transport",
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": 1800,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "global_keyprefix": f"{settings.redis_prefix}celery:",
        },
    )
    return app


def celery_ringer(app: Celery) -> Ringer:
    """Sends doorbells through the app; a failure is the caller's to swallow, since the sweep rings again."""

    def ring(stage: Stage, door: str, bell: str) -> None:
        app.send_task(
            STAGE_TASKS[stage],
            kwargs={"door": door, "bell": bell},
            queue=celery_queue(stage, door),
            # Never one that expires: Celery would judge that by the worker's own clock, and a wrong one made it deaf.
            ignore_result=True,
            retry=False,
        )

    return ring

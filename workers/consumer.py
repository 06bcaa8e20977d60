"""What Celery's consumer does with messages that it cannot run: here, nothing that loses one."""

from __future__ import annotations

from typing import Any

import structlog
from celery.worker.consumer import Consumer

from trivet.transport import PUT_OFF_SECONDS

log = structlog.get_logger(__name__)


class PatientConsumer(Consumer):  # type: ignore[misc] # Celery ships no types
    """Leaves a task that this worker does not know for one that does; what no worker could run is a dead letter.

    Celery itself throws both away.
    """

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        """A newer Trivet knows it, or another app that shares the queue: it comes again in a while, after the rest."""
        log.warning("message.unknown_task", task=str(exc.args[0])[:100])
        message.channel.qos.put_off(message.delivery_tag, PUT_OFF_SECONDS)

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002 - as above
        message.channel.bury_message(message, "it is no task")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 - as above
        message.channel.bury_message(message, f"it is no valid task ({type(exc).__name__})")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        message.channel.bury_message(message, f"its body cannot be read ({type(exc).__name__})")

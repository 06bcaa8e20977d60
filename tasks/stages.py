"""The Celery tasks. Each is a doorbell: it names a stage, never a task, and losing or doubling one is harmless.

Whatever else a newer version may tell along with a doorbell, an older one answers it all the same.
"""

from __future__ import annotations

from celery import shared_task

from trivet import names
from trivet.names import Stage
from trivet.stages.process import current


@shared_task(name=names.PREPARE_TASK)
def prepare(door: str, bell: str, **_: object) -> None:
    """Sources may wait to be fetched, parsed, chunked and staged."""
    current().answer(Stage.PREPARE, door, bell)


@shared_task(name=names.EMBED_TASK)
def embed(door: str, bell: str, **_: object) -> None:
    """Shards may wait for this worker's encoder."""
    current().answer(Stage.EMBED, door, bell)


@shared_task(name=names.COMMIT_TASK)
def commit(door: str, bell: str, **_: object) -> None:
    """Tasks may wait to be made visible."""
    current().answer(Stage.COMMIT, door, bell)

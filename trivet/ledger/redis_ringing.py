"""Ringing for what a script has put in line."""

from __future__ import annotations

from collections.abc import Iterable

import redis
import structlog

from trivet.ledger import Ringer, no_ringer
from trivet.ledger.redis_reading import RedisReader
from trivet.names import Stage
from trivet.settings import Settings

log = structlog.get_logger(__name__)


class RedisRinging(RedisReader):
    """Thread-safe; open it after a fork."""

    def __init__(self, settings: Settings, ringer: Ringer = no_ringer, client: redis.Redis | None = None) -> None:
        super().__init__(settings, client)
        self._ringer = ringer

    def _ring(self, bells: Iterable[str]) -> None:
        for bell in bells:
            stage, door, number = bell.split("|")
            try:
                self._ringer(Stage(stage), door, number)
            except Exception as error:  # noqa: BLE001 - whatever the transport raises: the sweep rings again
                log.warning("doorbell.lost", stage=stage, door=door, error=type(error).__name__)

"""The audit log in Redis: a stream per namespace, cut at its length."""

from __future__ import annotations

from trivet.ledger.redis_reading import RedisReader
from trivet.settings import Settings
from trivet.trail import Entry


class RedisTrail(RedisReader):
    """Thread-safe; open it after a fork, and close it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._length = settings.audit_log_length

    def note(self, entry: Entry) -> None:
        key = self._key("trail", entry.namespace)
        self._do(lambda: self._client.xadd(key, {"entry": entry.model_dump_json()}, maxlen=self._length))

    def entries(self, namespace: str, limit: int) -> list[Entry]:
        found = self._do(lambda: self._client.xrevrange(self._key("trail", namespace), count=limit))
        return [Entry.model_validate_json(fields["entry"]) for _, fields in found]

"""The twin of the audit log in Redis: it lives in this process."""

from __future__ import annotations

from collections import deque

from trivet.settings import Settings
from trivet.trail import Entry


class MemoryTrail:
    """`Trail` without Redis."""

    def __init__(self, settings: Settings) -> None:
        self._length = settings.audit_log_length
        self._entries: dict[str, deque[Entry]] = {}

    def close(self) -> None:
        """Nothing to close."""

    def note(self, entry: Entry) -> None:
        self._entries.setdefault(entry.namespace, deque(maxlen=self._length)).append(entry)

    def entries(self, namespace: str, limit: int) -> list[Entry]:
        return list(self._entries.get(namespace, ()))[::-1][:limit]

"""The twin of the book of API keys: it lives in this process."""

from __future__ import annotations

import threading

from trivet.clock import Clock
from trivet.keys import MOST_KEYS, REVOKED_DAYS, ApiKey, KeyHash, NewKey
from trivet.keys.refusals import revoked, too_many_keys, unknown_key

_DAY_SECONDS = 86_400


class MemoryKeys:
    """`KeyBook` without Redis."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._keys: dict[str, ApiKey] = {}

    def close(self) -> None:
        pass

    def add(self, key: NewKey) -> ApiKey:
        with self._lock:
            if key.key_id not in self._present():
                if len(self.keys(key.namespace)) >= MOST_KEYS:
                    raise too_many_keys(key.namespace)
                self._keys[key.key_id] = ApiKey(**dict(key), created_at=self._clock.now())
            return self._keys[key.key_id]

    def key(self, key_id: str) -> ApiKey:
        found = self._present().get(key_id)
        if found is None:
            raise unknown_key(key_id)
        return found

    def keys(self, namespace: str) -> list[ApiKey]:
        found = [key for key in self._present().values() if key.namespace == namespace]
        return sorted(found, key=lambda key: (key.created_at, key.key_id))

    def rotate(self, key_id: str, new: str, overlap_seconds: float) -> ApiKey:
        with self._lock:
            key, now = self.key(key_id), self._clock.now()
            if key.revoked_at is not None:
                raise revoked(key_id)
            if all(each.value != new for each in key.hashes):
                until = now + overlap_seconds
                ends = [KeyHash(value=h.value, expires_at=min(h.expires_at or until, until)) for h in key.hashes]
                kept = [each for each in ends if (each.expires_at or 0) > now]
                self._keys[key_id] = key.model_copy(update={"hashes": (KeyHash(value=new), *kept)})
            return self._keys[key_id]

    def revoke(self, key_id: str) -> bool:
        with self._lock:
            key = self.key(key_id)
            if key.revoked_at is not None:
                return False
            self._keys[key_id] = key.model_copy(update={"revoked_at": self._clock.now(), "hashes": ()})
            return True

    def used(self, key_id: str) -> None:
        with self._lock:
            if key_id in self._keys:
                self._keys[key_id] = self._keys[key_id].model_copy(update={"last_used_at": self._clock.now()})

    def _present(self) -> dict[str, ApiKey]:
        with self._lock:
            end = self._clock.now() - REVOKED_DAYS * _DAY_SECONDS
            self._keys = {name: key for name, key in self._keys.items() if (key.revoked_at or end + 1) > end}
            return self._keys

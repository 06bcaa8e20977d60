"""The book of API keys in Redis; every change is one script in `lua/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trivet.keys import MOST_KEYS, REVOKED_DAYS, ApiKey, KeyHash, KeyLimits, NewKey, Scope
from trivet.keys.refusals import revoked, too_many_keys, unknown_key
from trivet.ledger.redis_reading import RedisReader

_DAY_MS = 86_400_000


class RedisKeys(RedisReader):
    """Thread-safe; open it after a fork, and close it."""

    _package = "trivet.keys"
    _in_front = (("trivet.ledger", "_common"), ("trivet.keys", "_keys"))
    _refused_when_full = frozenset()

    def add(self, key: NewKey) -> ApiKey:
        fields = {
            "name": key.name,
            "scopes": json.dumps(key.scopes),
            "limits": key.limits.model_dump_json(),
            "hashes": json.dumps([_hash_row(each) for each in key.hashes]),
            "expires": "" if key.expires_at is None else str(_ms(key.expires_at)),
        }
        flat = [word for pair in fields.items() for word in pair]
        if self._run("add", key.key_id, key.namespace, MOST_KEYS, *flat) < 0:
            raise too_many_keys(key.namespace)
        return self.key(key.key_id)

    def key(self, key_id: str) -> ApiKey:
        row = self._do(lambda: self._client.hgetall(self._key("apikey", key_id)))
        if not row:
            raise unknown_key(key_id)
        return _api_key(row)

    def keys(self, namespace: str) -> list[ApiKey]:
        pipe = self._client.pipeline(transaction=False)
        for key_id in self._run("list", namespace):
            pipe.hgetall(self._key("apikey", key_id))
        found = [_api_key(row) for row in self._do(pipe.execute) if row]
        return sorted(found, key=lambda key: (key.created_at, key.key_id))

    def rotate(self, key_id: str, new: str, overlap_seconds: float) -> ApiKey:
        done = self._run("rotate", key_id, new, _ms(overlap_seconds))
        if not done:
            raise unknown_key(key_id)
        if done < 0:
            raise revoked(key_id)
        return self.key(key_id)

    def revoke(self, key_id: str) -> bool:
        done = self._run("revoke", key_id, REVOKED_DAYS * _DAY_MS)
        if done < 0:
            raise unknown_key(key_id)
        return bool(done)

    def used(self, key_id: str) -> None:
        self._run("used", key_id)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _seconds(text: str | None) -> float | None:
    return float(text) / 1000 if text else None


def _hash_row(each: KeyHash) -> dict[str, Any]:
    return {"value": each.value} if each.expires_at is None else {"value": each.value, "expires": _ms(each.expires_at)}


def _api_key(row: Mapping[str, str]) -> ApiKey:
    hashes = json.loads(row["hashes"]) or []
    return ApiKey(
        key_id=row["id"],
        namespace=row["namespace"],
        name=row["name"],
        scopes=tuple(Scope(each) for each in json.loads(row["scopes"])),
        limits=KeyLimits.model_validate_json(row["limits"]),
        hashes=tuple(
            KeyHash(value=each["value"], expires_at=each["expires"] / 1000 if "expires" in each else None)
            for each in hashes
        ),
        expires_at=_seconds(row["expires"]),
        created_at=float(row["created"]) / 1000,
        revoked_at=_seconds(row.get("revoked")),
        last_used_at=_seconds(row.get("used")),
    )

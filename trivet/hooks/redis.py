"""The book of hooks in Redis; every change is one script in `lua/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from trivet.delivery.values import SigningSecret
from trivet.hooks import Begun, Hook, NewHook, Received
from trivet.hooks.refusals import MOST_HOOKS, too_many_hooks, unknown_hook
from trivet.ledger.redis_reading import RedisReader


class RedisHooks(RedisReader):
    """Thread-safe; open it after a fork, and close it."""

    _package = "trivet.hooks"
    _in_front = (("trivet.ledger", "_common"), ("trivet.hooks", "_hooks"))
    _refused_when_full = frozenset()

    def add(self, hook: NewHook) -> Hook:
        fields = {
            "collection": hook.collection,
            "scheme": hook.scheme,
            "options": json.dumps(hook.options),
            "description": hook.description,
            "secrets": json.dumps([_secret_row(each) for each in hook.secrets]),
        }
        flat = [word for pair in fields.items() for word in pair]
        if self._run("add", hook.hook_id, hook.namespace, MOST_HOOKS, *flat) < 0:
            raise too_many_hooks(hook.namespace)
        return self.hook(hook.hook_id)

    def hook(self, hook_id: str) -> Hook:
        row = self._do(lambda: self._client.hgetall(self._key("hook", hook_id)))
        if not row:
            raise unknown_hook(hook_id)
        return _hook(row)

    def hooks(self, namespace: str) -> list[Hook]:
        ids = self._do(lambda: self._client.smembers(self._key("hooks", namespace)))
        pipe = self._client.pipeline(transaction=False)
        for hook_id in ids:
            pipe.hgetall(self._key("hook", hook_id))
        found = [_hook(row) for row in self._do(pipe.execute) if row]
        return sorted(found, key=lambda hook: (hook.created_at, hook.hook_id))

    def remove(self, hook_id: str) -> None:
        self._run("remove", hook_id)

    def rotate_secret(self, hook_id: str, secret: str, overlap_seconds: float) -> Hook:
        if not self._run("rotate", hook_id, secret, _ms(overlap_seconds)):
            raise unknown_hook(hook_id)
        return self.hook(hook_id)

    def begin(self, hook_id: str, delivery: str, owner: str, lease_seconds: float) -> Begun:
        answer = self._run("begin", hook_id, delivery, owner, _ms(lease_seconds))
        if answer in ("", "busy"):
            return Begun(busy=answer == "busy")
        return Begun(Received.model_validate_json(answer))

    def finish(self, hook_id: str, delivery: str, outcome: Received, keep_seconds: float) -> None:
        self._run("finish", hook_id, delivery, outcome.model_dump_json(), _ms(keep_seconds), outcome.kind)

    def give_up(self, hook_id: str, delivery: str, owner: str) -> None:
        self._run("give_up", hook_id, delivery, owner)

    def newest(self, hook_id: str, object_id: str, order: str, keep_seconds: float) -> bool:
        return bool(self._run("newest", hook_id, object_id, order, _ms(keep_seconds)))


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _secret_row(secret: SigningSecret) -> dict[str, Any]:
    row: dict[str, Any] = {"value": secret.value.get_secret_value()}
    return row if secret.expires_at is None else {**row, "expires": _ms(secret.expires_at)}


def _hook(row: Mapping[str, str]) -> Hook:
    secrets = [
        SigningSecret(value=SecretStr(each["value"]), expires_at=each["expires"] / 1000 if "expires" in each else None)
        for each in json.loads(row["secrets"]) or []
    ]
    return Hook(
        hook_id=row["id"],
        namespace=row["namespace"],
        collection=row["collection"],
        scheme=row["scheme"],
        options=json.loads(row["options"]),
        description=row["description"],
        secrets=tuple(secrets),
        created_at=float(row["created"]) / 1000,
        last_at=float(row["last"]) / 1000 if "last" in row else None,
        last_kind=row.get("kind", ""),
    )

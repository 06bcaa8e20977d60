"""The twin of the book of hooks: it lives in this process."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pydantic import SecretStr

from trivet.clock import Clock
from trivet.delivery.values import SigningSecret
from trivet.hooks import Begun, Hook, NewHook, Received
from trivet.hooks.refusals import MOST_HOOKS, too_many_hooks, unknown_hook


@dataclass
class _Row:
    owner: str
    ends: float
    outcome: Received | None = None


class MemoryHooks:
    """`HookBook` without Redis."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._hooks: dict[str, Hook] = {}
        self._received: dict[tuple[str, str], _Row] = {}
        self._orders: dict[tuple[str, str], tuple[str, float]] = {}

    def close(self) -> None:
        pass

    def add(self, hook: NewHook) -> Hook:
        with self._lock:
            if hook.hook_id not in self._hooks:
                if len(self.hooks(hook.namespace)) >= MOST_HOOKS:
                    raise too_many_hooks(hook.namespace)
                self._hooks[hook.hook_id] = Hook(**dict(hook), created_at=self._clock.now())
            return self._hooks[hook.hook_id]

    def hook(self, hook_id: str) -> Hook:
        found = self._hooks.get(hook_id)
        if found is None:
            raise unknown_hook(hook_id)
        return found

    def hooks(self, namespace: str) -> list[Hook]:
        found = [hook for hook in list(self._hooks.values()) if hook.namespace == namespace]
        return sorted(found, key=lambda hook: (hook.created_at, hook.hook_id))

    def remove(self, hook_id: str) -> None:
        self._hooks.pop(hook_id, None)

    def rotate_secret(self, hook_id: str, secret: str, overlap_seconds: float) -> Hook:
        with self._lock:
            hook, now = self.hook(hook_id), self._clock.now()
            if all(each.value.get_secret_value() != secret for each in hook.secrets):
                until = now + overlap_seconds
                old = hook.secrets
                ends = [SigningSecret(value=s.value, expires_at=min(s.expires_at or until, until)) for s in old]
                kept = [each for each in ends if (each.expires_at or 0) > now]
                changed = {"secrets": (SigningSecret(value=SecretStr(secret)), *kept)}
                self._hooks[hook_id] = hook.model_copy(update=changed)
            return self._hooks[hook_id]

    def begin(self, hook_id: str, delivery: str, owner: str, lease_seconds: float) -> Begun:
        with self._lock:
            now, place = self._clock.now(), (hook_id, delivery)
            row = self._received.get(place)
            if row is not None and row.ends > now:
                if row.outcome is not None:
                    return Begun(row.outcome)
                if row.owner != owner:
                    return Begun(busy=True)
            self._received[place] = _Row(owner, now + lease_seconds)
            return Begun()

    def finish(self, hook_id: str, delivery: str, outcome: Received, keep_seconds: float) -> None:
        with self._lock:
            now = self._clock.now()
            self._received[hook_id, delivery] = _Row("", now + keep_seconds, outcome)
            if hook_id in self._hooks:
                changed = {"last_at": now, "last_kind": outcome.kind}
                self._hooks[hook_id] = self._hooks[hook_id].model_copy(update=changed)

    def give_up(self, hook_id: str, delivery: str, owner: str) -> None:
        with self._lock:
            row = self._received.get((hook_id, delivery))
            if row is not None and row.owner == owner and row.outcome is None:
                del self._received[hook_id, delivery]

    def newest(self, hook_id: str, object_id: str, order: str, keep_seconds: float) -> bool:
        with self._lock:
            now, place = self._clock.now(), (hook_id, object_id)
            last, until = self._orders.get(place, ("", now))
            length = max(len(order), len(last))
            if until > now and order.ljust(length, "0") < last.ljust(length, "0"):
                return False
            self._orders[place] = (order, now + keep_seconds)
            return True

"""Resources in memory: the twin for tests."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from trivet.clock import Clock, SystemClock
from trivet.resources import Outcome, Reserved, Resource
from trivet.resources.refusals import already_exists

_Kind = tuple[str, str]


@dataclass
class MemoryResources:
    """Thread-safe; lives as long as its process."""

    clock: Clock = field(default_factory=SystemClock)
    _kinds: dict[_Kind, dict[str, Resource]] = field(default_factory=dict)
    _links: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    #: (namespace, key) → fingerprint, answer, and when it goes.
    _answers: dict[tuple[str, str], tuple[str, str | None, float]] = field(default_factory=dict)
    #: (namespace, key) → text, and when it goes.
    _seeds: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)
    _number: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def close(self) -> None:
        """There is nothing to close."""

    def create(self, namespace: str, kind: str, resource_id: str, body: str, *, name: str = "") -> Resource:
        with self._lock:
            held = self._kinds.setdefault((namespace, kind), {})
            if resource_id in held:
                return held[resource_id]
            for other in held.values():
                if name and other.name == name:
                    raise already_exists(kind.partition("/")[0], name, other.id)
            self._number += 1
            made = held[resource_id] = Resource(namespace, kind, resource_id, name, body, 1, self._number)
            return replace(made, new=True)

    def get(self, namespace: str, kind: str, id_or_name: str) -> Resource | None:
        with self._lock:
            held = self._kinds.get((namespace, kind), {})
            named = (resource for resource in held.values() if resource.name and resource.name == id_or_name)
            return held.get(id_or_name) or next(named, None)

    def replace(self, resource: Resource, body: str) -> Resource | None:
        with self._lock:
            held = self._kinds.get((resource.namespace, resource.kind), {})
            there = held.get(resource.id)
            if there is None or there.version != resource.version:
                return None
            made = held[resource.id] = replace(there, body=body, version=there.version + 1)
            return made

    def delete(self, namespace: str, kind: str, resource_id: str) -> bool:
        with self._lock:
            self._links.pop((namespace, resource_id), None)
            return self._kinds.get((namespace, kind), {}).pop(resource_id, None) is not None

    def drop(self, namespace: str, kind: str) -> None:
        with self._lock:
            for resource_id in self._kinds.pop((namespace, kind), {}):
                self._links.pop((namespace, resource_id), None)

    def page(self, namespace: str, kind: str, *, after: int = 0, limit: int = 100) -> list[Resource]:
        with self._lock:
            held = self._kinds.get((namespace, kind), {}).values()
            return sorted((r for r in held if r.number > after), key=lambda r: r.number)[:limit]

    def page_back(self, namespace: str, kind: str, *, before: int | None = None, limit: int = 100) -> list[Resource]:
        with self._lock:
            held = self._kinds.get((namespace, kind), {}).values()
            found = (r for r in held if before is None or r.number < before)
            return sorted(found, key=lambda r: -r.number)[:limit]

    def count(self, namespace: str, kind: str) -> int:
        with self._lock:
            return len(self._kinds.get((namespace, kind), {}))

    def link(self, namespace: str, resource_id: str, links: Mapping[str, str]) -> None:
        if links:
            with self._lock:
                self._links.setdefault((namespace, resource_id), {}).update(links)

    def links(self, namespace: str, resource_id: str) -> dict[str, str]:
        with self._lock:
            return dict(self._links.get((namespace, resource_id), {}))

    def unlink(self, namespace: str, resource_id: str) -> None:
        with self._lock:
            self._links.pop((namespace, resource_id), None)

    def reserve(self, namespace: str, key: str, fingerprint: str, *, seconds: float) -> Reserved:
        with self._lock:
            now = self.clock.now()
            held, answer, until = self._answers.get((namespace, key), ("", None, 0.0))
            if until <= now:
                self._answers[namespace, key] = (fingerprint, None, now + seconds)
                return Reserved(Outcome.OURS)
            if held != fingerprint:
                return Reserved(Outcome.CONFLICT)
            return Reserved(Outcome.BUSY) if answer is None else Reserved(Outcome.ANSWERED, answer)

    def seed(self, namespace: str, key: str, *, seconds: float) -> str:
        with self._lock:
            now = self.clock.now()
            found, until = self._seeds.get((namespace, key), ("", 0.0))
            if until <= now:
                found = secrets.token_hex(16)
                self._seeds[namespace, key] = found, now + seconds
            return found

    def renew(self, namespace: str, key: str, fingerprint: str, *, seconds: float) -> None:
        with self._lock:
            held, answer, _ = self._answers.get((namespace, key), ("", None, 0.0))
            if held == fingerprint and answer is None:
                self._answers[namespace, key] = (fingerprint, None, self.clock.now() + seconds)

    def answer(self, namespace: str, key: str, fingerprint: str, answer: str, *, seconds: float) -> None:
        with self._lock:
            now = self.clock.now()
            held, _, until = self._answers.get((namespace, key), ("", None, 0.0))
            if until <= now or held == fingerprint:
                self._answers[namespace, key] = (fingerprint, answer, now + seconds)

    def release(self, namespace: str, key: str, fingerprint: str) -> None:
        with self._lock:
            held, answer, _ = self._answers.get((namespace, key), ("", None, 0.0))
            if held == fingerprint and answer is None:
                del self._answers[namespace, key]

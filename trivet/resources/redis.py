"""Resources in Redis or Valkey: one script per change, in `lua/`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from trivet.ledger.redis_reading import RedisReader
from trivet.resources import Outcome, Reserved, Resource
from trivet.resources.refusals import already_exists

_PAGE = 500


class RedisResources(RedisReader):
    """Thread-safe; open it after a fork."""

    _package = "trivet.resources"
    _in_front = (("trivet.resources", "_resources"),)
    _refused_when_full = frozenset({"answer", "create", "replace", "reserve", "seed"})

    def _run(self, name: str, *arguments: Any, client: Any = None) -> Any:
        script = self._script(name)
        return self._do(lambda: script(keys=[self._prefix], args=arguments, client=client))

    def create(self, namespace: str, kind: str, resource_id: str, body: str, *, name: str = "") -> Resource:
        outcome, *fields = self._run("create", namespace, kind, resource_id, name, body)
        if outcome == "taken":
            raise already_exists(kind.partition("/")[0], name, fields[0])
        return _resource(namespace, kind, resource_id, fields, new=outcome == "made")

    def get(self, namespace: str, kind: str, id_or_name: str) -> Resource | None:
        found = self._rows(namespace, kind, [id_or_name])
        if not found:
            names = self._key("resource_names", namespace, kind)
            named = self._do(lambda: self._client.hget(names, id_or_name))
            found = self._rows(namespace, kind, [named]) if named else []
        return found[0] if found else None

    def replace(self, resource: Resource, body: str) -> Resource | None:
        where = (resource.namespace, resource.kind, resource.id)
        if not self._run("replace", *where, resource.version, body):
            return None
        return Resource(*where, resource.name, body, resource.version + 1, resource.number)

    def delete(self, namespace: str, kind: str, resource_id: str) -> bool:
        return bool(self._run("delete", namespace, kind, resource_id))

    def drop(self, namespace: str, kind: str) -> None:
        while self._run("drop", namespace, kind, _PAGE):
            pass

    def page(self, namespace: str, kind: str, *, after: int = 0, limit: int = 100) -> list[Resource]:
        key = self._key("resources", namespace, kind)
        ids = self._do(lambda: self._client.zrangebyscore(key, f"({after}", "+inf", start=0, num=limit))
        return self._rows(namespace, kind, ids)

    def page_back(self, namespace: str, kind: str, *, before: int | None = None, limit: int = 100) -> list[Resource]:
        key, most = self._key("resources", namespace, kind), "+inf" if before is None else f"({before}"
        ids = self._do(lambda: self._client.zrevrangebyscore(key, most, "-inf", start=0, num=limit))
        return self._rows(namespace, kind, ids)

    def count(self, namespace: str, kind: str) -> int:
        return int(self._do(lambda: self._client.zcard(self._key("resources", namespace, kind))))

    def link(self, namespace: str, resource_id: str, links: Mapping[str, str]) -> None:
        if links:
            key = self._key("resource_links", namespace, resource_id)
            self._do(partial(self._client.hset, key, mapping=dict(links)))

    def links(self, namespace: str, resource_id: str) -> dict[str, str]:
        return dict(self._do(lambda: self._client.hgetall(self._key("resource_links", namespace, resource_id))))

    def unlink(self, namespace: str, resource_id: str) -> None:
        self._do(lambda: self._client.delete(self._key("resource_links", namespace, resource_id)))

    def reserve(self, namespace: str, key: str, fingerprint: str, *, seconds: float) -> Reserved:
        outcome, answer = self._run("reserve", namespace, key, fingerprint, int(seconds * 1000))
        return Reserved(Outcome(outcome), answer)

    def seed(self, namespace: str, key: str, *, seconds: float) -> str:
        return str(self._run("seed", namespace, key, secrets.token_hex(16), int(seconds * 1000)))

    def renew(self, namespace: str, key: str, fingerprint: str, *, seconds: float) -> None:
        self._run("renew", namespace, key, fingerprint, int(seconds * 1000))

    def answer(self, namespace: str, key: str, fingerprint: str, answer: str, *, seconds: float) -> None:
        self._run("answer", namespace, key, fingerprint, answer, int(seconds * 1000))

    def release(self, namespace: str, key: str, fingerprint: str) -> None:
        self._run("release", namespace, key, fingerprint)

    def _rows(self, namespace: str, kind: str, ids: Sequence[str]) -> list[Resource]:
        pipe = self._client.pipeline(transaction=False)
        for resource_id in ids:
            pipe.hmget(self._key("resource", namespace, kind, resource_id), "name", "body", "version", "number")
        answers = self._do(pipe.execute) if ids else []
        return [
            _resource(namespace, kind, resource_id, fields)
            for resource_id, fields in zip(ids, answers, strict=True)
            # Deleted since its id was read.
            if fields[1] is not None
        ]


def _resource(namespace: str, kind: str, resource_id: str, fields: Sequence[str], *, new: bool = False) -> Resource:
    name, body, version, number = fields
    return Resource(namespace, kind, resource_id, name, body, int(version), int(number), new)

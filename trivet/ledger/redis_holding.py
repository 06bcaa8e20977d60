"""What waits in Redis beside the tasks: deletes that nobody has confirmed, and purges."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import TypeVar

from trivet.ledger.redis_turns import RedisTurns
from trivet.values import Frozen, dump

_V = TypeVar("_V", bound=Frozen)
_PAGE = 1000
#: A list of objects whose batch was never written down, since the process died, goes by itself.
_LOOSE_MS = 3_600_000


class RedisHolding(RedisTurns):
    """Thread-safe; open it after a fork."""

    # ------------------------------------------------------------ held deletes

    def hold_delete(self, namespace: str, batch_id: str, record: str, objects: Iterable[str]) -> None:
        """Write a batch down, with the lines that its confirmation will need."""
        lines, key = iter(objects), self._key("held_deletes", namespace, batch_id)
        while page := list(islice(lines, _PAGE)):
            self._do(partial(self._client.rpush, key, *page))
            self._do(partial(self._client.pexpire, key, _LOOSE_MS))
        pipe = self._client.pipeline(transaction=True)
        pipe.persist(key)
        pipe.hset(self._key("held_deletes", namespace), batch_id, record)
        self._do(pipe.execute)

    def held_deletes(self, namespace: str) -> list[str]:
        """The records of all batches."""
        return list(self._do(lambda: self._client.hvals(self._key("held_deletes", namespace))))

    def held_delete(self, namespace: str, batch_id: str) -> str | None:
        """One record."""
        found: str | None = self._do(lambda: self._client.hget(self._key("held_deletes", namespace), batch_id))
        return found

    def held_objects(self, namespace: str, batch_id: str) -> Iterator[str]:
        """The lines of a batch, in order."""
        key, start = self._key("held_deletes", namespace, batch_id), 0
        while page := self._do(partial(self._client.lrange, key, start, start + _PAGE - 1)):
            yield from page
            start += _PAGE

    def drop_delete(self, namespace: str, batch_id: str) -> bool:
        """Forget a batch; False where there is none."""
        pipe = self._client.pipeline(transaction=True)
        pipe.hdel(self._key("held_deletes", namespace), batch_id)
        pipe.delete(self._key("held_deletes", namespace, batch_id))
        return bool(self._do(pipe.execute)[0])

    # ------------------------------------------------------------ purges

    def put_purge(self, purge_id: str, value: Frozen, *, open_: bool) -> None:
        """Write down how a purge stands; `open_`: it still has something to do."""
        pipe = self._client.pipeline(transaction=True)
        pipe.hset(self._key("purges"), purge_id, dump(value))
        if open_:
            pipe.sadd(self._key("purging"), purge_id)
        else:
            pipe.srem(self._key("purging"), purge_id)
            pipe.delete(self._key("purge_keys", purge_id), self._key("purge_sums", purge_id))
        self._do(pipe.execute)

    def purge(self, purge_id: str, kind: type[_V]) -> _V | None:
        """How it stands."""
        found = self._do(lambda: self._client.hget(self._key("purges"), purge_id))
        return kind.model_validate_json(found) if found else None

    def open_purges(self) -> list[str]:
        """Ids of the purges that have something to do, in no order that means anything."""
        return list(self._do(lambda: self._client.smembers(self._key("purging"))))

    def shut_for_purge(self, owner: str, purge_id: str, namespace: str, collection: str, object_id: str) -> bool:
        """Let no task of the object start; False where one is active or waits. Raises `TransientError` out of turn."""
        return self._shut("purge_turn", owner, purge_id, (namespace, collection, object_id), object_id)

    def shut(self, purge_id: str) -> str:
        """The object that the purge keeps shut, or nothing."""
        return str(self._do(lambda: self._client.get(self._key("purge_shut", purge_id))) or "")

    def open_after_purge(self, owner: str, purge_id: str, namespace: str, collection: str, object_id: str) -> None:
        """Let its tasks start again; one that came meanwhile does so now, and the next sweep rings for it."""
        self._open("purge_turn", owner, purge_id, (namespace, collection, object_id))

    def note_keys(self, purge_id: str, keys: Mapping[str, str]) -> None:
        """Remember keys that are about to be removed, each with `kind size`; the same key twice counts once."""
        if keys:
            self._do(lambda: self._client.hset(self._key("purge_keys", purge_id), mapping=dict(keys)))

    def count_keys(self, purge_id: str) -> None:
        """The keys that were noted are gone: add them up."""
        self._run("purge_count", self._key("purge_keys", purge_id), self._key("purge_sums", purge_id))

    def purge_sums(self, purge_id: str) -> dict[str, int]:
        """`keys:KIND` and `bytes:KIND` of what is gone."""
        found = self._do(lambda: self._client.hgetall(self._key("purge_sums", purge_id)))
        return {name: int(number) for name, number in found.items()}


def new_id(kind: str) -> str:
    """`kind_` and 16 hex digits."""
    return f"{kind}_{secrets.token_hex(8)}"

"""From the schema of an older Trivet to the present one, in one step.

While it runs every script refuses, so nothing changes under it; killed, it is taken up again by the next call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from trivet.faults import fault
from trivet.ledger.redis_reading import RedisReader
from trivet.ledger.refusals import SCHEMA_VERSION, refused

_PAGE = 500
_UNDER_WAY = "migrating "


class Migration(RedisReader):
    """Changes the rows of a ledger. End all workers of schema 1 before: they do not know of versions."""

    def version(self) -> str:
        """The ledger's schema; that of this process where there is no ledger yet."""
        found = self._do(lambda: self._client.get(self._key("schema")))
        if found:
            return str(found)
        # The first schema had no number.
        return "1" if self._do(lambda: self._client.exists(self._key("states"))) else SCHEMA_VERSION

    def run(self) -> tuple[str, int]:
        """Migrate to `SCHEMA_VERSION`; returns the version that was there and how many tasks were rewritten.

        Raises `LedgerSchema` for a version that this process does not know, and `LedgerUnavailable`.
        """
        version = self.version()
        if version == SCHEMA_VERSION:
            return version, 0
        began = version.removeprefix(_UNDER_WAY)
        steps: dict[str, Callable[[Sequence[str]], int]] = {"1": self._from_1}
        if began not in steps:
            raise refused(f"SCHEMA {version}", self._where)
        self._set(_UNDER_WAY + began)
        rewritten = 0
        for ids in self._pages():
            fault("migrate.before_page")
            rewritten += steps[began](ids)
        fault("migrate.before_version")
        self._set(SCHEMA_VERSION)
        return began, rewritten

    def _set(self, version: str) -> None:
        self._do(lambda: self._client.set(self._key("schema"), version))

    def _pages(self) -> Iterator[list[str]]:
        """Ids of all tasks, each at least once."""
        cursor, start = 0, len(self._key("task", ""))
        while True:
            scan = partial(self._client.scan, cursor, match=self._key("task", "*"), count=_PAGE)
            cursor, keys = self._do(scan)
            yield [key[start:] for key in keys]
            if cursor == 0:
                return

    def _from_1(self, ids: Sequence[str]) -> int:
        """Tasks share the text of their pipeline; namespaces are listed; a task says whether its URL is kept apart."""
        reads = self._client.pipeline(transaction=False)
        for task_id in ids:
            reads.hmget(self._key("task", task_id), "config", "namespace")
            reads.exists(self._key("url", task_id))
        answers = self._do(reads.execute)
        writes, rewritten = self._client.pipeline(transaction=True), 0
        for task_id, (config, namespace), secret in zip(ids, answers[::2], answers[1::2], strict=True):
            if not config or not config.startswith("{"):
                continue
            digest = hashlib.sha1(config.encode(), usedforsecurity=False).hexdigest()
            writes.set(self._key("config", digest), config, nx=True)
            writes.sadd(self._key("namespaces"), namespace)
            writes.hset(self._key("task", task_id), mapping={"config": digest, **({"secret": 1} if secret else {})})
            rewritten += 1
        self._do(writes.execute)
        return rewritten

"""The event log of a row: everything that the stream ever said, kept in a file, so that no loss of Redis loses it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from trivet.settings import Settings
from trivet.values import Event, TaskState

_PAUSE_SECONDS = 0.05


def plain_client(url: str) -> Any:
    """A client without retries: whoever measures faults wants to see them."""
    return redis.Redis.from_url(
        url, decode_responses=True, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
    )


class Recorder:
    """A thread that follows the stream past every proxy. `ended` is what waits may look at."""

    def __init__(self, settings: Settings, path: Path) -> None:
        self.path = path
        #: Task id → its first terminal state.
        self.ended: dict[str, str] = {}
        #: Ids of all events.
        self.ids: set[str] = set()
        #: Entries that were read; it grows as long as anything happens.
        self.count = 0
        self._key = f"{settings.redis_prefix}events"
        self._client = plain_client(settings.redis_url)
        self._last = "0-0"
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._file = path.open("a", encoding="utf-8")
        self._thread = threading.Thread(target=self._follow, name="recorder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read what is left, then end. Safe to call again."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join(10)
        try:
            while self._read():
                pass
        except RedisError:
            pass
        self._file.close()
        self._client.close()

    def wipe(self) -> None:
        """Empty Redis; what the stream said up to that very moment is kept."""
        with self._lock:
            pipe = self._client.pipeline(transaction=True)
            pipe.xrange(self._key, f"({self._last}", "+")
            pipe.flushall()
            self._keep(pipe.execute()[0])

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                if self._read():
                    continue
            except RedisError:
                pass
            self._stop.wait(_PAUSE_SECONDS)

    def _read(self) -> bool:
        with self._lock:
            entries = self._client.xrange(self._key, f"({self._last}", "+", count=1000)
            self._keep(entries)
            return bool(entries)

    def _keep(self, entries: Iterable[tuple[str, dict[str, str]]]) -> None:
        for at, fields in entries:
            self._last = at
            self.count += 1
            self._file.write(fields["event"] + "\n")
            event = json.loads(fields["event"])
            self.ids.add(event["id"])
            data = event["data"]
            if TaskState(data["state"]).terminal:
                self.ended.setdefault(data["task_id"], data["state"])
        self._file.flush()


def read_log(path: Path) -> list[Event]:
    """The recorded events, oldest first."""
    return [Event.model_validate_json(line) for line in path.read_text("utf-8").splitlines()]

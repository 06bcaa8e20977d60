"""A webhook endpoint as bad as they come: it fails, says nothing, is slow, and forgets that it had answered."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, Self

from infra.local_web import LocalWeb, QuietHandler

#: Share of the requests → what becomes of them; the rest is taken at once.
_MISHAPS = ((0.2, "500"), (0.1, "silent"), (0.1, "slow"), (0.05, "forget"))
_SLOW_SECONDS = 0.5


class Receiver:
    """Runs while the block does. `silent_seconds` must be longer than senders wait."""

    def __init__(self, rng: Random, silent_seconds: float) -> None:
        #: `webhook-id` → how often it was taken, the sender told of it or not.
        self.taken: Counter[str] = Counter()
        #: Requests whose id is not that of their event.
        self.wrong = 0
        self.struck = 0
        self.silent_seconds = silent_seconds
        self._rng = rng
        self._lock = threading.Lock()
        self._web = LocalWeb(partial(_Handler, self))
        #: `host:port`
        self.place = self._web.place
        self.url = f"http://{self.place}/events"

    def meet(self) -> str:
        """What becomes of the next request."""
        with self._lock:
            chance = self._rng.random()
            for share, mishap in _MISHAPS:
                if chance < share:
                    self.struck += 1
                    return mishap
                chance -= share
        return "ok"

    def take(self, event_id: str, body: bytes) -> None:
        """An event has come."""
        with self._lock:
            self.taken[event_id] += 1
            self.wrong += json.loads(body)["id"] != event_id

    def __enter__(self) -> Self:
        self._web.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._web.__exit__(*error)


class _Handler(QuietHandler):
    def __init__(self, receiver: Receiver, *request: Any) -> None:
        self._receiver = receiver
        super().__init__(*request)

    def do_POST(self) -> None:
        body = self.whole_body()
        mishap = self._receiver.meet()
        if mishap == "silent":
            time.sleep(self._receiver.silent_seconds)
            self.close_connection = True
            return
        if mishap == "500":
            self._answer(500)
            return
        if mishap == "slow":
            time.sleep(_SLOW_SECONDS)
        self._receiver.take(str(self.headers.get("webhook-id")), body)
        if mishap == "forget":
            self.close_connection = True
        else:
            self._answer(204)

    def _answer(self, status: int) -> None:
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

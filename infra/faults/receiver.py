"""A webhook endpoint as bad as they come: it fails, says nothing, is slow, and forgets that it had answered."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Self

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
        self._rng, self._silent_seconds = rng, silent_seconds
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                mishap = receiver.meet()
                if mishap == "silent":
                    time.sleep(receiver._silent_seconds)
                    self.close_connection = True
                    return
                if mishap == "500":
                    self.answer(500)
                    return
                if mishap == "slow":
                    time.sleep(_SLOW_SECONDS)
                receiver.take(str(self.headers.get("webhook-id")), body)
                if mishap == "forget":
                    self.close_connection = True
                else:
                    self.answer(204)

            def answer(self, status: int) -> None:
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Senders are killed in the middle of a request: nothing to tell."""

        self._server = Server(("127.0.0.1", 0), Handler)
        #: `host:port`
        self.place = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.place}/events"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

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
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

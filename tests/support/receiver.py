"""A web server that takes webhooks and remembers them, and answers as it is told."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from infra.local_web import LocalWeb, QuietHandler


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    #: What it was answered.
    status: int

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """What came, in order; `answers` says what a request is answered: a status, or a status with headers."""

    port: int
    answers: Callable[[str, int], int | tuple[int, dict[str, str]]] = lambda path, nth: 200
    got: list[Received] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/hook") -> str:
        return f"http://{self.place}{path}"

    def taken(self) -> Counter[str]:
        """Event id → how often it was answered 2xx."""
        with self.changed:
            return Counter(each.event_id for each in self.got if 200 <= each.status < 300)

    def wait_for(self, condition: Callable[[list[Received]], bool], seconds: float = 60.0) -> None:
        """Until what came fulfils the condition; fails otherwise."""
        with self.changed:
            done = self.changed.wait_for(lambda: condition(self.got), seconds)
            assert done, f"{len(self.got)} requests came: {[(r.event_id, r.status) for r in self.got[-20:]]}"

    def wait_until_taken(self, event_ids: set[str], seconds: float = 60.0) -> None:
        """Until each of these was taken."""

        def all_taken(got: list[Received]) -> bool:
            return event_ids <= {each.event_id for each in got if 200 <= each.status < 300}

        self.wait_for(all_taken, seconds)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A server on 127.0.0.1 that ends with the block."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.whole_body()
            with receiver.changed:
                answer = receiver.answers(self.path, len(receiver.got))
                status, headers = (answer, {}) if isinstance(answer, int) else answer
                named = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append(Received(self.path, named, body, status))
                receiver.changed.notify_all()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with LocalWeb(Handler) as web:
        receiver = Receiver(web.port)
        yield receiver

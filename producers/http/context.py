"""What routes work with. One per app; nothing global."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from producers.http.edge import Edge
from trivet.broker import celery_ringer, make_app
from trivet.client import Trivet
from trivet.clock import Clock, SystemClock
from trivet.ledger.redis import RedisLedger
from trivet.resources import Resources, open_resources
from trivet.settings import Settings
from trivet.stores import ObjectStore, open_store

if TYPE_CHECKING:
    from trivet.retrieval.searching import Searcher


@dataclass(frozen=True)
class Context:
    """The library's parts over one ledger and one store. Thread-safe."""

    settings: Settings
    ledger: RedisLedger
    store: ObjectStore
    resources: Resources
    edge: Edge
    clock: Clock = field(default_factory=SystemClock)
    #: The last look at what requests need, and when that was: for `health`.
    looks: dict[str, tuple[float, Any]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, settings: Settings) -> Context:
        """Over the Redis and the S3 that the settings name; connections are made when they are needed."""
        ledger = RedisLedger(settings, celery_ringer(make_app(settings)))

        def client(namespace: str) -> Trivet:
            return Trivet(namespace=namespace, settings=settings, ledger=ledger)

        edge = Edge.open(settings, client)
        return cls(settings, ledger, open_store(settings), open_resources(settings), edge)

    @cached_property
    def searcher(self) -> Searcher:
        """Opened at the first search: an API that only takes in needs neither pyarrow nor torch."""
        from trivet.retrieval.searching import Searcher

        with self._lock:
            return self.__dict__.get("searcher") or Searcher(self.settings)

    def close(self) -> None:
        """Close the connections to Redis."""
        self.ledger.close()
        self.resources.close()
        self.edge.close()

    def client(self, namespace: str) -> Trivet:
        """The library's client for one namespace, over this very ledger."""
        return Trivet(namespace=namespace, settings=self.settings, ledger=self.ledger, clock=self.clock)


def context_of(request: Request) -> Context:
    """The app's context."""
    context: Context = request.app.state.context
    return context


async def _context(request: Request) -> Context:
    """For routes; what is no coroutine FastAPI would run in a thread, which takes longer than this does."""
    return context_of(request)


ContextOf = Annotated[Context, Depends(_context)]

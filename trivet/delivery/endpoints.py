"""What users do with the endpoints of one namespace."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from pydantic import SecretStr

from trivet.clock import Clock, SystemClock
from trivet.delivery import EndpointBook
from trivet.delivery.reading import PREFIX
from trivet.delivery.refusals import unknown_endpoint
from trivet.delivery.signing import new_secret
from trivet.delivery.targets import check_target, transport_of
from trivet.delivery.values import Attempt, Endpoint, NewEndpoint, SigningSecret, StreamEvent, Waiting
from trivet.errors import InvalidRequest
from trivet.fetch.addresses import Resolver
from trivet.ids import check_name
from trivet.names import EventKind
from trivet.settings import Settings

#: What `test` sends; no filter holds it back.
TEST_KIND = "endpoint.test"
_PAGE = 100
_LOOK_SECONDS = 0.1
_DAY_SECONDS = 86400.0
_SIGNED = "webhook"


class Endpoints:
    """Register, look after, replay. Another namespace's endpoints are unknown here.

    Every method raises `LedgerUnavailable`, and those that name an endpoint `UnknownEndpoint`.
    """

    def __init__(
        self,
        settings: Settings,
        namespace: str,
        *,
        book: EndpointBook | None = None,
        clock: Clock | None = None,
        resolve: Resolver | None = None,
    ) -> None:
        from trivet.delivery.redis import RedisDeliveries

        self._settings = settings
        self._namespace = check_name(namespace, "Namespace")
        self._book: EndpointBook = book or RedisDeliveries(settings)
        self._clock = clock or SystemClock()
        self._resolve = resolve

    def close(self) -> None:
        """Close the connections to Redis."""
        self._book.close()

    def add(
        self,
        target: str,
        *,
        transport: str = "",
        kinds: Iterable[str] = (),
        collections: Iterable[str] = (),
        description: str = "",
    ) -> Endpoint:
        """Register a URL, topic or queue for the events that come from now on.

        `transport` is told by the target where it is empty. No `kinds` and no `collections`: all of them. A webhook's
        secret stands in `secrets`, and is shown nowhere else. Raises `InvalidRequest` and `SourceRefused`.
        """
        transport = transport or transport_of(target)
        check_target(transport, target, self._settings, self._resolve)
        signing = (SigningSecret(value=SecretStr(new_secret())),) if transport == _SIGNED else ()
        return self._book.add(
            NewEndpoint(
                endpoint_id=f"end_{secrets.token_hex(12)}",
                namespace=self._namespace,
                transport=transport,
                target=target,
                kinds=tuple(dict.fromkeys(_kind(kind) for kind in kinds)),
                collections=tuple(dict.fromkeys(check_name(name, "Collection") for name in collections)),
                description=description,
                secrets=signing,
            )
        )

    def list(self) -> list[Endpoint]:
        """All of the namespace, the oldest first."""
        return self._book.endpoints(self._namespace)

    def get(self, endpoint_id: str) -> Endpoint:
        """One endpoint as it stands."""
        found = self._book.endpoint(endpoint_id)
        if found.namespace != self._namespace:
            raise unknown_endpoint(endpoint_id)
        return found

    def waiting(self, endpoint_id: str) -> Waiting:
        """How much it has still to get."""
        return self._book.waiting(self.get(endpoint_id).endpoint_id)

    def rotate(self, endpoint_id: str, *, overlap_seconds: float = _DAY_SECONDS) -> Endpoint:
        """Give it a new secret, first in `secrets`; those before it sign along for the overlap."""
        if self.get(endpoint_id).transport != _SIGNED:
            raise InvalidRequest("Only webhooks are signed, so this endpoint has no secret.")
        return self._book.rotate_secret(endpoint_id, new_secret(), overlap_seconds)

    def pause(self, endpoint_id: str, reason: str = "by an operator") -> bool:
        """Send nothing more. What waits stays in line; events that come meanwhile need a replay."""
        return self._book.pause(self.get(endpoint_id).endpoint_id, reason)

    def resume(self, endpoint_id: str, *, replay: bool = False) -> int:
        """Send what waits, at once; with `replay` also what came meanwhile. How many of those were put in line."""
        self.get(endpoint_id)
        self._book.resume(endpoint_id)
        found = self.get(endpoint_id)
        if not replay or found.missed_from is None or found.missed_until is None:
            return 0
        made = self._replay(endpoint_id, found.missed_from, found.missed_until, operation="")
        self._book.caught_up(endpoint_id, found.missed_until)
        return made

    def remove(self, endpoint_id: str) -> None:
        """Forget it, with all that waits for it."""
        self._book.remove(self.get(endpoint_id).endpoint_id)

    def log(self, endpoint_id: str, limit: int = 50) -> Sequence[Attempt]:
        """Its attempts, newest first."""
        return self._book.log(self.get(endpoint_id).endpoint_id, limit)

    def replay(
        self,
        endpoint_id: str,
        event_id: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> int:
        """Send one event again, or all that it wants of a time; each under the id that it always had.

        How many were put in line: not those that are being sent at this moment. Raises `InvalidRequest` for an event
        that is no longer known.
        """
        self.get(endpoint_id)
        operation = uuid.uuid4().hex
        if (event_id is None) == (since is None and until is None):
            raise InvalidRequest("Name an event, or since when events are sent again.")
        if event_id is None:
            return self._replay(endpoint_id, _stream_id(since, "-"), _stream_id(until, "+"), operation=operation)
        event = self._book.find(endpoint_id, event_id)
        if event is None or event.namespace != self._namespace:
            raise InvalidRequest(
                f"Event {event_id[:80]!r} is not known, or no longer.", hint="The stream shows what is: trivet events"
            )
        return self._book.put(endpoint_id, [event], operation=operation)

    def _replay(self, endpoint_id: str, first: str, last: str, *, operation: str) -> int:
        endpoint, made = self.get(endpoint_id), 0
        page: list[StreamEvent] = []
        for event in self._book.stream(first, last):
            if endpoint.wants(event.kind, event.namespace, event.collection):
                page.append(event)
            if len(page) == _PAGE:
                made += self._book.put(endpoint_id, page, operation=operation)
                page = []
        return made + (self._book.put(endpoint_id, page, operation=operation) if page else 0)

    def test(self, endpoint_id: str, *, timeout: float = 30.0) -> Attempt | None:
        """Have a deliver process send a `trivet.endpoint.test`: its first attempt, or None if none came in time."""
        endpoint = self.get(endpoint_id)
        event = _test_event(endpoint, self._clock.now())
        self._book.put(endpoint_id, [event], operation=uuid.uuid4().hex)
        until = self._clock.monotonic() + timeout
        while True:
            for attempt in self._book.log(endpoint_id, _PAGE):
                if attempt.event_id == event.event_id:
                    return attempt
            if self._clock.monotonic() >= until:
                return None
            self._clock.sleep(_LOOK_SECONDS)


def _kind(text: str) -> str:
    kind = text.removeprefix(PREFIX)
    if kind not in set(EventKind):
        raise InvalidRequest(f"No event is called {text[:80]!r}.", hint=f"Choose from {', '.join(EventKind)}.")
    return kind


def _stream_id(at: datetime | None, otherwise: str) -> str:
    if at is None:
        return otherwise
    return str(max(0, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)))


def _test_event(endpoint: Endpoint, now: float) -> StreamEvent:
    event_id = str(uuid.uuid4())
    body = {
        "specversion": "1.0",
        "id": event_id,
        "source": f"trivet/{endpoint.namespace}",
        "type": f"{PREFIX}{TEST_KIND}",
        "subject": endpoint.endpoint_id,
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {"namespace": endpoint.namespace, "endpoint_id": endpoint.endpoint_id},
    }
    return StreamEvent("", event_id, TEST_KIND, endpoint.namespace, "", json.dumps(body).encode())

"""The book of endpoints and deliveries in Redis; every transition is one script in `lua/`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import redis
from pydantic import SecretStr

from trivet.delivery import Endpoint, EndpointState, NewEndpoint, SigningSecret
from trivet.delivery.reading import stream_event
from trivet.delivery.refusals import too_many_waiting, unknown_endpoint
from trivet.delivery.values import LOST, Attempt, Claimed, Delivery, DeliveryState, FannedOut, StreamEvent, Waiting
from trivet.faults import fault
from trivet.ledger.redis_reading import RedisReader, connect
from trivet.settings import Settings

_PAGE = 500
_DAY_MS = 86_400_000
#: For how long a delivered event is not sent again by itself, should it come by on the stream once more.
_REMEMBERED_MS = 3_600_000


def connect_exactly(settings: Settings) -> redis.Redis:
    """A client that gives bytes back as they were: an entry that is no UTF-8 must not stop those beside it."""
    client = connect(settings)
    client.connection_pool.connection_kwargs["encoding_errors"] = "surrogateescape"
    return client


class RedisDeliveries(RedisReader):
    """Thread-safe; open it after a fork, and close it."""

    _package = "trivet.delivery"
    _in_front = (("trivet.ledger", "_common"), ("trivet.delivery", "_endpoints"))
    _refused_when_full = frozenset()

    def __init__(self, settings: Settings, client: redis.Redis | None = None) -> None:
        super().__init__(settings, client or connect_exactly(settings))
        self._settings = settings

    # ------------------------------------------------------------ endpoints

    def add(self, endpoint: NewEndpoint) -> Endpoint:
        fields = {
            "transport": endpoint.transport,
            "target": endpoint.target,
            "kinds": json.dumps(endpoint.kinds),
            "collections": json.dumps(endpoint.collections),
            "description": endpoint.description,
            "secrets": json.dumps([_secret_row(secret) for secret in endpoint.secrets]),
        }
        flat = [word for pair in fields.items() for word in pair]
        self._run("add", endpoint.endpoint_id, endpoint.namespace, *flat)
        return self.endpoint(endpoint.endpoint_id)

    def endpoint(self, endpoint_id: str) -> Endpoint:
        fields = self._do(lambda: self._client.hgetall(self._key("endpoint", endpoint_id)))
        if not fields:
            raise unknown_endpoint(endpoint_id)
        return _endpoint(fields)

    def endpoints(self, namespace: str) -> list[Endpoint]:
        ids = self._do(lambda: self._client.smembers(self._key("endpoints", namespace)))
        pipe = self._client.pipeline(transaction=False)
        for endpoint_id in ids:
            pipe.hgetall(self._key("endpoint", endpoint_id))
        found = [_endpoint(fields) for fields in self._do(pipe.execute) if fields]
        return sorted(found, key=lambda endpoint: (endpoint.created_at, endpoint.endpoint_id))

    def remove(self, endpoint_id: str) -> None:
        while self._run("remove", endpoint_id, _PAGE):
            fault("deliver.after_remove_page")

    def rotate_secret(self, endpoint_id: str, secret: str, overlap_seconds: float) -> Endpoint:
        if not self._run("rotate", endpoint_id, secret, _ms(overlap_seconds)):
            raise unknown_endpoint(endpoint_id)
        return self.endpoint(endpoint_id)

    def pause(self, endpoint_id: str, reason: str) -> bool:
        self.endpoint(endpoint_id)
        return bool(self._run("pause", endpoint_id, reason))

    def resume(self, endpoint_id: str) -> bool:
        self.endpoint(endpoint_id)
        return bool(self._run("resume", endpoint_id))

    def caught_up(self, endpoint_id: str, missed_until: str) -> None:
        self._run("caught_up", endpoint_id, missed_until)

    def waiting(self, endpoint_id: str) -> Waiting:
        pipe = self._client.pipeline(transaction=False)
        pipe.zcard(self._key("outgoing", endpoint_id))
        pipe.zrange(self._key("sending"), 0, -1)
        pending, sending = self._do(pipe.execute)
        return Waiting(pending, sum(name.startswith(f"{endpoint_id}/") for name in sending))

    def log(self, endpoint_id: str, limit: int) -> list[Attempt]:
        self.endpoint(endpoint_id)
        lines = self._do(lambda: self._client.lrange(self._key("attempts", endpoint_id), 0, limit - 1))
        return [_attempt(json.loads(line)) for line in lines]

    # ------------------------------------------------------------ the stream

    def wait(self, after: str, seconds: float) -> bool:
        block = max(1, _ms(min(seconds, self._socket_seconds - 1)))
        return bool(self._do(lambda: self._client.xread({self._key("events"): after}, count=1, block=block)))

    def fan_out(self, count: int) -> FannedOut:
        return FannedOut(*self._run("fan_out", count))

    def stream(self, first: str, last: str) -> Iterator[StreamEvent]:
        key = self._key("events")
        while page := self._do(partial(self._client.xrange, key, first, last, _PAGE)):
            for entry, fields in page:
                event = stream_event(entry, _bytes((fields or {}).get("event", "")))
                if event is not None:
                    yield event
            first = f"({page[-1][0]}"

    def find(self, endpoint_id: str, event_id: str) -> StreamEvent | None:
        known = self._do(lambda: self._client.hmget(self._key("delivery", endpoint_id, event_id), "entry", "body"))
        if known[1]:
            return stream_event(known[0] or "", _bytes(known[1]))
        first, last = (known[0], known[0]) if known[0] else ("-", "+")
        return next((event for event in self.stream(first, last) if event.event_id == event_id), None)

    # ------------------------------------------------------------ deliveries

    def put(self, endpoint_id: str, events: Sequence[StreamEvent], *, operation: str) -> int:
        flat = [word for e in events for word in (e.event_id, e.entry, e.kind, _text(e.body))]
        made = int(self._run("put", endpoint_id, operation, *flat))
        if made == -2:
            raise too_many_waiting(endpoint_id)
        if made < 0:
            raise unknown_endpoint(endpoint_id)
        return made

    def claim(
        self, worker: str, operation: str, *, most: int, per_endpoint: int, lease_seconds: float
    ) -> list[Claimed]:
        flat = self._run("claim", worker, operation, most, per_endpoint, _ms(lease_seconds))
        rows = [(_pairs(flat[i]), _pairs(flat[i + 1]), flat[i + 2]) for i in range(0, len(flat), 3)]
        return [
            Claimed(
                _delivery(endpoint["id"], event_id, row), _endpoint(endpoint), _bytes(row["body"]), int(row["epoch"])
            )
            for endpoint, row, event_id in rows
        ]

    def heartbeat(self, claimed: Sequence[Claimed], lease_seconds: float) -> list[Claimed]:
        return [claimed[n] for n in self._run("heartbeat", _ms(lease_seconds), *_named(claimed))]

    def release(self, claimed: Sequence[Claimed]) -> int:
        return int(self._run("release", *_named(claimed)))

    def delivered(self, claimed: Claimed, *, status: str, seconds: float) -> str:
        settings = self._settings
        return str(
            self._run(
                "delivered", *_named([claimed]), status, _ms(seconds), _REMEMBERED_MS, settings.delivery_log_length
            )
            or LOST
        )

    def failed(
        self, claimed: Claimed, *, status: str, error: str, seconds: float, delay_seconds: float, pause: str = ""
    ) -> tuple[str, bool]:
        settings = self._settings
        state, paused = self._run(
            "failed",
            *_named([claimed]),
            status,
            error,
            _ms(seconds),
            max(1, _ms(delay_seconds)),
            max(1, _ms(settings.deliver_patience_hours * 3600)),
            pause,
            int(settings.task_retention_days * _DAY_MS),
            settings.delivery_log_length,
        )
        return str(state or LOST), bool(paused)

    def delivery(self, endpoint_id: str, event_id: str) -> Delivery | None:
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(self._key("delivery", endpoint_id, event_id))
        pipe.zscore(self._key("outgoing", endpoint_id), event_id)
        row, due = self._do(pipe.execute)
        return _delivery(endpoint_id, event_id, row, due) if row.get("state") else None


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _text(body: bytes) -> str:
    return body.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _pairs(flat: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """What a script answers for HGETALL: names and values by turns."""
    return dict(flat) if isinstance(flat, Mapping) else dict(zip(flat[::2], flat[1::2], strict=True))


def _named(claimed: Sequence[Claimed]) -> list[str]:
    return [word for c in claimed for word in (c.delivery.endpoint_id, c.delivery.event_id, str(c.epoch))]


def _secret_row(secret: SigningSecret) -> dict[str, Any]:
    row: dict[str, Any] = {"value": secret.value.get_secret_value()}
    return row if secret.expires_at is None else {**row, "expires": _ms(secret.expires_at)}


def _seconds(text: str | None) -> float | None:
    return float(text) / 1000 if text else None


def _endpoint(row: Mapping[str, str]) -> Endpoint:
    secrets = [
        SigningSecret(value=SecretStr(each["value"]), expires_at=each["expires"] / 1000 if "expires" in each else None)
        for each in json.loads(row["secrets"])
    ]
    return Endpoint(
        endpoint_id=row["id"],
        namespace=row["namespace"],
        transport=row["transport"],
        target=row["target"],
        kinds=tuple(json.loads(row["kinds"])),
        collections=tuple(json.loads(row["collections"])),
        description=row["description"],
        secrets=tuple(secrets),
        state=EndpointState(row["state"]),
        reason=row.get("reason", ""),
        changed_at=float(row["changed"]) / 1000,
        created_at=float(row["created"]) / 1000,
        since=row["since"],
        failing_since=_seconds(row.get("failing_since")),
        last_success_at=_seconds(row.get("last_success")),
        missed_from=row.get("missed"),
        missed_until=row.get("missed_until"),
    )


def _delivery(endpoint_id: str, event_id: str, row: Mapping[str, str], due: float | None = None) -> Delivery:
    return Delivery(
        endpoint_id=endpoint_id,
        event_id=event_id,
        kind=row["kind"],
        entry=row["entry"],
        state=DeliveryState(row["state"]),
        attempts=int(row["attempts"]),
        created_at=float(row["created"]) / 1000,
        # A resume makes what waits due by moving it far into the past.
        next_at=None if due is None else max(due, float(row["created"])) / 1000,
        status=row.get("status", ""),
        error=row.get("error", ""),
    )


def _attempt(line: Mapping[str, Any]) -> Attempt:
    return Attempt(
        at=line["at"] / 1000,
        event_id=line["event_id"],
        kind=line["kind"],
        attempt=line["attempt"],
        ok=line["ok"],
        status=line["status"],
        error=line["error"],
        seconds=line["ms"] / 1000,
        next_at=line["next_at"] / 1000 if line.get("next_at") else None,
    )

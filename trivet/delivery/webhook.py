"""Webhooks: one POST of the CloudEvent's bytes, signed after Standard Webhooks.

Connections go through the guard that sources are fetched through (`trivet.fetch.network`): a name is looked up once,
all of its addresses are checked, and the checked one is connected to. Redirects are not followed, no proxy is used, and
nothing that an endpoint answers is shown beyond its status.
"""

from __future__ import annotations

import re
import ssl
from email.utils import parsedate_to_datetime

import httpcore2

from trivet import __version__
from trivet.clock import Clock, SystemClock
from trivet.delivery.signing import signature
from trivet.delivery.values import Delivery, Endpoint, Outcome
from trivet.errors import EndpointFailed, TrivetError
from trivet.fetch.addresses import AddressRules, Resolver
from trivet.fetch.network import CALL, Call, GuardedBackend, system_resolver
from trivet.ids import redact_url
from trivet.settings import Settings

#: Enough to let a connection be used again after a normal answer; a longer body is not read.
_MOST_ANSWER_BYTES = 64 << 10
_KEEP_ALIVE_SECONDS = 2.0
_GONE = 410
_HTTPCORE_ERRORS = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError)


class WebhookTransport:
    """Thread-safe; close it."""

    def __init__(
        self,
        settings: Settings,
        *,
        resolve: Resolver = system_resolver,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._seconds = settings.deliver_timeout_seconds
        self._clock = clock or SystemClock()
        rules = AddressRules.of(settings.allow_addresses, settings.source_ports)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            max_connections=None,
            max_keepalive_connections=settings.deliver_threads,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
            network_backend=GuardedBackend(rules, resolve),
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def send(self, endpoint: Endpoint, event: Delivery, body: bytes) -> Outcome:
        """One POST, over within `deliver_timeout_seconds` however slowly the endpoint answers."""
        where = redact_url(endpoint.target)
        call = Call(where, self._clock, self._clock.monotonic() + self._seconds, self._seconds)
        token = CALL.set(call)
        try:
            response = self._pool.handle_request(self._request(endpoint, event, body))
            try:
                self._drain(response)
            finally:
                response.close()
        except TrivetError as error:
            raise self._explained(call, error) from error
        except _HTTPCORE_ERRORS as error:
            raise self._explained(call, error) from error
        finally:
            CALL.reset(token)
        return self._outcome(where, response)

    def _request(self, endpoint: Endpoint, event: Delivery, body: bytes) -> httpcore2.Request:
        now = self._clock.now()
        stamp = int(now)
        signatures = [signature(secret, event.event_id, stamp, body) for secret in endpoint.live_secrets(now)]
        url = httpcore2.URL(endpoint.target.partition("#")[0])
        return httpcore2.Request(
            b"POST",
            url,
            headers=[
                (b"Host", _host_header(url)),
                (b"User-Agent", f"trivet/{__version__}".encode()),
                (b"Content-Type", b"application/cloudevents+json; charset=utf-8"),
                (b"Content-Length", str(len(body)).encode()),
                (b"webhook-id", event.event_id.encode()),
                (b"webhook-timestamp", str(stamp).encode()),
                (b"webhook-signature", " ".join(signatures).encode()),
            ],
            content=body,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), self._seconds)},
        )

    @staticmethod
    def _drain(response: httpcore2.Response) -> None:
        read = 0
        for chunk in response.iter_stream():
            read += len(chunk)
            if read > _MOST_ANSWER_BYTES:
                return

    def _outcome(self, where: str, response: httpcore2.Response) -> Outcome:
        status = response.status
        if 200 <= status < 300:
            return Outcome(True, str(status))
        more = ", a redirect, which is not followed" if 300 <= status < 400 else ""
        header = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
        return Outcome(
            False,
            str(status),
            f"{where} answered {status}{more}.",
            retry_after=wait_asked_for(header.decode("latin-1"), self._clock.now()),
            gone=status == _GONE,
        )

    def _explained(self, call: Call, error: Exception) -> EndpointFailed:
        if call.clock.monotonic() >= call.deadline:
            return EndpointFailed(f"{call.url} did not answer within {self._seconds:g} s.")
        if isinstance(error, TrivetError):
            # The guard speaks of fetching.
            message = error.message.replace(" cannot be fetched: ", " cannot be reached: ")
            return EndpointFailed(message, hint=error.hint)
        return EndpointFailed(f"{call.url} broke off the connection before its answer was complete.")


def wait_asked_for(header: str, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, or None. `now` in seconds since the epoch."""
    text = header.strip()
    if re.fullmatch(r"[0-9]{1,8}", text, re.ASCII):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _host_header(url: httpcore2.URL) -> bytes:
    usual = {b"http": 80, b"https": 443}[url.scheme]
    host = b"[" + url.host + b"]" if b":" in url.host and not url.host.startswith(b"[") else url.host
    return host if url.port in (None, usual) else host + b":" + str(url.port).encode()

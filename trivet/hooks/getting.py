"""Small files from the net, through the guard that sources are fetched through."""

from __future__ import annotations

import ssl

import httpcore2

from trivet import __version__
from trivet.clock import Clock, SystemClock
from trivet.errors import SourceTooLarge, SourceUnavailable, TrivetError
from trivet.fetch.addresses import AddressRules, Resolver
from trivet.fetch.network import CALL, Call, GuardedBackend, system_resolver
from trivet.ids import redact_url
from trivet.settings import Settings

_ERRORS = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError)


class GuardedGetter:
    """GETs from checked addresses; follows no redirect and uses no proxy. Thread-safe; close it."""

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
            max_keepalive_connections=0,
            network_backend=GuardedBackend(rules, resolve),
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def get(self, url: str, most_bytes: int) -> bytes:
        """The body of a 200. Raises `SourceRefused`, `SourceTooLarge`, `SourceUnavailable`."""
        where = redact_url(url)
        token = CALL.set(Call(where, self._clock, self._clock.monotonic() + self._seconds, self._seconds))
        timeout = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), self._seconds)}
        try:
            request = httpcore2.Request(b"GET", url, headers=self._headers(url), extensions=timeout)
            response = self._pool.handle_request(request)
            try:
                return self._body(response, where, most_bytes)
            finally:
                response.close()
        except TrivetError:
            raise
        except _ERRORS as error:
            raise SourceUnavailable(f"{where} did not answer: {type(error).__name__}.") from error
        finally:
            CALL.reset(token)

    @staticmethod
    def _headers(url: str) -> list[tuple[bytes, bytes]]:
        host = httpcore2.URL(url).host
        return [(b"Host", host), (b"User-Agent", f"trivet/{__version__}".encode()), (b"Accept", b"*/*")]

    @staticmethod
    def _body(response: httpcore2.Response, where: str, most_bytes: int) -> bytes:
        if response.status != 200:
            raise SourceUnavailable(f"{where} answered {response.status}.")
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > most_bytes:
                raise SourceTooLarge(f"{where} has more than {most_bytes:,} bytes.")
        return bytes(body)

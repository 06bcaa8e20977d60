"""http and https sources.

Built on httpcore, the transport below httpx, and not on an httpx client: a client brings cookies, proxies from the
environment, .netrc and redirects of its own, none of which may happen here, and hides the one thing that must, the
choice of the address (network.py). Redirects are followed by hand, each checked like the first URL. From https they
may not lead to http: what was asked for over an authenticated connection must not come over one that is not.
"""

from __future__ import annotations

import atexit
import os
import ssl
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import httpcore2
import httpx2

from trivet import __version__
from trivet.clock import Clock, SystemClock
from trivet.errors import (
    EmptyDocument,
    SourceError,
    SourceForbidden,
    SourceNotFound,
    SourceRefused,
    SourceUnavailable,
    TrivetError,
)
from trivet.fetch import Fetched, headers
from trivet.fetch.addresses import AddressRules, Resolver
from trivet.fetch.body import encoding_of, save, too_large
from trivet.fetch.network import CALL, Call, GuardedBackend, system_resolver
from trivet.ids import redact_url
from trivet.settings import Settings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Not 5xx, but the same request may succeed later.
_TRY_LATER = frozenset({408, 425, 429})
_FORBIDDEN = frozenset({401, 403, 407})
_GONE = frozenset({404, 410})
#: Seconds that an idle connection is kept for the next file of the same host; few servers close one earlier.
_KEEP_ALIVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """A response whose body has not been read."""

    url: httpx2.URL
    redacted: str
    response: httpcore2.Response

    def header(self, name: str) -> str:
        wanted = name.encode()
        return next((headers.text_of(value) for key, value in self.response.headers if key.lower() == wanted), "")


class HttpFetcher:
    """Streams http and https sources to disk; see the module's docstring for what it will not do.

    Without `resolve` and `tls` the connections are shared by all fetchers of the process with the same rules.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        resolve: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        rules = AddressRules.of(settings.allow_addresses, settings.source_ports)
        own = resolve is not None or tls is not None
        self._pool = _new_pool(rules, resolve or system_resolver, tls) if own else _shared_pool(rules)
        self._own = own

    def close(self) -> None:
        """Close the connections that are this fetcher's own; shared ones stay for the next."""
        if self._own:
            self._pool.close()

    def fetch(self, url: str, target: Path) -> Fetched:
        """Follow redirects and stream the final body to `target`.

        Raises `SourceRefused`, `SourceNotFound`, `SourceForbidden`, `SourceTooLarge`, `EmptyDocument` (204),
        `CorruptDocument` (broken compression) or another `SourceError`, and `SourceUnavailable` for what may pass.
        """
        settings = self._settings
        total = settings.source_total_seconds
        call = Call(redact_url(url), self._clock, self._clock.monotonic() + total, total)
        token = CALL.set(call)
        try:
            answer = self._follow(call, _parse(url))
            try:
                return self._save(answer, target)
            finally:
                answer.response.close()
        except TrivetError:
            raise
        except _HTTPCORE_ERRORS as error:
            raise _explained(error, call, settings) from error
        finally:
            CALL.reset(token)

    def _follow(self, call: Call, url: httpx2.URL) -> _Answer:
        """The first answer that is no redirect and brings a body."""
        seen = {url}
        while True:
            answer = self._send(call, url)
            try:
                location = answer.header("location")
                if answer.response.status not in _REDIRECTS or not location:
                    _check_status(answer, self._clock.now())
                    return answer
                url = _next_url(answer, location)
                if url in seen:
                    raise SourceError(f"{answer.redacted} redirects in a circle.")
                if len(seen) > self._settings.source_max_redirects:
                    raise SourceError(
                        f"{answer.redacted} redirects more than {self._settings.source_max_redirects} times.",
                        hint="Give the URL at the end of the redirects.",
                    )
                seen.add(url)
            except BaseException:
                answer.response.close()
                raise
            answer.response.close()

    def _send(self, call: Call, url: httpx2.URL) -> _Answer:
        call.url = redact_url(str(url))
        settings = self._settings
        seconds = settings.source_read_seconds
        request = httpcore2.Request(
            b"GET",
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host.rstrip(b"."), port=url.port, target=url.raw_path),
            headers=[
                (b"Host", url.netloc),
                (b"User-Agent", f"trivet/{__version__}".encode()),
                (b"Accept", b"*/*"),
                (b"Accept-Encoding", b"gzip, deflate"),
            ],
            extensions={
                "timeout": {"connect": settings.source_connect_seconds, "read": seconds, "write": seconds, "pool": None}
            },
        )
        return _Answer(url, call.url, self._pool.handle_request(request))

    def _save(self, answer: _Answer, target: Path) -> Fetched:
        url, limit = answer.redacted, self._settings.source_max_bytes
        stated = answer.header("content-length")
        if stated.isdecimal() and int(stated) > limit:
            raise too_large(url, limit)
        encoding = encoding_of(answer.header("content-encoding"), url)
        size, sha256 = save(answer.response.iter_stream(), target, url=url, max_bytes=limit, encoding=encoding)
        media_type, charset = headers.media_type_of(answer.header("content-type"))
        return Fetched(
            path=target,
            size=size,
            sha256=sha256,
            media_type=media_type,
            charset=charset,
            filename=headers.filename_of(
                answer.header("content-disposition"), answer.url.raw_path.partition(b"?")[0].decode()
            ),
            final_url=url,
            etag=answer.header("etag"),
            last_modified=answer.header("last-modified"),
        )


def _parse(url: str) -> httpx2.URL:
    """The URL in parts, or `SourceRefused`/`SourceError`. One parser for the check, the connection and the request."""
    redacted = redact_url(url)
    try:
        parsed = httpx2.URL(url.strip())
    except httpx2.InvalidURL:
        raise SourceError(f"{redacted} cannot be read as a URL.") from None
    if parsed.scheme not in ("http", "https"):
        raise SourceRefused(f"{redacted} was refused: {parsed.scheme or 'it'} is not http or https.")
    if parsed.userinfo:
        raise SourceRefused(
            f"{redacted} was refused: it has a user name or password in it.", hint="Take them out of the URL."
        )
    if not parsed.raw_host:
        raise SourceError(f"{redacted} names no host.")
    return parsed.copy_with(fragment=None)


def _next_url(answer: _Answer, location: str) -> httpx2.URL:
    try:
        joined = str(answer.url.join(location))
    except httpx2.InvalidURL:
        raise SourceError(f"{answer.redacted} redirects to something that is no URL.") from None
    try:
        url = _parse(joined)
    except TrivetError as error:
        raise type(error)(f"{answer.redacted} redirects to what may not be fetched: {error.message}") from None
    if answer.url.scheme == "https" and url.scheme == "http":
        raise SourceRefused(
            f"{answer.redacted} redirects from https to http, which was refused.",
            hint="Give the http URL itself if it is meant.",
        )
    return url


def _check_status(answer: _Answer, now: float) -> None:
    status, url = answer.response.status, answer.redacted
    said = f"{url} answered {status}"
    if status in (200, 203):
        return
    if status in _GONE:
        raise SourceNotFound(f"{said}: there is nothing at this address.")
    if status in _FORBIDDEN:
        raise SourceForbidden(f"{said}: it wants credentials that it did not get.")
    if status >= 500 or status in _TRY_LATER:
        raise SourceUnavailable(
            f"{said}: it cannot serve the source now.", hint=headers.retry_after(answer.header("retry-after"), now)
        )
    if status in (204, 205):
        raise EmptyDocument(f"{said}: it has no content.")
    if status >= 400:
        raise SourceError(f"{said}: it does not accept the request.")
    raise SourceError(f"{said}, which is no answer to a plain GET.")


_HTTPCORE_ERRORS = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError)


def _explained(error: Exception, call: Call, settings: Settings) -> TrivetError:
    if isinstance(error, httpcore2.TimeoutException):
        if call.clock.monotonic() >= call.deadline:
            return call.late()
        return SourceUnavailable(f"{call.url} sent nothing for {settings.source_read_seconds:g} s.")
    if isinstance(error, httpcore2.LocalProtocolError):
        return SourceError(f"{call.url} cannot be asked for over HTTP.")
    if (
        isinstance(error, httpcore2.RemoteProtocolError)
        and "closed" not in str(error)
        and "disconnected" not in str(error)
    ):
        return SourceUnavailable(f"{call.url} did not answer in valid HTTP.")
    return SourceUnavailable(f"{call.url} broke off the connection before its answer was complete.")


def _new_pool(rules: AddressRules, resolve: Resolver, tls: ssl.SSLContext | None) -> httpcore2.ConnectionPool:
    return httpcore2.ConnectionPool(
        ssl_context=tls or _system_trust(),
        max_connections=None,
        max_keepalive_connections=16,
        keepalive_expiry=_KEEP_ALIVE_SECONDS,
        network_backend=GuardedBackend(rules, resolve),
    )


@lru_cache(maxsize=1)
def _system_trust() -> ssl.SSLContext:
    return ssl.create_default_context()


#: (process, rules) → pool. A forked child must not write to its parent's connections, so it makes its own.
_pools: dict[tuple[int, AddressRules], httpcore2.ConnectionPool] = {}
_pools_lock = threading.Lock()


def _shared_pool(rules: AddressRules) -> httpcore2.ConnectionPool:
    key = (os.getpid(), rules)
    with _pools_lock:
        if key not in _pools:
            _pools[key] = _new_pool(rules, system_resolver, None)
        return _pools[key]


@atexit.register
def close_pools() -> None:
    """Close the idle connections of this process."""
    with _pools_lock:
        for key in [key for key in _pools if key[0] == os.getpid()]:
            _pools.pop(key).close()


def _after_fork() -> None:
    global _pools_lock  # a lock that another thread held at the fork would never open
    _pools_lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_after_fork)

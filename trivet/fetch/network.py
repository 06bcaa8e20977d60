"""Connections that go where the address rules allow, and end when the whole fetch must.

The backend below is what httpcore opens every connection with. It looks a name up once, has all of its addresses
checked, and connects to the checked address itself, so there is no second look-up that could answer otherwise. TLS
and the Host header keep the name.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore2

from trivet.clock import Clock
from trivet.errors import SourceError, SourceUnavailable, TrivetError
from trivet.fetch.addresses import AddressRules, Resolver

_ROUTELESS = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(slots=True)
class Call:
    """The fetch that is under way in this thread: the hop's redacted URL, and when it must be over."""

    url: str
    clock: Clock
    #: On `clock.monotonic()`.
    deadline: float
    total_seconds: float

    def budget(self, seconds: float | None) -> float:
        """`seconds`, or what is left of the whole fetch if that is less; `SourceUnavailable` if nothing is."""
        left = self.deadline - self.clock.monotonic()
        if left <= 0:
            raise self.late()
        return left if seconds is None else min(seconds, left)

    def late(self) -> SourceUnavailable:
        """What to raise when the deadline is past."""
        return SourceUnavailable(f"{self.url} was not fetched within {self.total_seconds:g} s.")


#: Connections are shared by the fetches of a process, so the deadline cannot live in them.
CALL: ContextVar[Call] = ContextVar("trivet_fetch_call")


def system_resolver(host: str, port: int) -> Sequence[str]:
    """The addresses that the operating system knows for a host, in the order of RFC 6724."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedBackend(httpcore2.NetworkBackend):
    """Opens connections to checked addresses only."""

    def __init__(self, rules: AddressRules, resolve: Resolver) -> None:
        self._rules = rules
        self._resolve = resolve
        self._plain = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """A stream to the first address that answers; `timeout` covers the look-up and all attempts."""
        call = CALL.get()
        until = call.clock.monotonic() + call.budget(timeout)
        addresses = self._rules.admit(host, port, lambda name, at: self._look_up(name, at, until), call.url)
        where = f"{host}:{port}"
        failure: Exception | None = None
        for tried, address in enumerate(addresses):
            # Each address gets its share of the time, so that one that swallows packets leaves some for the next.
            share = (until - call.clock.monotonic()) / (len(addresses) - tried)
            if share <= 0:
                break
            try:
                stream = self._plain.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return GuardedStream(stream, where)
        raise _not_connected(call, where, failure) from failure

    def _look_up(self, host: str, port: int, until: float) -> Sequence[str]:
        """The resolver's answer, waited for no longer than `until`: getaddrinfo has no time-out of its own."""
        call = CALL.get()
        answers: list[Sequence[str]] = []
        errors: list[Exception] = []

        def ask() -> None:
            try:
                answers.append(self._resolve(host, port))
            except (OSError, UnicodeError) as error:
                errors.append(error)

        thread = threading.Thread(target=ask, name="trivet-resolve", daemon=True)
        thread.start()
        thread.join(max(0.0, until - call.clock.monotonic()))
        if answers and answers[0]:
            return answers[0]
        if errors and isinstance(errors[0], UnicodeError):
            raise SourceError(f"{call.url} names the host {host!r}, which is no valid host name.") from errors[0]
        if errors or answers:
            raise SourceUnavailable(
                f"{call.url} cannot be fetched: the host name {host!r} cannot be resolved.",
                hint="Check the name, and the DNS of the worker.",
            ) from (errors[0] if errors else None)
        raise SourceUnavailable(f"{call.url} cannot be fetched: looking up the host name {host!r} took too long.")


class GuardedStream(httpcore2.NetworkStream):
    """A connection whose every read and write ends with the whole fetch, however slowly bytes drip in."""

    def __init__(self, stream: httpcore2.NetworkStream, where: str) -> None:
        self._stream = stream
        self._where = where

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to `max_bytes`; empty at the end."""
        return self._stream.read(max_bytes, CALL.get().budget(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of the buffer."""
        self._stream.write(buffer, CALL.get().budget(timeout))

    def close(self) -> None:
        """Close the socket."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """TLS over this connection, the certificate held against the name in the URL."""
        call = CALL.get()
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, call.budget(timeout))
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
            raise _no_tls(call, self._where, error) from error
        return GuardedStream(stream, self._where)

    def get_extra_info(self, info: str) -> Any:
        """As the stream below knows it."""
        return self._stream.get_extra_info(info)


def _not_connected(call: Call, where: str, failure: Exception | None) -> TrivetError:
    if failure is None or isinstance(failure, httpcore2.ConnectTimeout):
        call.budget(None)
        return SourceUnavailable(f"{call.url} cannot be fetched: {where} did not take the connection in time.")
    cause = failure.__cause__
    code = cause.errno if isinstance(cause, OSError) else None
    if code == errno.ECONNREFUSED:
        return SourceUnavailable(f"{call.url} cannot be fetched: {where} refused the connection.")
    if code in _ROUTELESS:
        return SourceUnavailable(f"{call.url} cannot be fetched: there is no route to {where}.")
    return SourceUnavailable(f"{call.url} cannot be fetched: connecting to {where} failed.")


def _no_tls(call: Call, where: str, failure: Exception) -> TrivetError:
    cause = failure.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return SourceError(
            f"{call.url} cannot be fetched: the certificate of {where} is not valid ({cause.verify_message}).",
            hint="If its authority is your own, add it to the system's certificates or name its file in SSL_CERT_FILE.",
        )
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return SourceError(f"{call.url} cannot be fetched: {where} does not speak TLS that this client can use.")
    if isinstance(failure, httpcore2.ConnectTimeout):
        call.budget(None)
        return SourceUnavailable(f"{call.url} cannot be fetched: {where} did not finish the TLS handshake in time.")
    return SourceUnavailable(f"{call.url} cannot be fetched: {where} closed the connection during the TLS handshake.")

"""A proxy before a real S3 that loses requests and answers, answers with errors, is slow, or is not there."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

from infra.local_web import LocalWeb, QuietHandler

#: Method of a request → what becomes of it: "ok"; "drop before" or "drop after" it was done (the connection closes
#: without an answer); "cut" (it is done, and the connection closes in the middle of the answer); an error's status as
#: text; "wait SECONDS", after which it is done.
Policy = Callable[[str], str]

_CODES = {"409": "ConditionalRequestConflict", "500": "InternalError", "503": "SlowDown"}


def passing(method: str) -> str:  # noqa: ARG001 - a policy's signature
    """No mishap at all."""
    return "ok"


def refusing(method: str) -> str:  # noqa: ARG001 - a policy's signature
    """A full outage: no request is answered, none is done."""
    return "drop before"


def sometimes(share: float, mishap: str, rng: Random, methods: frozenset[str] = frozenset()) -> Policy:
    """The mishap for this share of the requests with these methods (none given: all)."""
    return lambda method: mishap if (not methods or method in methods) and rng.random() < share else "ok"


class S3Proxy:
    """Forwards everything to `target`, but for what `policy` says; it may be changed at any time."""

    def __init__(self, target: str, policy: Policy = passing) -> None:
        self.policy = policy
        #: Requests that met a mishap.
        self.struck = 0
        self.requests = 0
        self._target = urlsplit(target)
        self._lock = threading.Lock()
        self._web = LocalWeb(partial(_Handler, self))
        self.url = f"http://{self._web.place}"

    def meet(self, method: str) -> str:
        """What becomes of the next request."""
        with self._lock:
            mishap = self.policy(method)
            self.requests += 1
            self.struck += mishap != "ok"
        return mishap

    def connect(self) -> http.client.HTTPConnection:
        """A connection to the real one."""
        return http.client.HTTPConnection(self._target.hostname or "", self._target.port, timeout=60)

    def __enter__(self) -> Self:
        self._web.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._web.__exit__(*error)


class _Handler(QuietHandler):
    """One connection of a client, and the one that goes on from it."""

    _upstream: http.client.HTTPConnection | None = None

    def __init__(self, proxy: S3Proxy, *request: Any) -> None:
        self._proxy = proxy
        super().__init__(*request)

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        with suppress(OSError):
            super().finish()

    def forward(self) -> None:
        body = self.whole_body()
        mishap = self._proxy.meet(self.command)
        if mishap == "drop before":
            self.close_connection = True
        elif mishap.isdigit():
            code = _CODES.get(mishap, "Injected")
            self._answer(int(mishap), {}, f"<Error><Code>{code}</Code></Error>".encode())
        else:
            if mishap.startswith("wait "):
                time.sleep(float(mishap.removeprefix("wait ")))
            self._pass_on(body, mishap)

    def _pass_on(self, body: bytes, mishap: str) -> None:
        if self._upstream is None:
            self._upstream = self._proxy.connect()
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("expect", "connection")}
        self._upstream.request(self.command, self.path, body, headers)
        response = self._upstream.getresponse()
        content = response.read()
        if mishap == "drop after":
            self.close_connection = True
        else:
            self._answer(response.status, dict(response.getheaders()), content, cut=mishap == "cut")

    def _answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        if cut:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815 - http.server looks for these

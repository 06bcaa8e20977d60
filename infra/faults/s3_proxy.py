"""A proxy before a real S3 that loses requests and answers, answers with errors, is slow, or is not there."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

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
        self._lock = threading.Lock()
        proxy, address = self, urlsplit(target)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            _upstream: http.client.HTTPConnection | None = None

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
                """Say nothing."""

            def finish(self) -> None:
                if self._upstream is not None:
                    self._upstream.close()
                with suppress(OSError):
                    super().finish()

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                mishap = proxy.meet(self.command)
                if mishap == "drop before":
                    self.close_connection = True
                elif mishap.isdigit():
                    code = _CODES.get(mishap, "Injected")
                    self.answer(int(mishap), {}, f"<Error><Code>{code}</Code></Error>".encode())
                else:
                    if mishap.startswith("wait "):
                        time.sleep(float(mishap.removeprefix("wait ")))
                    self.pass_on(body, mishap)

            def pass_on(self, body: bytes, mishap: str) -> None:
                if self._upstream is None:
                    self._upstream = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("expect", "connection")}
                self._upstream.request(self.command, self.path, body, headers)
                response = self._upstream.getresponse()
                content = response.read()
                if mishap == "drop after":
                    self.close_connection = True
                else:
                    self.answer(response.status, dict(response.getheaders()), content, cut=mishap == "cut")

            def answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
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

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that was killed breaks its connections: nothing to tell."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def meet(self, method: str) -> str:
        """What becomes of the next request."""
        with self._lock:
            mishap = self.policy(method)
            self.requests += 1
            self.struck += mishap != "ok"
        return mishap

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

"""A proxy before the real S3 that loses requests and answers on demand."""

from __future__ import annotations

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

#: What may become of a write: done as asked; connection closed before or after it was done; answered with an error.
WRITE_MISHAPS = ("ok", "drop before", "drop after", "409", "500", "503")


class S3Proxy:
    """Forwards everything to `target`; writes meet `mishaps` in their order, and none after the last."""

    def __init__(self, target: str) -> None:
        self.mishaps: list[str] = []
        self.cut_reads = False
        self.writes = 0
        proxy, address = self, urlsplit(target)
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the base class names it so
                pass

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                mishap = "ok"
                if self.command == "PUT":
                    with lock:
                        proxy.writes += 1
                        mishap = proxy.mishaps.pop(0) if proxy.mishaps else "ok"
                if mishap == "drop before":
                    self.close_connection = True
                elif mishap.isdigit():
                    self.answer(int(mishap), {}, b"<Error><Code>Injected</Code></Error>")
                else:
                    self.pass_on(body, silent=mishap == "drop after")

            def pass_on(self, body: bytes, *, silent: bool) -> None:
                upstream = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("expect", "connection")}
                upstream.request(self.command, self.path, body, headers)
                response = upstream.getresponse()
                content = response.read()
                upstream.close()
                if silent:
                    self.close_connection = True
                else:
                    self.answer(response.status, dict(response.getheaders()), content)

            def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command == "GET" and proxy.cut_reads:
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                elif self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815 # http.server looks for these

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def without_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let boto3's retries follow one another at once."""
        monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))

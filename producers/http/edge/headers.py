"""Headers that every answer has: what browsers must not do with it, and what is left of the caller's rate."""

from __future__ import annotations

import math
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trivet.limits import Decision

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
#: The page that shows the OpenAPI file loads its scripts from there.
_DOCS = (
    "default-src 'none'; connect-src 'self'; frame-ancestors 'none'; img-src 'self' https://fastapi.tiangolo.com; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; style-src 'unsafe-inline' https://cdn.jsdelivr.net"
)
_YEAR = "max-age=31536000"
_WINDOW_SECONDS = 60


class AnswerHeaders:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, docs_path: str = "/docs") -> None:
        self._app = app
        self._docs = docs_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add(scope, MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, with_headers)

    def _add(self, scope: Scope, headers: MutableHeaders) -> None:
        for name, value in _ALWAYS.items():
            headers.setdefault(name, value)
        headers.setdefault("Content-Security-Policy", _DOCS if scope["path"] == self._docs else _NOTHING)
        # GETs have an ETag that may be asked about; nothing else is to be kept anywhere.
        headers.setdefault("Cache-Control", "private, no-cache" if scope["method"] == "GET" else "no-store")
        if scope["scheme"] == "https":
            headers.setdefault("Strict-Transport-Security", _YEAR)
        rate: Decision | None = scope.get("state", {}).get("rate")
        if rate is not None:
            headers["X-RateLimit-Limit"] = str(rate.limit)
            headers["X-RateLimit-Remaining"] = str(rate.remaining)
            headers["X-RateLimit-Reset"] = str(math.ceil(time.time() + rate.reset_after))
            headers["X-RateLimit-Window"] = str(_WINDOW_SECONDS)

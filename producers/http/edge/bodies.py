"""How much a request's body may hold, and how slowly it may come."""

from __future__ import annotations

import asyncio
import re
import time
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producers.http.errors import answer
from trivet.settings import Settings

#: Beside the file, a multipart body has its fields.
_FIELDS = 1 << 20
_HOOK = re.compile(r"/v1/hooks/hook_[^/]*")
_UPLOAD = re.compile(r"/v1/buckets/[^/]+/(objects|uploads)(/.*)?")


class _Refused(HTTPException):
    """The body is too large or too slow. Whoever reads the body lets this kind through, and it is answered."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message, {"Connection": "close"})


class BodyLimits:
    """ASGI middleware; a body is refused while it comes, before anybody holds all of it."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        limit = self._limit(scope)
        try:
            _check_framing(scope)
            declared = _declared(scope)
            if declared is not None and declared > limit:
                raise _too_large(limit)
            await self._app(scope, self._counted(receive, limit), noted)
        except _Refused as why:
            if started:
                # Half an answer is out: all that is left is to break off.
                raise
            response = answer(why.status_code, why.detail, "body_refused", headers=dict(why.headers or {}))
            await response(scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        path, settings = scope["path"], self._settings
        if _HOOK.fullmatch(path):
            return settings.hook_max_bytes
        kinds = [value for name, value in scope["headers"] if name == b"content-type"]
        if _UPLOAD.fullmatch(path) and any(kind.lower().startswith(b"multipart/") for kind in kinds):
            return settings.source_max_bytes + _FIELDS
        return settings.api_max_body_bytes

    def _counted(self, receive: Receive, limit: int) -> Receive:
        began, got, complete = time.monotonic(), 0, False
        seconds, rate = self._settings.api_body_seconds, self._settings.api_body_rate

        async def counted() -> Message:
            nonlocal got, complete
            if complete:
                # What comes now is the end of the connection, which may be long in coming.
                return await receive()
            left = began + seconds + got / rate - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.0))
            except TimeoutError:
                raise _Refused(HTTPStatus.REQUEST_TIMEOUT, "The request's body comes too slowly.") from None
            got += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if got > limit:
                raise _too_large(limit)
            return message

        return counted


def _check_framing(scope: Scope) -> None:
    """A length beside chunks may be read in two ways by two servers (RFC 9112, 6.1)."""
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" in names and b"content-length" in names:
        raise _Refused(HTTPStatus.BAD_REQUEST, "The request says in two ways how long its body is.")


def _declared(scope: Scope) -> int | None:
    given = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(given[0]) if len(given) == 1 and given[0].isdigit() else None


def _too_large(limit: int) -> _Refused:
    return _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The request's body has more than {limit:,} bytes.")

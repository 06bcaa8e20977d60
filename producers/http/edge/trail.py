"""Notes in the audit log what was changed or deleted, who may do what, and what a key was not allowed.

Sources that come in are not noted: the ledger has them, and they would push everything else out. One that changes its
collection is (`request.state.noted`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producers.http.edge.scopes import scope_for
from trivet import keys
from trivet.errors import LedgerUnavailable
from trivet.trail import entry

log = structlog.get_logger(__name__)

_NOTED = (keys.Scope.ADMIN, keys.Scope.MANAGE, keys.Scope.DELETE)
_ANYBODY = "anybody"


class AuditTrail:
    """ASGI middleware; a request that was answered is noted before its answer ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                await _note(scope, status)
            await send(message)

        await self._app(scope, receive, watched)


async def _note(scope: Scope, status: int) -> None:
    caller = scope.get("state", {}).get("caller")
    route: Any = scope.get("route")
    if caller is None or route is None:
        return
    looked = scope["method"] in ("GET", "HEAD", "OPTIONS") or scope_for(scope["method"], route.path) not in _NOTED
    noted = scope.get("state", {}).get("noted", False)
    if looked and not noted and status != HTTPStatus.FORBIDDEN:
        return
    edge = scope["app"].state.context.edge
    client = scope.get("client")
    made = entry(
        edge.clock.now(),
        caller.namespace,
        caller.key_id or _ANYBODY,
        getattr(route, "operation_id", None) or route.name,
        target=" ".join(str(value) for value in scope.get("path_params", {}).values()),
        outcome=str(status),
        address=client[0] if client else "",
    )
    try:
        await run_in_threadpool(edge.trail.note, made)
    except LedgerUnavailable as error:
        log.warning("audit.not_noted", action=made.action, error=str(error))

"""What every route does beside its own work: the caller first, `Idempotency-Key` on a POST, `ETag` on a GET."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from producers.http.caller import caller
from producers.http.context import context_of
from producers.http.edge import reading
from trivet.errors import Conflict, IdempotencyConflict, InvalidRequest
from trivet.ids import digest
from trivet.resources import Outcome

KEY_HEADER = "Idempotency-Key"
MOST_KEY = 255
#: After so long a request that never answered counts as dead, and its key is free again.
_RESERVED_SECONDS = 120.0
_OK = range(200, 300)
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Guarded(APIRoute):
    """A route that knows who asks before it reads a body: strangers get no validation, and no memory."""

    def get_route_handler(self) -> _Handler:
        """FastAPI's handler, after the caller where the route depends on one."""
        handler = super().get_route_handler()
        guarded = _depends_on_caller(self.dependant)

        async def handle(request: Request) -> Response:
            if guarded:
                await run_in_threadpool(caller, request)
            return await handler(reading.of(request))

        return handle


def _depends_on_caller(dependant: Dependant) -> bool:
    return dependant.call is caller or any(map(_depends_on_caller, dependant.dependencies))


class Route(Guarded):
    """A route with all of that."""

    def get_route_handler(self) -> _Handler:
        """The guarded handler, with what comes before and after it."""
        handler = super().get_route_handler()

        async def handle(plain: Request) -> Response:
            # Made here, so that a body which was read for its fingerprint is there for the route.
            request = reading.of(plain)
            if request.method == "POST" and request.headers.get(KEY_HEADER):
                return await _once(request, handler)
            response = await handler(request)
            if request.method == "GET" and response.status_code in _OK:
                return _tagged(request, response)
            return response

        return handle


def router(tag: str) -> APIRouter:
    """A router of version 1 whose routes are of this kind."""
    return APIRouter(prefix="/v1", tags=[tag], route_class=Route)


def key_of(request: Request) -> str:
    """The idempotency key of a request, or nothing. Raises `InvalidRequest` for one that is too long."""
    key = request.headers.get(KEY_HEADER, "").strip()
    if len(key) > MOST_KEY:
        raise InvalidRequest(f"The idempotency key has {len(key)} characters.", hint=f"At most {MOST_KEY} fit.")
    return key


def new_id(request: Request, prefix: str, digits: int, *parts: str) -> str:
    """An id with so many hex digits.

    Under an idempotency key it is a function of that key, so that a create which died before it could answer finds
    what it has made; `parts` tell several ids of one request apart.
    """
    key = key_of(request)
    if not key:
        return f"{prefix}_{secrets.token_hex(-(-digits // 2))[:digits]}"
    return f"{prefix}_{digest([caller(request).namespace, request.url.path, key, prefix, *parts], digits)}"


async def _once(request: Request, handler: _Handler) -> Response:
    """The same key and the same request: the same answer."""
    key = key_of(request)
    who = await run_in_threadpool(caller, request)
    resources = context_of(request).resources
    scope = f"{who.key_id}/{key}"
    fingerprint = await _fingerprint(request)
    found = await run_in_threadpool(resources.reserve, who.namespace, scope, fingerprint, seconds=_RESERVED_SECONDS)
    if found.outcome is Outcome.CONFLICT:
        raise IdempotencyConflict(
            "This idempotency key was used before with another request.", hint="Use a new key for a new request."
        )
    if found.outcome is Outcome.BUSY:
        raise Conflict("A request with this idempotency key is on its way.", hint="Repeat it in a moment.")
    if found.outcome is Outcome.ANSWERED:
        kept = json.loads(found.answer)
        return Response(kept["body"], kept["status"], {"Idempotency-Replayed": "true"}, media_type=kept["media_type"])
    answered = False
    try:
        response = await handler(request)
        if response.status_code in _OK and hasattr(response, "body"):
            body = bytes(response.body).decode()
            kept = {"body": body, "status": response.status_code, "media_type": response.media_type}
            hours = context_of(request).settings.idempotency_hours
            await run_in_threadpool(
                resources.answer, who.namespace, scope, fingerprint, json.dumps(kept), seconds=hours * 3600
            )
            answered = True
        return response
    finally:
        if not answered:
            await run_in_threadpool(resources.release, who.namespace, scope, fingerprint)


async def _fingerprint(request: Request) -> str:
    head = f"{request.method} {request.url.path}?{request.url.query}\n"
    body, kind = await request.body(), Message()
    kind["Content-Type"] = request.headers.get("Content-Type", "")
    if boundary := kind.get_boundary():
        # Clients draw another one each time that they send the same form.
        body = body.replace(b"--" + boundary.encode(errors="replace"), b"--")
    return hashlib.sha256(head.encode() + body).hexdigest()


def _tagged(request: Request, response: Response) -> Response:
    body = getattr(response, "body", None)
    if body is None:
        # A stream.
        return response
    tag = f'"{hashlib.sha256(bytes(body)).hexdigest()[:32]}"'
    response.headers["ETag"] = tag
    asked = [each.strip().removeprefix("W/") for each in request.headers.get("If-None-Match", "").split(",")]
    if tag in asked or "*" in asked:
        return Response(status_code=304, headers={"ETag": tag})
    return response

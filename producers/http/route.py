"""What every route does beside its own work: the caller first, `Idempotency-Key` on a POST, `ETag` on a GET."""

from __future__ import annotations

import hashlib

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from producers.http.caller import caller, known_caller
from producers.http.edge import reading
from producers.http.once import KEY_HEADER, Handler, answered_once

_OK = range(200, 300)
#: Headers that an answer without its body has too.
_KEPT = ("ETag", "Preference-Applied")


class Guarded(APIRoute):
    """A route that knows who asks before it reads a body: strangers get no validation, and no memory."""

    def get_route_handler(self) -> Handler:
        """FastAPI's handler, after the caller where the route depends on one."""
        handler = super().get_route_handler()
        guarded = _depends_on_caller(self.dependant)

        async def handle(request: Request) -> Response:
            if guarded:
                await run_in_threadpool(caller, request)
            return await handler(reading.of(request))

        return handle


def _depends_on_caller(dependant: Dependant) -> bool:
    return dependant.call is known_caller or any(map(_depends_on_caller, dependant.dependencies))


class Route(Guarded):
    """A route with all of that."""

    def get_route_handler(self) -> Handler:
        """The guarded handler, with what comes before and after it."""
        handler = super().get_route_handler()

        async def handle(plain: Request) -> Response:
            # Made here, so that a body which was read for its fingerprint is there for the route.
            request = reading.of(plain)
            if request.method == "POST" and request.headers.get(KEY_HEADER):
                return await answered_once(request, handler)
            response = await handler(request)
            if request.method == "GET" and response.status_code in _OK:
                return _tagged(request, response)
            return response

        return handle


def router(tag: str) -> APIRouter:
    """A router of version 1 whose routes are of this kind."""
    return APIRouter(prefix="/v1", tags=[tag], route_class=Route)


def _tagged(request: Request, response: Response) -> Response:
    body = getattr(response, "body", None)
    if body is None:
        # A stream.
        return response
    tag = f'"{hashlib.sha256(bytes(body)).hexdigest()[:32]}"'
    response.headers["ETag"] = tag
    asked = [each.strip().removeprefix("W/") for each in request.headers.get("If-None-Match", "").split(",")]
    if tag in asked or "*" in asked:
        kept = {name: value for name in _KEPT if (value := response.headers.get(name))}
        return Response(status_code=304, headers=kept)
    return response

"""The app factory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute

from producers.http import errors
from producers.http.caller import NAMESPACE_HEADER
from producers.http.context import Context
from producers.http.described import describe
from producers.http.edge import access
from producers.http.edge.bodies import BodyLimits
from producers.http.edge.headers import AnswerHeaders
from producers.http.edge.trail import AuditTrail
from producers.http.routes import ROUTERS
from trivet import __version__
from trivet.settings import Settings

_ABOUT = """Source URLs in, dense, sparse and ColBERT embeddings out, in the vocabulary and shapes of Mixpeek's API.

A chunk is called a *document* here. Every error has one envelope: `{success, status, error: {message, type, code,
details}}`. Lists have a cursor. A POST that creates may carry an `Idempotency-Key`: the same key with the same body
gets the same answer for 24 hours, and with another body 422."""


def create_app(settings: Settings) -> FastAPI:
    """An app over the Redis and the S3 that the settings name; it connects when it starts, and closes when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.context = Context.open(settings)
        try:
            yield
        finally:
            app.state.context.close()

    access.keys_are_asked_for(settings)
    access.check_origins(settings)
    app = FastAPI(title="Trivet", version=__version__, description=_ABOUT, lifespan=lifespan, redoc_url=None)
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    errors.install(app, routes)
    _install_edge(app, settings)
    for router in ROUTERS:
        app.include_router(router, responses=errors.RESPONSES)
    describe(app, routes)
    return app


def _install_edge(app: FastAPI, settings: Settings) -> None:
    """What every request passes on its way in and out; the last that is added is the first that it meets."""
    app.add_middleware(AuditTrail)
    app.add_middleware(BodyLimits, settings=settings)
    if settings.api_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.api_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                NAMESPACE_HEADER,
                "Idempotency-Key",
                "If-None-Match",
                "Prefer",
            ],
            expose_headers=["ETag", "Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"],
            max_age=600,
        )
    app.add_middleware(AnswerHeaders)

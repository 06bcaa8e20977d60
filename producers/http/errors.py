"""Every error as the envelope that clients know: `{success, status, error: {message, type, code, details}}`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from producers.http.edge.access import keys_are_asked_for
from trivet import errors

log = structlog.get_logger(__name__)

#: The first that fits counts, so that a kind stands before its parents.
STATUSES: tuple[tuple[type[errors.TrivetError], int], ...] = (
    (errors.IdempotencyConflict, 422),
    (errors.AlreadyExists, 409),
    (errors.Conflict, 409),
    (errors.TooLate, 409),
    (errors.NotRetryable, 409),
    (errors.NotConfirmed, 409),
    (errors.UnknownResource, 404),
    (errors.UnknownCollection, 404),
    (errors.UnknownTask, 404),
    (errors.UnknownEndpoint, 404),
    (errors.UnknownKey, 404),
    (errors.UnknownHook, 404),
    (errors.NotInStore, 404),
    (errors.Unauthenticated, 401),
    (errors.HookRefused, 401),
    (errors.Forbidden, 403),
    (errors.TooManyRequests, 429),
    (errors.SourceTooLarge, 413),
    (errors.SourceError, 400),
    (errors.InvalidRequest, 400),
    (errors.ModelUnavailable, 422),
    (errors.MissingDependency, 503),
    (errors.TransientError, 503),
)
#: Status → Mixpeek's name for it.
TYPES = {
    400: "BadRequestError",
    401: "UnauthorizedError",
    403: "ForbiddenError",
    404: "NotFoundError",
    409: "AlreadyExistsError",
    413: "BadRequestError",
    422: "ValidationError",
    429: "TooManyRequestsError",
}
#: Whose sentences name addresses and keys of this system; what whoever has an API key is told.
_INSIDES: tuple[tuple[type[errors.TrivetError], str], ...] = (
    (errors.LedgerUnavailable, "The ledger does not take the request."),
    (errors.StoreUnavailable, "The object store does not answer."),
    (errors.StoreForbidden, "The object store refuses the request."),
    (errors.StoreUnconditional, "The object store refuses the request."),
    (errors.StoreDamaged, "What is stored cannot be read."),
)
_RETRY_SECONDS = 5
#: What is more than ever fits is refused for good, so far as a client waits.
_LONGEST_WAIT = 86_400.0


class ErrorDetail(BaseModel):
    """What was wrong, where, and what to do."""

    message: str = Field(description="One sentence that says what was wrong and where, and one that says what to do.")
    type: str = Field(examples=["NotFoundError"])
    code: str = Field(description="Stable name of the error.", examples=["unknown_collection"])
    details: dict[str, Any] = Field(default_factory=dict)


class ErrorAnswer(BaseModel):
    """The answer to a request that failed."""

    success: bool = Field(default=False)
    status: int = Field(examples=[404])
    error: ErrorDetail


def answer(
    status: int,
    message: str,
    code: str,
    *,
    details: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """The envelope as a response."""
    kind = TYPES.get(status, "InternalServerError" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "BadRequestError")
    detail = ErrorDetail(message=message, type=kind, code=code, details=details or {})
    return JSONResponse(ErrorAnswer(status=status, error=detail).model_dump(), status, headers)


def status_of(error: errors.TrivetError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def of_library(error: errors.TrivetError) -> JSONResponse:
    """The response to an error of the library."""
    status = status_of(error)
    details: dict[str, Any] = {"hint": error.hint} if error.hint else {}
    headers = {}
    if isinstance(error, errors.TooManyRequests):
        seconds = max(1, math.ceil(min(error.retry_after, _LONGEST_WAIT)))
        details |= {"retryable": True, "retry_after_seconds": seconds}
        headers["Retry-After"] = str(seconds)
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        details |= {"retryable": error.transient, "retry_after_seconds": _RETRY_SECONDS}
        headers["Retry-After"] = str(_RETRY_SECONDS)
    return answer(status, str(error), error.code, details=details, headers=headers)


def _without_insides(error: errors.TrivetError) -> errors.TrivetError:
    """The same error without addresses and keys of this system, which are the operator's alone."""
    for kind, message in _INSIDES:
        if isinstance(error, kind):
            log.warning("request.failed", error=str(error))
            return type(error)(message, hint="Whoever runs this API finds more in its log.")
    return error


def install(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """Have every error answered so; none leaves with a stack trace. `routes` are those of the app."""

    @app.exception_handler(errors.TrivetError)
    async def _library(request: Request, error: errors.TrivetError) -> JSONResponse:
        asked = keys_are_asked_for(request.app.state.context.settings)
        return of_library(_without_insides(error) if asked else error)

    @app.exception_handler(RequestValidationError)
    async def _validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = [
            {"type": each["type"], "location": list(each["loc"]), "message": _sentence(each)} for each in error.errors()
        ]
        first = found[0]
        where = ".".join(str(part) for part in first["location"])
        return answer(422, f"{where}: {first['message']}", "validation", details={"validation_errors": found})

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        phrase = HTTPStatus(error.status_code).phrase
        message = error.detail if error.detail and error.detail != phrase else f"{phrase}."
        code = phrase.lower().replace(" ", "_")
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # Starlette names the methods of the first route of this path alone.
            headers["Allow"] = ", ".join(_methods_of(routes, request.url.path))
        return answer(error.status_code, str(message), code, headers=headers)

    @app.exception_handler(Exception)
    async def _other(request: Request, error: Exception) -> JSONResponse:
        log.error("request.failed", path=request.url.path, error=type(error).__name__, exc_info=error)
        # This answer passes nothing that would add headers.
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return answer(500, f"Trivet met an error of its own ({type(error).__name__}).", "internal", headers=headers)


def _methods_of(routes: Iterable[APIRoute], path: str) -> list[str]:
    matching = [route for route in routes if route.path_regex.match(path)]
    # `/buckets/list` is no bucket called list: the path with fewer blanks is meant.
    blanks = min((len(route.param_convertors) for route in matching), default=0)
    meant = [route for route in matching if len(route.param_convertors) == blanks]
    return sorted({method for route in meant for method in route.methods or ()})


def _sentence(error: Any) -> str:
    cause = error.get("ctx", {}).get("error")
    message = str(cause) if isinstance(cause, errors.TrivetError) else str(error["msg"]).removeprefix("Value error, ")
    return message.rstrip(".") + "."


#: For the OpenAPI file: what every route may answer beside its own.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "model": ErrorAnswer,
        "description": HTTPStatus(status).phrase,
        "content": {
            "application/json": {
                "example": ErrorAnswer(
                    status=status, error=ErrorDetail(message=message, type=TYPES.get(status, kind), code=code)
                ).model_dump()
            }
        },
    }
    for status, kind, code, message in (
        (400, "", "invalid_request", "The source URL cannot be read. Give a full URL, such as https://host/path."),
        (401, "", "unauthenticated", "The request has no API key that is valid now."),
        (403, "", "forbidden", "This API key has not the scope ingest."),
        (404, "", "unknown_collection", "No collection 'docs' in namespace 'default'."),
        (409, "", "already_exists", "A bucket called 'docs' exists already: bkt_0123456789. Use another name."),
        (413, "", "source_too_large", "The upload has more bytes than a source may have."),
        (429, "", "too_many_requests", "This API key sends more requests than it may."),
        (422, "", "validation", "body.collection_name: Field required."),
        (503, "InternalServerError", "ledger_unavailable", "Redis does not answer. See that it runs."),
    )
}

"""`Idempotency-Key`: the same key and the same request, the same answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from email.message import Message
from functools import partial
from typing import Any

import structlog
from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from producers.http.caller import caller
from producers.http.context import context_of
from trivet.errors import Conflict, IdempotencyConflict, InvalidRequest, LedgerUnavailable
from trivet.ids import digest
from trivet.resources import Outcome

log = structlog.get_logger(__name__)

KEY_HEADER = "Idempotency-Key"
MOST_KEY = 255
#: How often a request that is on its way says so while its key is held.
_RENEWALS = 5
#: What an answer shows once: it is not kept, and null where the answer is given again.
_SHOWN_ONCE = "signing_secrets"
_OK = range(200, 300)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def key_of(request: Request) -> str:
    """The idempotency key of a request, or nothing. Raises `InvalidRequest` for one that is too long."""
    key = request.headers.get(KEY_HEADER, "").strip()
    if len(key) > MOST_KEY:
        raise InvalidRequest(f"The idempotency key has {len(key)} characters.", hint=f"At most {MOST_KEY} fit.")
    return key


def new_id(request: Request, prefix: str, digits: int, *parts: str) -> str:
    """An id with so many hex digits.

    Under an idempotency key the same request has the same id again for as long as its answer would be kept, so that a
    create which died before it could answer finds what it has made; `parts` tell several ids of one request apart.
    """
    seed = getattr(request.state, "seed", "")
    if not seed:
        return f"{prefix}_{secrets.token_hex(-(-digits // 2))[:digits]}"
    return f"{prefix}_{digest([seed, prefix, *parts], digits)}"


async def answered_once(request: Request, handler: Handler) -> Response:
    """The answer that is kept under the request's key, or the handler's, kept for the next time.

    Raises `IdempotencyConflict` for a key of another request, and `Conflict` while the same one is on its way.
    """
    key = key_of(request)
    who = await run_in_threadpool(caller, request)
    context = context_of(request)
    resources, seconds = context.resources, context.settings.idempotency_reserved_seconds
    reservation = (who.namespace, f"{who.key_id}/{key}", await _fingerprint(request))
    found = await run_in_threadpool(resources.reserve, *reservation, seconds=seconds)
    if found.outcome is Outcome.CONFLICT:
        raise IdempotencyConflict(
            "This idempotency key was used before with another request.", hint="Use a new key for a new request."
        )
    if found.outcome is Outcome.BUSY:
        raise Conflict("A request with this idempotency key is on its way.", hint="Repeat it in a moment.")
    if found.outcome is Outcome.ANSWERED:
        kept = json.loads(found.answer)
        return Response(kept["body"], kept["status"], {"Idempotency-Replayed": "true"}, media_type=kept["media_type"])
    kept_seconds = context.settings.idempotency_hours * 3600
    answered = False
    try:
        # Another caller's key of the same letters, and the same one when this answer is long gone, are other requests.
        request.state.seed = await run_in_threadpool(
            resources.seed, who.namespace, "/".join(reservation[1:]), seconds=kept_seconds
        )
        async with _held(partial(resources.renew, *reservation, seconds=seconds), seconds / _RENEWALS):
            response = await handler(request)
        if response.status_code in _OK and hasattr(response, "body"):
            await run_in_threadpool(resources.answer, *reservation, _kept(response), seconds=kept_seconds)
            answered = True
        return response
    finally:
        if not answered:
            await run_in_threadpool(resources.release, *reservation)


@asynccontextmanager
async def _held(renew: Callable[[], None], every: float) -> AsyncIterator[None]:
    """Keep the reservation from running out."""

    async def again_and_again() -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await run_in_threadpool(renew)
            except LedgerUnavailable as error:
                log.warning("reservation.not_renewed", error=error.message)

    task = asyncio.ensure_future(again_and_again())
    try:
        yield
    finally:
        task.cancel()


def _kept(response: Response) -> str:
    body = bytes(response.body).decode()
    shown = json.loads(body) if _SHOWN_ONCE in body else None
    if isinstance(shown, dict) and _SHOWN_ONCE in shown:
        body = json.dumps({**shown, _SHOWN_ONCE: None}, ensure_ascii=False)
    return json.dumps({"body": body, "status": response.status_code, "media_type": response.media_type})


async def _fingerprint(request: Request) -> str:
    head = f"{request.method} {request.url.path}?{request.url.query}\n"
    body, kind = await request.body(), Message()
    kind["Content-Type"] = request.headers.get("Content-Type", "")
    if boundary := kind.get_boundary():
        # Clients draw another one each time that they send the same form.
        body = body.replace(b"--" + boundary.encode(errors="replace"), b"--")
    return hashlib.sha256(head.encode() + body).hexdigest()

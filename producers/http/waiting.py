"""`Prefer: wait=N` (RFC 7240): answer once the task has ended, or after N seconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import anyio
from fastapi import Depends, Header, Response
from starlette.concurrency import run_in_threadpool

from producers.http.caller import Caller
from producers.http.context import Context
from trivet.errors import ApiBusy, TooManyRequests

#: A proxy in between gives up after a minute or so.
MOST_SECONDS = 60.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_WAIT = re.compile(r"\bwait\s*=\s*\"?(\d{1,6})")


async def preferred(
    prefer: Annotated[
        str | None, Header(description="`wait=N`: answer once it has ended, or after N seconds (60 at most).")
    ] = None,
) -> float:
    """The seconds that a request wants to wait; 0 where it says nothing."""
    found = _WAIT.search(prefer or "")
    return min(float(found[1]), MOST_SECONDS) if found else 0.0


WaitSeconds = Annotated[float, Depends(preferred)]


async def wait_until(
    context: Context, who: Caller, ended: Callable[[], bool], seconds: float, response: Response
) -> None:
    """Ask again and again, without holding a thread between; says in the answer that the preference was honoured.

    It is not where too many wait already: what was asked for is done, and the answer comes now.
    """
    if not seconds:
        return
    with suppress(ApiBusy, TooManyRequests), context.edge.waits.place(who.key_id):
        response.headers["Preference-Applied"] = f"wait={seconds:g}"
        pause = _FIRST_PAUSE
        with anyio.move_on_after(seconds):
            while not await run_in_threadpool(ended):
                await anyio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)

"""Quotas of sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trivet.errors import TooManyRequests
from trivet.limits import Quota

if TYPE_CHECKING:
    from producers.http.caller import Caller
    from producers.http.context import Context

_DAY_SECONDS = 86_400


def charge(context: Context, who: Caller, sources: int) -> None:
    """Spend so many of the key's sources of the day, all or none. Raises `TooManyRequests`."""
    if not who.key_id or not who.sources_per_day or not sources:
        return
    spent = context.edge.limiter.spend(f"sources:{who.key_id}", Quota(who.sources_per_day, _DAY_SECONDS), sources)
    if not spent.allowed:
        raise TooManyRequests(
            f"This API key has {spent.remaining:,} of its {who.sources_per_day:,} sources of the day left, and the "
            f"request has {sources:,}.",
            retry_after=min(spent.retry_after, _DAY_SECONDS),
        )

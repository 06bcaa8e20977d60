"""The API key of a request, or why none is asked for.

Where the API listens on a loopback address alone, it may be open: whoever can log in to this machine could do as much
without it. A browser on this machine is not its user, though; so an open API looks at where a request comes from.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Address

from producers.http.edge import Edge
from trivet.errors import Forbidden, InvalidRequest, TooManyRequests, Unauthenticated
from trivet.keys import ApiKey, Scope
from trivet.limits import Decision, Rate
from trivet.settings import Settings

_MINUTE = 60.0


def is_loopback(host: str) -> bool:
    """Whether a host to listen on, or that a request names, can be nothing but this machine."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def keys_are_asked_for(settings: Settings) -> bool:
    """Whether requests need an API key. Raises `InvalidRequest` where they must, and the settings say never."""
    local = is_loopback(settings.api_host)
    if settings.api_keys == "never" and not local:
        raise InvalidRequest(
            f"The API would listen on {settings.api_host} without API keys.",
            hint="Take TRIVET_API_KEYS=never away, or listen on 127.0.0.1.",
        )
    return settings.api_keys == "always" or not local


def check_origins(settings: Settings) -> None:
    """Raises `InvalidRequest` for an entry of `api_origins` that is no origin: a list is a list."""
    for origin in settings.api_origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise InvalidRequest(
                f"Setting TRIVET_API_ORIGINS has {origin[:100]!r}, which is no origin.",
                hint="Write each as https://host or https://host:port.",
            )


def address_of(request: Request) -> str:
    """Where a request comes from; empty where the server does not say."""
    client: Address | None = request.client
    return client.host if client else ""


def check_open(settings: Settings, request: Request) -> None:
    """Raises `Forbidden` for a request that an open API must not take: from elsewhere, or by a web page."""
    if not _from_here(address_of(request)):
        raise Forbidden(
            "This API takes requests without a key from this machine alone.", hint="Set TRIVET_API_KEYS=always."
        )
    place = request.headers.get("host", "").lower()
    named = _host(place)
    server = (request.scope.get("server") or ("", None))[0]
    if named and not is_loopback(named) and named != server:
        # A page whose name was made to mean 127.0.0.1.
        raise Forbidden("The request names a host that is not this machine.", hint="Use http://127.0.0.1.")
    origin = request.headers.get("origin", "")
    if origin and origin not in settings.api_origins and origin.partition("://")[2].lower() != place:
        # Another port is another server, whose pages may be anybody's.
        raise Forbidden("Web pages of this origin may not use this API.", hint="List it in TRIVET_API_ORIGINS.")


def authenticated(edge: Edge, request: Request) -> ApiKey:
    """The key of a request. Raises `Unauthenticated`, and `TooManyRequests` for an address that has tried too often."""
    given = request.headers.getlist("authorization")
    scheme, _, text = (given[0] if len(given) == 1 else "").partition(" ")
    try:
        return edge.keys.authenticate(text.strip() if scheme.lower() == "bearer" else "")
    except Unauthenticated:
        count_failure(edge, request)
        raise


def count_failure(edge: Edge, request: Request) -> None:
    """Count a request that proved nothing. Raises `TooManyRequests` for an address that has sent too many of them.

    What does prove itself is taken all the same: others may share the address.
    """
    per_minute = edge.settings.unauthenticated_per_minute
    tried = edge.limiter.take(f"unauthenticated:{address_of(request)}", Rate(per_minute, _MINUTE, per_minute))
    if not tried.allowed:
        raise TooManyRequests(
            "Too many requests that prove nothing come from this address.", retry_after=tried.retry_after
        ) from None


def check_scope(key: ApiKey, scope: Scope) -> None:
    """Raises `Forbidden` where the key lacks the scope."""
    if not key.allows(scope):
        raise Forbidden(f"This API key has not the scope {scope}.", hint=f"It has {', '.join(key.scopes)}.")


def admit(edge: Edge, key: ApiKey) -> Decision:
    """Take one request of the key's rate."""
    settings, limits = edge.settings, key.limits
    per_minute = limits.requests_per_minute or settings.rate_per_minute
    # A key with a rate of its own has its burst by that.
    burst = limits.burst or (
        min(per_minute, settings.rate_burst) if limits.requests_per_minute else settings.rate_burst
    )
    return edge.limiter.take(f"key:{key.key_id}", Rate(per_minute, _MINUTE, burst))


def _from_here(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        # A Unix socket, or a server within this process.
        return True


def _host(netloc: str) -> str:
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return "?"

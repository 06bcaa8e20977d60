"""Which source URLs lie below another."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from trivet.errors import InvalidRequest
from trivet.ids import canonical_url, is_data_url, redact_url


def under_prefix(prefix: str) -> Callable[[str], bool]:
    """Says of a redacted URL whether it is this one or below it. Raises `InvalidRequest` for what names no folder."""
    if is_data_url(prefix):
        raise InvalidRequest("A data URL has nothing below it.", hint="Delete the object by its id.")
    top = urlsplit(canonical_url(prefix))
    if top.query:
        raise InvalidRequest(
            f"{redact_url(prefix)!r} has a query, and queries are not kept with an object.",
            hint="Give the URL up to its path, or delete objects by their ids.",
        )
    folder = top.path if top.path.endswith("/") else top.path + "/"

    def under(url: str) -> bool:
        try:
            found = urlsplit(canonical_url(url.removesuffix("?…")))
        except InvalidRequest:
            return False
        if (found.scheme, found.netloc) != (top.scheme, top.netloc):
            return False
        return found.path == top.path or found.path.startswith(folder)

    return under

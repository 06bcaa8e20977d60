"""What schemes have in common whose secret is any text that both sides know."""

from __future__ import annotations

import secrets

from trivet.errors import InvalidRequest
from trivet.hooks import Getter

_SHORTEST = 16


class SharedSecret:
    """The part of `trivet.hooks.Scheme` that is about the secret; nothing is fetched, and no time is signed."""

    secret = True
    patience_seconds = 0.0

    def __init__(self, getter: Getter | None = None) -> None:
        del getter

    def new_secret(self) -> str:
        """See `trivet.hooks.Scheme.new_secret`."""
        return secrets.token_hex(32)

    def check_secret(self, secret: str) -> None:
        """Raises `InvalidRequest` for one that is too short."""
        if len(secret) < _SHORTEST:
            raise InvalidRequest(f"The secret has {len(secret)} characters.", hint=f"Use {_SHORTEST} or more.")

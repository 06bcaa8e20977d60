"""The text of a key, and what is kept of it.

A key is `sk_` + 16 hex digits, which are its id and may be shown, + `_` + 64 hex digits, which are its secret. The
secret is 256 random bits, so it cannot be guessed whatever the hash costs: a slow hash, made for passwords that people
choose, would only let strangers buy the server's time with each wrong key. What is kept is HMAC-SHA256 under the
setting `key_pepper`, so that with a pepper neither reading Redis nor writing it makes a key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable

from pydantic import SecretStr

_KEY = re.compile(r"(sk_[0-9a-f]{16})_([0-9a-f]{64})", re.ASCII)
_ID = re.compile(r"sk_[0-9a-f]{16}", re.ASCII)
_DOMAIN = b"trivet.api-key.v1\0"
#: Compared with where there is no such key, so that an id that exists takes no longer than one that does not.
_NOBODY = "0" * 64


def new_key() -> tuple[str, str]:
    """A key's id, and a secret for it."""
    return f"sk_{secrets.token_hex(8)}", secrets.token_hex(32)


def new_secret() -> str:
    """Another secret: 64 hex digits."""
    return secrets.token_hex(32)


def joined(key_id: str, secret: str) -> str:
    """The whole key, as it is sent."""
    return f"{key_id}_{secret}"


def split(text: str) -> tuple[str, str] | None:
    """Id and secret of a whole key; None for anything else."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def is_key_id(text: str) -> bool:
    """Whether this is the form of a key's id."""
    return bool(_ID.fullmatch(text))


def hashed(key_id: str, secret: str, pepper: SecretStr) -> str:
    """64 hex digits of HMAC-SHA256 over id and secret: a hash that is put beside another id opens nothing."""
    body = _DOMAIN + f"{key_id}\0{secret}".encode()
    return hmac.new(pepper.get_secret_value().encode(), body, hashlib.sha256).hexdigest()


def matches(given: str, kept: Iterable[str]) -> bool:
    """Whether a hash is one of those that are kept, in a time that does not tell how much of it is right."""
    found = False
    for each in (_NOBODY, *kept):
        found = hmac.compare_digest(given, each) or found
    # What nothing was ever hashed to.
    return found and given != _NOBODY

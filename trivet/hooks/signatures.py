"""Comparing signatures, and reading what is signed."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from typing import Any

from trivet.errors import InvalidRequest

#: Of lists and objects in each other; no sender needs as many, and some code below recurses.
_MOST_LEVELS = 64
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def same(given: str, expected: Iterable[str]) -> bool:
    """Whether a signature or token is one of those that are right, in a time that does not tell how nearly."""
    found = False
    for each in expected:
        found = hmac.compare_digest(given.encode("utf-8", "replace"), each.encode()) or found
    return found


def fingerprint(body: bytes) -> str:
    """What tells this body from others, where a scheme signs the body and nothing else."""
    return hashlib.sha256(body).hexdigest()


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object in a verified body. Raises `InvalidRequest`."""
    try:
        value = json.loads(body)
        if _HALF.search(body):
            # Half of a surrogate pair is no text that could be fetched, kept or answered.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise InvalidRequest("The delivery's body is no JSON.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The delivery's body is no JSON object.")
    level: list[Any] = [value]
    for _ in range(_MOST_LEVELS):
        level = [
            each
            for holder in level
            for each in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(each, (dict, list))
        ]
        if not level:
            return value
    raise _too_deep()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The delivery's body has more than {_MOST_LEVELS} lists and objects in each other.")


def text(value: Any) -> str:
    """The value if it is text, else an empty one: payloads hold anything."""
    return value if isinstance(value, str) else ""


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []

"""JSON bodies, read no more freely than they can be kept and shown again.

Python's parser takes halves of surrogate pairs, NaN and any nesting; Pydantic writes none of the first two, and reads
fewer levels than it writes. What came in so would break every list that it is in.
"""

from __future__ import annotations

import json
import math
import re
from http import HTTPStatus
from typing import Any, NoReturn

from fastapi import Request
from starlette.exceptions import HTTPException

#: Of lists and objects in each other; Pydantic reads some 200.
_MOST_LEVELS = 128
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonRequest(Request):
    """A request whose JSON is read so."""

    async def json(self) -> Any:
        """The body's value. Raises a 400 for what cannot be kept, and `JSONDecodeError` for what is no JSON."""
        if not hasattr(self, "_json"):
            self._json = read_json(await self.body())
        return self._json


def of(request: Request) -> JsonRequest:
    """The same request."""
    return request if isinstance(request, JsonRequest) else JsonRequest(request.scope, request.receive)


def read_json(body: bytes) -> Any:
    """The value. Raises `HTTPException` and `JSONDecodeError`."""
    try:
        value = json.loads(body, parse_constant=_no_number)
        if _HALF.search(body):
            # Whole pairs look the same; whether all are whole shows when they are encoded.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _refused("The body has text that is no Unicode: half of a surrogate pair.") from None
    except RecursionError:
        raise _too_deep() from None
    level: list[Any] = [value]
    for _ in range(_MOST_LEVELS + 1):
        level = [each for holder in level for each in _inside(holder)]
        if not level:
            return value
    raise _too_deep()


def _inside(value: Any) -> list[Any]:
    if isinstance(value, float) and not math.isfinite(value):
        _no_number(str(value))
    holds = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in holds if isinstance(each, (dict, list, float))]


def _no_number(name: str) -> NoReturn:
    raise _refused(f"The body has {name}, which is no number in JSON.")


def _too_deep() -> HTTPException:
    return _refused(f"The body has more than {_MOST_LEVELS} lists and objects in each other.")


def _refused(message: str) -> HTTPException:
    return HTTPException(HTTPStatus.BAD_REQUEST, message)

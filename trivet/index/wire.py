"""What goes between the process that owns the index and its clients: HTTP with JSON over a Unix socket.

    GET  /status                                                          → standing
    GET  /held                                                            → {collections: […]}
    POST /search   {namespace, collection, query, request}                → SearchResult
    POST /rebuild  {namespace, collection}                                → FillReport
    POST /verify   {namespace, collection, deep}                          → VerifyReport

An error is `{"code", "message", "hint"}` under a status of 400 or above. Arrays are base64 of little-endian numbers.
"""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from trivet.errors import IndexUnavailable, InvalidRequest, TrivetError
from trivet.retrieval import Hit, Leg, LegScore, QueryLegs, SearchResult, SearchStats

T = TypeVar("T")

#: Longest path of a Unix socket on Linux, unix(7).
_LONGEST = 107
_DTYPES = {"dense": "<f4", "sparse_ids": "<u4", "sparse_weights": "<f4", "colbert": "<f4"}


# ---------------------------------------------------------------- values


def query_json(query: QueryLegs) -> dict[str, Any]:
    """A query as JSON values."""
    found: dict[str, Any] = {"encoder_key": query.encoder_key}
    for name, dtype in _DTYPES.items():
        array = getattr(query, name)
        found[name] = {"shape": array.shape, "data": base64.b64encode(array.astype(dtype).tobytes()).decode()}
    return found


def query_of(values: Mapping[str, Any]) -> QueryLegs:
    """A query out of JSON values. Raises `InvalidRequest`."""
    try:
        arrays = {
            name: np.frombuffer(base64.b64decode(values[name]["data"]), dtype).reshape(values[name]["shape"])
            for name, dtype in _DTYPES.items()
        }
        return QueryLegs(encoder_key=str(values["encoder_key"]), **arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"The query cannot be read ({type(error).__name__}).") from None


def result_json(result: SearchResult) -> bytes:
    """A result, whose hits have nothing beside them, as JSON."""
    return json.dumps(asdict(result), ensure_ascii=False).encode()


def result_of(values: Mapping[str, Any]) -> SearchResult:
    """A result out of JSON values."""
    stats = values["stats"]
    stats = SearchStats(**{**stats, "notes": tuple(stats["notes"])})
    return SearchResult(tuple(_hit(hit) for hit in values["hits"]), stats, values["ranked"])


def _hit(values: Mapping[str, Any]) -> Hit:
    legs = {leg.value: LegScore(**values[leg]) if values[leg] else None for leg in Leg}
    return Hit(**{**values, **legs, "heading_path": tuple(values["heading_path"]), "before": (), "after": ()})


def error_json(error: TrivetError) -> bytes:
    """An error as JSON."""
    return json.dumps({"code": error.code, "message": error.message, "hint": error.hint}).encode()


def _raise(body: bytes) -> None:
    """The error again, as the class that has its code."""
    try:
        told = json.loads(body)
        code, message, hint = told["code"], told["message"], told["hint"]
    except (ValueError, KeyError, TypeError):
        raise IndexUnavailable("The search process gave an answer that cannot be read.") from None
    kinds: list[type[TrivetError]] = [TrivetError, *_below(TrivetError)]
    raise next((kind for kind in kinds if kind.code == code), TrivetError)(message, hint=hint)


def _below(kind: type[TrivetError]) -> Iterator[type[TrivetError]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _below(sub)


# ---------------------------------------------------------------- the socket


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """An address for a socket at this path: where that is too long for one, through its folder's descriptor."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class _Connection(HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("search", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with socket_address(self._path) as address:
            self.sock.connect(address)


class Caller:
    """Asks the process that serves at a socket, one connection per call. Thread-safe."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        self._path = path
        self._timeout = timeout

    def ask(
        self, read: Callable[[Any], T], what: str, body: Mapping[str, Any] | None = None, *, patient: bool = False
    ) -> T:
        """The answer as `read` makes it of JSON values; `patient` waits without end.

        Raises what the other side raised, and `IndexUnavailable` where nobody answers.
        """
        connection = _Connection(self._path, None if patient else self._timeout)
        try:
            connection.request(
                "GET" if body is None else "POST", f"/{what}", None if body is None else json.dumps(body).encode()
            )
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException) as error:
            raise IndexUnavailable(
                f"No search process answers at {self._path} ({type(error).__name__}).",
                hint="Start one (trivet up, or trivet worker search), or search with --retriever exact.",
            ) from None
        finally:
            connection.close()
        if answer.status >= 400:
            _raise(content)
        try:
            return read(json.loads(content))
        except (ValueError, KeyError, TypeError):
            raise IndexUnavailable("The search process gave an answer that cannot be read.") from None

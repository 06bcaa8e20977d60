"""The twin of S3: keys in a dictionary, with the same conditions, order and errors."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from trivet.clock import Clock, SystemClock
from trivet.errors import NotInStore, StoreConflict, StoreUnavailable
from trivet.stores import Stored


class MemoryStore:
    """`ObjectStore` in this process. Thread-safe; every write is atomic; ETags are MD5 of the bytes, as on S3."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, Stored]] = {}

    def put(
        self, key: str, body: bytes, *, if_none_match: bool = False, if_match: str | None = None, sha256: str = ""
    ) -> Stored:
        """Write `body`; a `sha256` that is not that of the bytes is refused."""
        body = bytes(body)
        if sha256 and hashlib.sha256(body).hexdigest() != sha256:
            raise StoreUnavailable(f"The bytes of {key!r} do not match their SHA-256.")
        stored = Stored(key, len(body), hashlib.md5(body, usedforsecurity=False).hexdigest(), sha256, self._clock.now())
        with self._lock:
            held = self._objects.get(key)
            if (if_none_match and held) or (if_match is not None and (held is None or held[1].etag != if_match)):
                raise StoreConflict(f"{key!r} was written by another.")
            self._objects[key] = (body, stored)
        return stored

    def get(self, key: str) -> tuple[bytes, Stored]:
        """All bytes of a key."""
        with self._lock:
            if key not in self._objects:
                raise NotInStore(f"The memory store has no {key!r}.")
            return self._objects[key]

    def head(self, key: str) -> Stored:
        """What the store says about a key."""
        return self.get(key)[1]

    def open(self, key: str) -> BinaryIO:
        """A seekable reader."""
        return io.BytesIO(self.get(key)[0])

    def upload(self, key: str, file: BinaryIO, *, sha256: str = "") -> Stored:
        """Write a file from where it stands to its end."""
        return self.put(key, file.read(), sha256=sha256)

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[Stored]:
        """Keys under the prefix as they are now."""
        with self._lock:
            under = [stored for key, (_, stored) in self._objects.items() if key.startswith(prefix)]
        found: dict[str, Stored] = {}
        for stored in under:
            head, cut, _ = stored.key[len(prefix) :].partition(delimiter) if delimiter else (stored.key, "", "")
            key = prefix + head + cut if cut else stored.key
            found[key] = Stored(key, 0, "") if cut else replace(stored, sha256="")
        yield from sorted(found.values(), key=lambda stored: stored.key.encode())

    def upload_url(self, key: str, *, seconds: int) -> str:
        """Nobody can send bytes there: it only says which key is meant."""
        return f"memory:{key}?seconds={seconds}"

    def delete(self, key: str) -> None:
        """Remove a key; none there is no error."""
        with self._lock:
            self._objects.pop(key, None)

    def abort_uploads(self, prefix: str, older_than: float) -> int:  # noqa: ARG002 # the seam has them
        """Nothing is ever half uploaded."""
        return 0

    def ensure_bucket(self) -> None:
        """There is always one."""

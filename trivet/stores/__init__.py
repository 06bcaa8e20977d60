"""Object stores: the seam, and its registry.

A store keeps bytes under keys and, above all, writes *conditionally*: that is what makes a commit atomic.
`s3` is the real one, `memory` its twin; both pass `tests/contract/test_stores.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from trivet.settings import Settings


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store says about one key; `etag` is opaque and without quotes."""

    key: str
    size: int
    etag: str
    #: Lower-case hex SHA-256 of the bytes where it was recorded at the write, else empty.
    sha256: str = ""
    #: Unix seconds of the last write, by the store's clock; 0 where it was not said (a write's answer, a folder).
    modified: float = field(default=0.0, compare=False)


class ObjectStore(Protocol):
    """Bytes under keys. Keys are full: the settings' prefix is already in them. Safe to share between threads.

    Every method raises `StoreUnavailable` (no answer, 5xx, time-out), `StoreForbidden` (credentials, no bucket),
    and where it reads `NotInStore`.
    """

    def put(
        self, key: str, body: bytes, *, if_none_match: bool = False, if_match: str | None = None, sha256: str = ""
    ) -> Stored:
        """Write. With a condition that does not hold (412) or a concurrent writer (409): `StoreConflict`.

        `sha256` (lower-case hex) is checked against the bytes that arrived and kept for `head` and `get`. A
        `StoreConflict` or `StoreUnavailable` does not say that nothing was written: the caller reads back.
        """
        ...

    def get(self, key: str) -> tuple[bytes, Stored]:
        """All bytes of a key, and what the store says about them."""
        ...

    def head(self, key: str) -> Stored:
        """What the store says about a key."""
        ...

    def open(self, key: str) -> BinaryIO:
        """A seekable reader that fetches only the ranges that are read (for Parquet row groups)."""
        ...

    def upload(self, key: str, file: BinaryIO, *, sha256: str = "") -> Stored:
        """Write a file of any size, without conditions."""
        ...

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[Stored]:
        """Keys under the prefix; with a delimiter also the common prefixes, as keys that end in it.

        Keys of one folder come in byte order. How folders stand among keys is the store's own affair: S3 orders by
        bytes, SeaweedFS by path components. `sha256` is empty: a listing does not know it.
        """
        ...

    def upload_url(self, key: str, *, seconds: int) -> str:
        """A URL that takes one PUT of the key's bytes from whoever has it, for so long."""
        ...

    def delete(self, key: str) -> None:
        """Remove; a key that is not there is no error.

        For the self-test, garbage collection and purges; and for a door that takes back its own intent.
        """
        ...

    def abort_uploads(self, prefix: str, older_than: float) -> int:
        """Abort uploads in several parts that began before `older_than` (Unix seconds); returns how many."""
        ...

    def ensure_bucket(self) -> None:
        """Create the bucket where it is missing; for `trivet up` and tests, a worker never does."""
        ...


def open_store(settings: Settings) -> ObjectStore:
    """The store that the settings name."""
    from trivet.stores.s3 import S3Store

    return S3Store(settings)

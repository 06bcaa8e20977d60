"""upload: sources, `upload://namespace/name`: what was sent to an API and lies on the store until it is ingested.

Only a request of the same namespace gets past `trivet.accept`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

from trivet.errors import NotInStore, SourceError, SourceNotFound, SourceUnavailable, StoreUnavailable
from trivet.fetch import Fetched
from trivet.fetch.body import BLOCK, save, too_large
from trivet.ids import redact_url
from trivet.settings import Settings
from trivet.stores import open_store
from trivet.stores.layout import upload_key

SCHEME = "upload"


def upload_url(namespace: str, name: str) -> str:
    """The URL of an upload."""
    return f"{SCHEME}://{namespace}/{quote(name)}"


class UploadFetcher:
    """Streams an upload from the store of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def fetch(self, url: str, target: Path) -> Fetched:
        """Stream it to `target`. Raises `SourceNotFound`, `SourceTooLarge`, `SourceUnavailable`."""
        shown, parts, limit = redact_url(url), urlsplit(url), self._settings.source_max_bytes
        name = unquote(parts.path[1:])
        if not name or ".." in name.split("/"):
            raise SourceError(f"{shown} names no upload.")
        store, key = open_store(self._settings), upload_key(self._settings, parts.netloc, name)
        try:
            found = store.head(key)
            if found.size > limit:
                raise too_large(shown, limit)
            with store.open(key) as file:
                size, sha256 = save(_blocks(file), target, url=shown, max_bytes=limit)
        except NotInStore:
            raise SourceNotFound(f"{shown} is not there, or no longer.", hint="Upload it again.") from None
        except StoreUnavailable as error:
            raise SourceUnavailable(f"{shown} cannot be read: {error.message}") from None
        return Fetched(target, size, sha256, "", "", filename=name.rsplit("/", 1)[-1], final_url=shown, etag=found.etag)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block

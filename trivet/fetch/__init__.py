"""Fetchers: the seam, and its registry by URL scheme.

A fetcher streams one source to a file within the settings' limits and refuses what is not allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from trivet.errors import MissingDependency, SourceError, SourceRefused
from trivet.ids import redact_url
from trivet.settings import Settings


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of a source, on disk."""

    path: Path
    size: int
    #: Hex SHA-256 of the bytes.
    sha256: str
    #: As the source states it, without parameters, lower case; empty if it states none.
    media_type: str
    #: Charset parameter of the content type; empty if none.
    charset: str
    #: Last path segment or the content disposition's file name; may be empty.
    filename: str
    #: After redirects, redacted.
    final_url: str
    #: Validators as the source states them (an HTTP entity tag with its quotes, an HTTP date); empty if none.
    etag: str = ""
    last_modified: str = ""


class Fetcher(Protocol):
    """Streams one source to `target`; raises the `Source…` errors of `trivet.errors`."""

    def fetch(self, url: str, target: Path) -> Fetched: ...


#: Scheme → module:class, imported only when it is asked for.
FETCHERS = {
    "http": "trivet.fetch.http:HttpFetcher",
    "https": "trivet.fetch.http:HttpFetcher",
    "s3": "trivet.fetch.s3:S3Fetcher",
    "data": "trivet.fetch.data:DataFetcher",
    "file": "trivet.fetch.file:FileFetcher",
    "upload": "trivet.fetch.upload:UploadFetcher",
}


def fetch(settings: Settings, url: str, target: Path) -> Fetched:
    """Stream the source to `target` with the fetcher of its scheme.

    Raises `SourceRefused` for any other scheme, the `Source…` errors of the fetchers, and `MissingDependency`. Where
    it raises, `target` is not left behind.
    """
    url = url.strip()
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError:
        raise SourceError(f"{redact_url(url)} cannot be read as a URL.") from None
    if scheme not in FETCHERS:
        raise SourceRefused(
            f"{redact_url(url)} has the scheme {scheme!r}, which cannot be fetched.",
            hint=f"Use one of {', '.join(FETCHERS)}.",
        )
    module, name = FETCHERS[scheme].split(":")
    try:
        made = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"Fetching {scheme}: sources needs the package {error.name}.", hint="Run: pip install 'trivet[prepare]'"
        ) from None
    fetcher: Fetcher = made(settings)
    return fetcher.fetch(url, target)

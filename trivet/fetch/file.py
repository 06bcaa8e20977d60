"""file: sources, for the command line of a single machine. Off unless the settings let them in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from trivet.errors import SourceError, SourceForbidden, SourceNotFound, SourceRefused
from trivet.fetch import Fetched, headers
from trivet.fetch.body import BLOCK, save, too_large
from trivet.ids import redact_url
from trivet.settings import Settings


class FileFetcher:
    """Copies a regular file of this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def fetch(self, url: str, target: Path) -> Fetched:
        """Copy `file:///path` (or `file://localhost/path`) to `target`.

        Raises `SourceRefused` where file URLs are not let in or the path is no regular file, `SourceNotFound`,
        `SourceForbidden` without permission to read, and `SourceTooLarge`.
        """
        redacted = redact_url(url)
        if not self._settings.allow_file_urls:
            raise SourceRefused(
                f"{redacted} was refused: file URLs are not let in here.",
                hint="Start the workers with `trivet up --allow-files` where all callers may read all files.",
            )
        path = _path_of(url, redacted)
        limit = self._settings.source_max_bytes
        with _open(path, redacted) as file:
            about = os.fstat(file.fileno())
            if about.st_size > limit:
                raise too_large(redacted, limit)
            size, sha256 = save(_blocks(file, redacted), target, url=redacted, max_bytes=limit)
        return Fetched(
            path=target,
            size=size,
            sha256=sha256,
            media_type="",
            charset="",
            filename=headers.clean_filename(path.name),
            final_url=redacted,
            last_modified=headers.http_date(about.st_mtime),
        )


def _path_of(url: str, redacted: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise SourceRefused(f"{redacted} was refused: it names a file of another machine.")
    if parts.query or parts.fragment:
        raise SourceError(f"{redacted} has a '?' or '#' in it.", hint="Write them as %3F and %23 in a file name.")
    path = unquote(parts.path, errors="surrogateescape")
    if not path.startswith("/") or "\0" in path:
        raise SourceError(f"{redacted} is no absolute path.", hint="Write it as file:///path/to/file.")
    return Path(path)


def _open(path: Path, redacted: str) -> BinaryIO:
    """The file opened for reading; what is opened is what is checked, so nothing can be put in its place between."""
    try:
        # Non-blocking: opening a pipe for reading would else wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceNotFound(f"{redacted} does not exist.") from None
    except PermissionError:
        raise SourceForbidden(f"{redacted} may not be read by this user.") from None
    except OSError as error:
        raise SourceError(f"{redacted} cannot be opened: {os.strerror(error.errno or 0).lower()}.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceRefused(f"{redacted} was refused: it is a directory, device or pipe, not a file.")
    return os.fdopen(descriptor, "rb")


def _blocks(file: BinaryIO, redacted: str) -> Iterator[bytes]:
    try:
        while block := file.read(BLOCK):
            yield block
    except OSError as error:
        raise SourceError(f"{redacted} cannot be read: {os.strerror(error.errno or 0).lower()}.") from None

"""data: sources (RFC 2397): the bytes are in the URL. Also the fetcher that needs neither server nor disk."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

from trivet.errors import SourceError
from trivet.fetch import Fetched, headers
from trivet.fetch.body import save, too_large
from trivet.ids import redact_url
from trivet.settings import Settings


class DataFetcher:
    """Writes the bytes of a data: URL to disk.

    A `#` belongs to the data, as it does for Python's own `urlopen`: text in Markdown would else end at its first
    heading without a word.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def fetch(self, url: str, target: Path) -> Fetched:
        """Decode `data:[<media type>][;base64],<data>`; without a type it is text/plain in US-ASCII.

        Raises `SourceError` if it is not in that form and `SourceTooLarge` over the size limit.
        """
        limit = self._settings.source_max_bytes
        head, comma, data = url.partition(",")
        redacted = redact_url("data:" + head[len("data:") :] + comma)
        if not comma:
            raise SourceError("A data: URL has no comma between its media type and its data.")
        stated = head[len("data:") :]
        is_base64 = re.search(r";\s*base64\s*$", stated, re.IGNORECASE)
        stated = stated[: is_base64.start()] if is_base64 else stated
        # Encoded data are never shorter than three quarters of an escape's or a base64 group's length.
        if len(data) > 4 * (limit + 1):
            raise too_large(redacted, limit)
        raw = unquote_to_bytes(data)
        body = _from_base64(raw, redacted) if is_base64 else raw
        size, sha256 = save([body], target, url=redacted, max_bytes=limit)
        if not stated:
            media_type, charset = "text/plain", "us-ascii"
        else:
            media_type, charset = headers.media_type_of("text/plain" + stated if stated.startswith(";") else stated)
        return Fetched(target, size, sha256, media_type, charset, filename="", final_url=redacted)


def _from_base64(raw: bytes, redacted: str) -> bytes:
    packed = b"".join(raw.split()).rstrip(b"=")
    try:
        # Both alphabets occur in the wild, and the padding is often left away.
        return base64.b64decode(packed.translate(_URL_SAFE) + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error:
        raise SourceError(f"{redacted} says that its data are base64, and they are not.") from None


_URL_SAFE = bytes.maketrans(b"-_", b"+/")

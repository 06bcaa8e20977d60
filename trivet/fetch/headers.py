"""What response headers say about a body. Nothing in them is trusted further than its form."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.message import Message
from email.utils import collapse_rfc2231_value, format_datetime, parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,80}/[a-z0-9!#$&^_.+-]{1,80}", re.ASCII)
_CHARSET = re.compile(r"[a-z0-9][a-z0-9._:+-]{0,39}", re.ASCII)


def media_type_of(content_type: str) -> tuple[str, str]:
    """Media type without parameters and its charset, both in lower case, each empty where unreadable."""
    media_type = content_type.split(";", 1)[0].strip().lower()
    message = Message()
    message["content-type"] = content_type
    stated = message.get_param("charset")
    charset = collapse_rfc2231_value(stated).strip().lower() if stated else ""
    return (
        media_type if _TYPE.fullmatch(media_type) else "",
        charset if _CHARSET.fullmatch(charset) else "",
    )


def filename_of(content_disposition: str, path: str) -> str:
    """The file name that a Content-Disposition states (RFC 6266: `filename*` first), else the path's last segment."""
    message = Message()
    message["content-disposition"] = content_disposition
    # A parameter in RFC 2231 form comes as a triple; it wins over the plain one, which is there for old clients.
    params: list[tuple[str, Any]] = message.get_params([], "content-disposition")[1:]
    names = [value for key, value in params if key.lower() == "filename"]
    extended = [value for value in names if isinstance(value, tuple)]
    for value in (*extended, *names):
        name = clean_filename(collapse_rfc2231_value(value))
        if name:
            return name
    return clean_filename(unquote(path.rsplit("/", 1)[-1]))


def clean_filename(name: str) -> str:
    """The last component of a name, without control characters, at most 255 characters; empty for `.` and `..`."""
    last = re.split(r"[/\\]", name)[-1]
    last = "".join(char for char in last if char.isprintable()).strip()[:255]
    return "" if last in (".", "..") else last


def retry_after(header: str, now: float) -> str:
    """What a Retry-After header asks for as a sentence, or empty. `now` in seconds since the epoch."""
    text = header.strip()
    if re.fullmatch(r"[0-9]{1,8}", text, re.ASCII):
        return f"It asks to wait {int(text)} s."
    try:
        seconds = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return ""
    return f"It asks to wait {max(0, round(seconds))} s."


def http_date(seconds: float) -> str:
    """Seconds since the epoch as an HTTP date."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def text_of(raw: bytes) -> str:
    """A header's bytes as text: UTF-8 where they are, else Latin-1, as many servers send."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")

"""Logs: one line per event, from Trivet and from the libraries below it, with nothing secret in them.

Everything goes through the standard library's root logger, so Celery's and boto3's records get the same form and the
same redaction as our own. Redaction is the last step before rendering: it sees messages, values and tracebacks alike.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, TextIO
from urllib.parse import urlsplit

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from trivet.errors import InvalidRequest
from trivet.ids import redact_url
from trivet.settings import Settings

HIDDEN = "***"
#: Characters of one value that a log line keeps; a traceback fits, a document does not.
LONGEST = 20_000

#: Below INFO these write request headers, credentials among them, or a line per packet.
_CHATTY = (
    "amqp",
    "boto3",
    "botocore",
    "httpcore2",
    "httpx2",
    "kombu",
    "s3transfer",
    "urllib3",
    "pdfminer",
    "trafilatura",
)

_ALWAYS_SECRET = frozenset(
    {"secret", "secrets", "password", "passwd", "passphrase", "authorization", "credential", "credentials", "cookie"}
)
#: Secret where they are text; numbers under such names are counts.
_SECRET_IF_TEXT = frozenset({"token", "key", "apikey", "signature"})
#: Names of this project that end in `key` and hold none.
_KNOWN_KEYS = frozenset(
    {"s3_key", "object_key", "manifest_key", "part_key", "plan_key", "current_key", "redis_key", "encoder_key"}
)

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# Bounded repeats only: what is matched here may be a megabyte of somebody's making.
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{0,20}://[^\s\"'<>]+|\bdata:[^\s,\"'<>]{0,200},[^\s\"'<>]*", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer)\s+[A-Za-z0-9+/._~=-]{6,}", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"(authorization[\"']?\s?[:=]\s?[\"']?)(?:[\w-]{1,40} )?[^\s\"',]+", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"((?:secret|password|passwd|token|credential|signature|(?:api|access|secret|private|account)[_-]?key)"
    r"[\"']?\s?[=:]\s?[\"']?)[^\s\"',;&}\])]+",
    re.IGNORECASE,
)
#: API keys, which keep the part that may be shown, and secrets of webhooks.
_OWN = re.compile(r"\b(sk_[0-9a-f]{16})_[0-9a-f]{8,}|\b(whsec)_[A-Za-z0-9+/=]{8,}")
#: Would move a reader's cursor or colour a terminal; line ends and tabs stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def configure(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (standard error), as console lines or as JSON, one object per line.

    May be called again; the last call holds. A process that embeds Trivet as a library and logs in its own way does
    not call it. Raises `InvalidRequest` for a level that does not exist.
    """
    level = logging.getLevelNamesMapping().get(settings.log_level.upper())
    if level is None:
        raise InvalidRequest(
            f"Setting TRIVET_LOG_LEVEL is {settings.log_level!r}, which is no level.",
            hint="Use DEBUG, INFO, WARNING or ERROR.",
        )
    out = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_common(), structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                redact,
                _renderer(settings.log_json, out),
            ],
        )
    )
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.INFO))
    logging.captureWarnings(True)


def bind(**values: object) -> AbstractContextManager[None]:
    """For the length of a `with` block put values (task_id=…, stage=…) on every log of this thread."""
    present = {name: value for name, value in values.items() if value is not None}
    return structlog.contextvars.bound_contextvars(**present)


def bind_process(**values: object) -> None:
    """Put values (worker=…, roles=…) on every log of this process, threads and forked children included."""
    _process_values.update(values)


_process_values: dict[str, object] = {}


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that a second `configure` finds it."""


def _common() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        _add_process_values,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _add_process_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in _process_values.items():
        event.setdefault(name, value)
    return event


def _renderer(as_json: bool, out: TextIO) -> Processor:
    if as_json:
        return structlog.processors.JSONRenderer()
    # Tracebacks come as text already: they had to be redacted.
    return structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: no secret leaves through any value of the event, however deep."""
    return {name: _clean(name, value) for name, value in event.items()}


def redact_text(text: str) -> str:
    """Text without queries and user info of URLs, without credentials after well-known words, without control codes."""
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"
    text = _URL.sub(_redacted_url, text)
    for pattern in (_AUTHORIZATION, _ASSIGNED):
        text = pattern.sub(lambda found: found[1] + HIDDEN, text)
    text = _BEARER.sub(lambda found: f"{found[1]} {HIDDEN}", text)
    text = _OWN.sub(lambda found: f"{found[1] or found[2]}_{HIDDEN}", text)
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def is_secret(name: str, value: object) -> bool:
    """Whether a value may not be shown because of its name."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if _ALWAYS_SECRET.intersection(words):
        return value not in (None, "")
    if isinstance(value, (int, float)) or value in (None, "") or name.lower() in _KNOWN_KEYS:
        return False
    return bool(words) and (words[-1] in _SECRET_IF_TEXT or "token" in words)


def _clean(name: str, value: Any) -> Any:
    if is_secret(name, value):
        return HIDDEN
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {redact_text(str(key)): _clean(str(key), each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean("", each) for each in value]
    return redact_text(str(value))


def _redacted_url(found: re.Match[str]) -> str:
    url = found[0]
    # Punctuation after a URL belongs to the sentence, not to the URL.
    bare = url.rstrip(".,;:!?)]}")
    tail = url[len(bare) :]
    if bare[:5].lower() == "data:":
        return redact_url("data:" + bare[5:]) + tail
    try:
        _ = urlsplit(bare).port
    except ValueError:
        # A password with a slash in it looks like a port that is no number: everything up to the last @ may be secret.
        scheme, _, rest = bare.partition("://")
        bare = f"{scheme}://{rest.rpartition('@')[2]}"
    return redact_url(bare) + tail

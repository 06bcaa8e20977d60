"""s3: sources. Only buckets that the settings list; the store's own bucket is not one of them by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from trivet.clock import Clock, SystemClock
from trivet.errors import (
    SourceError,
    SourceForbidden,
    SourceNotFound,
    SourceRefused,
    SourceUnavailable,
    TrivetError,
)
from trivet.fetch import Fetched, headers
from trivet.fetch.body import BLOCK, encoding_of, save, too_large
from trivet.ids import redact_url
from trivet.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, GetObjectRequestTypeDef

_NOT_FOUND = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "404", "NotFound"})
_FORBIDDEN = frozenset(
    {
        "AccessDenied",
        "403",
        "401",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "AllAccessDisabled",
    }
)
_TRY_LATER = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestTimeTooSkewed"})


class S3Fetcher:
    """Streams `s3://bucket/key[?versionId=…]` from the endpoint of the settings.

    Credentials are those of the settings, or boto3's own chain where they have none. The key is percent-decoded, as
    in any URL, so `#`, `?` and `%` in a key are written %23, %3F and %25.
    """

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()

    def fetch(self, url: str, target: Path) -> Fetched:
        """Stream the object to `target`.

        Raises `SourceRefused` for a bucket that is not listed, `SourceNotFound`, `SourceForbidden`,
        `SourceTooLarge`, another `SourceError`, and `SourceUnavailable` for what may pass.
        """
        redacted = redact_url(url)
        request = _request(url, redacted)
        if request["Bucket"] not in self._settings.allow_buckets:
            raise SourceRefused(
                f"{redacted} was refused: its bucket is not one that sources may name.",
                hint="List it in TRIVET_ALLOW_BUCKETS if it may be read.",
            )
        deadline = self._clock.monotonic() + self._settings.source_total_seconds
        try:
            answer = _client(os.getpid(), *_client_settings(self._settings)).get_object(**request)
            with answer["Body"] as body:
                return self._save(answer, self._blocks(body, deadline, redacted), request["Key"], target, redacted)
        except TrivetError:
            raise
        except Exception as error:
            raise _explained(error, redacted) from error

    def _save(
        self, answer: GetObjectOutputTypeDef, blocks: Iterator[bytes], key: str, target: Path, redacted: str
    ) -> Fetched:
        limit = self._settings.source_max_bytes
        if answer.get("ContentLength", 0) > limit:
            raise too_large(redacted, limit)
        encoding = encoding_of(_without_signing(answer.get("ContentEncoding", "")), redacted)
        size, sha256 = save(blocks, target, url=redacted, max_bytes=limit, encoding=encoding)
        media_type, charset = headers.media_type_of(answer.get("ContentType", ""))
        modified = answer.get("LastModified")
        return Fetched(
            path=target,
            size=size,
            sha256=sha256,
            media_type=media_type,
            charset=charset,
            filename=headers.filename_of(answer.get("ContentDisposition", ""), "") or headers.clean_filename(key),
            final_url=redacted,
            etag=answer.get("ETag", ""),
            last_modified=headers.http_date(modified.timestamp()) if modified else "",
        )

    def _blocks(self, body: Any, deadline: float, redacted: str) -> Iterator[bytes]:
        # A read waits at most source_read_seconds for the next bytes (the client's own time-out).
        while block := body.read(BLOCK):
            if self._clock.monotonic() > deadline:
                raise SourceUnavailable(f"{redacted} was not fetched within {self._settings.source_total_seconds:g} s.")
            yield block


def _request(url: str, redacted: str) -> GetObjectRequestTypeDef:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise SourceRefused(f"{redacted} was refused: it has credentials in it.", hint="Take them out of the URL.")
    if "#" in url:
        raise SourceError(f"{redacted} has a '#' in it.", hint="Write it as %23 if the key has one.")
    request: GetObjectRequestTypeDef = {"Bucket": parts.netloc, "Key": unquote(parts.path.removeprefix("/"))}
    if not request["Bucket"] or not request["Key"]:
        raise SourceError(f"{redacted} does not name a bucket and a key.", hint="Write it as s3://bucket/key.")
    if parts.query:
        query = parse_qs(parts.query, keep_blank_values=True)
        if set(query) != {"versionId"} or not query["versionId"][0]:
            raise SourceError(
                f"{redacted} has a query other than versionId.", hint="Write '?' as %3F if the key has one."
            )
        request["VersionId"] = query["versionId"][0]
    return request


def _without_signing(encoding: str) -> str:
    """Some stores hand back the `aws-chunked` that an uploader signed with; the body is not encoded so."""
    return ",".join(part for part in encoding.split(",") if part.strip().lower() != "aws-chunked")


def _client_settings(settings: Settings) -> tuple[str, str, str, str, float, float]:
    return (
        settings.s3_endpoint,
        settings.s3_region,
        settings.s3_access_key,
        settings.s3_secret_key.get_secret_value(),
        settings.source_connect_seconds,
        settings.source_read_seconds,
    )


@lru_cache(maxsize=8)
def _client(
    _pid: int, endpoint: str, region: str, access_key: str, secret_key: str, connect: float, read: float
) -> S3Client:
    """One client per process, for a fork must not share its connections; boto3's clients are safe for threads."""
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint or None,
        region_name=region,
        aws_access_key_id=access_key or None,
        aws_secret_access_key=secret_key or None,
        config=Config(
            connect_timeout=connect,
            read_timeout=read,
            retries={"mode": "standard", "total_max_attempts": 2},
            s3={"addressing_style": "path"} if endpoint else {},
        ),
    )


def _explained(error: Exception, redacted: str) -> TrivetError:
    from botocore import exceptions
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _NOT_FOUND:
            return SourceNotFound(f"{redacted} does not exist.")
        if code == "InvalidObjectState":
            return SourceError(f"{redacted} is archived.", hint="Restore it first.")
        if code in _FORBIDDEN or status in (401, 403):
            return SourceForbidden(f"{redacted} may not be read with these credentials ({code}).")
        if status >= 500 or status == 429 or code in _TRY_LATER:
            return SourceUnavailable(f"{redacted} cannot be read now: S3 answered {code or status}.")
        return SourceError(f"{redacted} cannot be read: S3 answered {code or status}.")
    if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
        return SourceForbidden(
            f"{redacted} cannot be read: there are no credentials for S3.",
            hint="Set TRIVET_S3_ACCESS_KEY and TRIVET_S3_SECRET_KEY, or give boto3 a profile or role.",
        )
    if isinstance(error, exceptions.ParamValidationError):
        return SourceError(f"{redacted} does not name a valid bucket and key.")
    if isinstance(error, (exceptions.BotoCoreError, HTTPError, OSError)):
        return SourceUnavailable(f"{redacted} cannot be read now: S3 does not answer.")
    raise error

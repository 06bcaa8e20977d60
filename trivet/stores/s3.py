"""The real store: S3, or anything that speaks its protocol (SeaweedFS, MinIO, R2), through boto3."""

from __future__ import annotations

import base64
import io
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from trivet.errors import InvalidRequest, NotInStore
from trivet.ids import redact_url
from trivet.settings import Settings
from trivet.stores import Stored
from trivet.stores.s3_errors import ErrorMap
from trivet.stores.s3_files import Ranges, Unclosed

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: How often boto3 sends one request in all. A commit is tested with these retries on.
ATTEMPTS = 4
CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
#: Bytes that one ranged read fetches ahead.
READ_AHEAD = 256 << 10
_MULTIPART = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=16 << 20, max_concurrency=4)
_METADATA_SHA256 = "sha256"


class _Sessions:
    """The boto3 session of this process: it keeps what is slow to load. Clients are thread-safe, it is not."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.lock = threading.Lock()
        self._session: boto3.session.Session | None = None

    def session(self) -> boto3.session.Session:
        """To be called and used under `lock`."""
        self._session = self._session or boto3.session.Session()
        return self._session


_sessions = _Sessions()


class S3Store:
    """`ObjectStore` on one bucket. Safe to share between threads; a forked child opens connections of its own.

    Every request is sent up to `attempts` times (connection errors, time-outs, 5xx, throttling), so a conditional
    write whose first answer was lost may report a conflict with itself: callers read back.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        attempts: int = ATTEMPTS,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self.bucket = settings.s3_bucket
        self.endpoint = redact_url(settings.s3_endpoint) if settings.s3_endpoint else f"AWS {settings.s3_region}"
        self._settings = settings
        self._errors = ErrorMap(self.endpoint, self.bucket)
        self._config = Config(
            connect_timeout=connect_seconds,
            read_timeout=read_seconds,
            max_pool_connections=max(16, 2 * settings.io_threads + 4),
            retries={"mode": "standard", "total_max_attempts": attempts},
            tcp_keepalive=True,
            # Else a presigned URL is signed as of old, where a content type that was not foreseen breaks it.
            signature_version="s3v4",
            s3={"addressing_style": "path" if settings.s3_endpoint else "auto"},
            # A SHA-256 goes along where the caller gives one; the trailers that boto3 would add by itself are not
            # understood by every store.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._bucket_seen = False
        self._forget()
        _after_fork(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._opened: S3Client | None = None
        self._signer: S3Client | None = None

    @property
    def _client(self) -> S3Client:
        client = self._opened
        if client is None:
            with self._lock:
                client = self._opened = self._opened or self._connect(self._settings.s3_endpoint)
        return client

    @property
    def _outside(self) -> S3Client:
        """Signs for the name that the store has for clients outside: the name is part of what is signed."""
        public = self._settings.s3_public_endpoint
        if not public:
            return self._client
        with self._lock:
            self._signer = self._signer or self._connect(public)
            return self._signer

    def _connect(self, endpoint: str) -> S3Client:
        settings, shown = self._settings, redact_url(endpoint) or self.endpoint
        try:
            with _sessions.lock:
                client: S3Client = _sessions.session().client(
                    "s3",
                    endpoint_url=endpoint or None,
                    region_name=settings.s3_region,
                    aws_access_key_id=settings.s3_access_key or None,
                    aws_secret_access_key=settings.s3_secret_key.get_secret_value() or None,
                    config=self._config,
                )
        except (ValueError, BotoCoreError):
            raise InvalidRequest(
                f"The S3 endpoint {shown!r} or region {settings.s3_region!r} is not valid.",
                hint="Set TRIVET_S3_ENDPOINT to a URL such as http://127.0.0.1:8333.",
            ) from None
        client.meta.events.register("before-sign.s3.PutObject", _send_at_once)
        return client

    def put(
        self, key: str, body: bytes, *, if_none_match: bool = False, if_match: str | None = None, sha256: str = ""
    ) -> Stored:
        """Write `body`; `sha256` is verified by the store and kept with the object."""
        extra: dict[str, str] = {}
        if if_none_match:
            extra["IfNoneMatch"] = "*"
        if if_match is not None:
            extra["IfMatch"] = f'"{if_match}"'
        if sha256:
            extra["ChecksumSHA256"] = base64.b64encode(bytes.fromhex(sha256)).decode()
        with self._errors.during("write", key, conditional=bool(if_none_match or if_match is not None)):
            answer = self._client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=body,
                Metadata={_METADATA_SHA256: sha256} if sha256 else {},
                **extra,  # type: ignore[arg-type] # the stubs want each argument by name
            )
        return Stored(key, len(body), answer["ETag"].strip('"'), sha256)

    def get(self, key: str) -> tuple[bytes, Stored]:
        """All bytes of a key."""
        with self._errors.during("read", key):
            answer = self._client.get_object(Bucket=self.bucket, Key=key)
            with answer["Body"] as stream:
                body = stream.read()
        sha256, modified = answer["Metadata"].get(_METADATA_SHA256, ""), answer["LastModified"].timestamp()
        return body, Stored(key, len(body), answer["ETag"].strip('"'), sha256, modified)

    def head(self, key: str) -> Stored:
        """What the store says about a key."""
        try:
            with self._errors.during("read", key):
                answer = self._client.head_object(Bucket=self.bucket, Key=key)
        except NotInStore:
            # The answer to HEAD has no body, so a bucket that is not there looks like a key that is not.
            self._require_bucket()
            raise
        sha256 = answer["Metadata"].get(_METADATA_SHA256, "")
        modified = answer["LastModified"].timestamp()
        return Stored(key, answer["ContentLength"], answer["ETag"].strip('"'), sha256, modified)

    def _require_bucket(self) -> None:
        if not self._bucket_seen:
            with self._errors.during("open", "", bucket=True):
                self._client.head_bucket(Bucket=self.bucket)
            self._bucket_seen = True

    def open(self, key: str) -> BinaryIO:
        """A seekable reader of one version of the key: replaced while it is read, it raises `StoreConflict`."""
        return cast("BinaryIO", io.BufferedReader(Ranges(self.head(key), self.read_range), READ_AHEAD))

    def read_range(self, stored: Stored, start: int, end: int) -> bytes:
        """Bytes `[start, end)` of exactly this version of a key."""
        with self._errors.during("read", stored.key, conditional=True):
            answer = self._client.get_object(
                Bucket=self.bucket, Key=stored.key, Range=f"bytes={start}-{end - 1}", IfMatch=f'"{stored.etag}"'
            )
            with answer["Body"] as stream:
                body: bytes = stream.read()
        return body

    def upload(self, key: str, file: BinaryIO, *, sha256: str = "") -> Stored:
        """Write a file from where it stands to its end, in parts of 16 MiB where it has more."""
        with self._errors.during("write", key):
            self._client.upload_fileobj(
                cast("BinaryIO", Unclosed(file)),
                self.bucket,
                key,
                ExtraArgs={"Metadata": {_METADATA_SHA256: sha256}} if sha256 else None,
                Config=_MULTIPART,
            )
        return self.head(key)

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[Stored]:
        """Keys under the prefix, a page of 1,000 at a time."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix, Delimiter=delimiter
        )
        iterator = iter(pages)
        while True:
            with self._errors.during("list", prefix):
                page = next(iterator, None)
            if page is None:
                return
            found = [
                Stored(item["Key"], item["Size"], item["ETag"].strip('"'), modified=item["LastModified"].timestamp())
                for item in page.get("Contents", [])
            ]
            folders = [Stored(item["Prefix"], 0, "") for item in page.get("CommonPrefixes", [])]
            yield from sorted(found + folders, key=lambda stored: stored.key.encode()) if folders else found

    def upload_url(self, key: str, *, seconds: int) -> str:
        """Presigned here, for whoever reaches the store at `s3_public_endpoint`; nothing is asked of it."""
        with self._errors.during("write", key):
            return self._outside.generate_presigned_url(
                "put_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=seconds
            )

    def delete(self, key: str) -> None:
        """Remove a key; none there is no error."""
        with self._errors.during("delete", key):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def abort_uploads(self, prefix: str, older_than: float) -> int:
        """Abort multipart uploads that nobody has completed; one that ended meanwhile is no error."""
        with self._errors.during("list uploads under", prefix):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=prefix)
            found = [upload for page in pages for upload in page.get("Uploads", [])]
        # Not every store heeds the prefix, and another's uploads are none of ours.
        left = [one for one in found if one["Key"].startswith(prefix) and one["Initiated"].timestamp() < older_than]
        for upload in left:
            with suppress(NotInStore), self._errors.during("abort an upload of", upload["Key"]):
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return len(left)

    def ensure_bucket(self) -> None:
        """Create the bucket where it is missing."""
        with self._errors.during("create", "", bucket=True):
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except self._client.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
                self._create_bucket()

    def _create_bucket(self) -> None:
        region = self._settings.s3_region
        try:
            if self._settings.s3_endpoint or region == "us-east-1":
                self._client.create_bucket(Bucket=self.bucket)
            else:
                self._client.create_bucket(
                    Bucket=self.bucket,
                    CreateBucketConfiguration={"LocationConstraint": region},  # type: ignore[typeddict-item] # any region
                )
        except self._client.exceptions.ClientError as error:
            # Another process was faster.
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise
            self._client.head_bucket(Bucket=self.bucket)


def _send_at_once(request: Any, **_: Any) -> None:
    """Without botocore's `Expect: 100-continue`, for which every write waits a round trip before it sends its body."""
    if "Expect" in request.headers:
        del request.headers["Expect"]


def _after_fork(store: S3Store) -> None:
    """Sockets and locks do not survive a fork: the child starts afresh."""
    held = weakref.ref(store)

    def forget() -> None:
        live = held()
        if live is not None:
            live._forget()  # noqa: SLF001 # the hook is part of the class, outside it so as not to keep it alive

    os.register_at_fork(after_in_child=forget)

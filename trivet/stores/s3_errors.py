"""What boto3 raises, in our words. Nothing here ever shows a credential."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from urllib3.exceptions import HTTPError

from trivet.errors import InvalidRequest, NotInStore, StoreConflict, StoreForbidden, StoreUnavailable, TrivetError

_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound, NoRegionError)
#: Codes that come with a status that does not tell them apart.
_FORBIDDEN = frozenset(
    {"NoSuchBucket", "ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed", "InvalidBucketName"}
)
_TRY_AGAIN = frozenset({"RequestTimeout", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "SlowDown"})


class ErrorMap:
    """Errors of one endpoint and bucket."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        self.where = f"S3 at {endpoint}"
        self.bucket = bucket

    @contextmanager
    def during(self, verb: str, key: str, *, conditional: bool = False, bucket: bool = False) -> Iterator[None]:
        """Raise what boto3 raises inside as ours; `bucket` says that a 404 is about the bucket, not the key."""
        try:
            yield
        except ClientError as error:
            raise self.answered(error, verb, key, conditional=conditional, bucket=bucket) from None
        except ParamValidationError:
            raise InvalidRequest(f"{self.where}: bucket {self.bucket!r} or key {key!r} is no valid name.") from None
        except _CREDENTIALS as error:
            raise StoreForbidden(
                f"{self.where} needs credentials, and they are missing or incomplete ({type(error).__name__}).",
                hint="Set TRIVET_S3_ACCESS_KEY and TRIVET_S3_SECRET_KEY, or boto3's own variables, profile or role.",
            ) from None
        except (BotoCoreError, Boto3Error, HTTPError, ConnectionError, TimeoutError) as error:
            cause = error.__context__ if isinstance(error, Boto3Error) else None
            if isinstance(cause, ClientError):
                raise self.answered(cause, verb, key, conditional=conditional, bucket=bucket) from None
            raise StoreUnavailable(
                f"{self.where} does not answer: could not {verb} {self._name(key)} ({type(error).__name__}).",
                hint="Check that the server runs and that TRIVET_S3_ENDPOINT is right.",
            ) from None

    def answered(
        self, error: ClientError, verb: str, key: str, *, conditional: bool = False, bucket: bool = False
    ) -> TrivetError:
        """The store did answer, with an error."""
        response: Any = error.response
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(response.get("Error", {}).get("Code", ""))
        what = f"could not {verb} {self._name(key)} (HTTP {status} {code})".replace(f" {status})", ")")
        if code == "NoSuchBucket" or (bucket and status == 404):
            return StoreForbidden(
                f"{self.where} has no bucket {self.bucket!r}.",
                hint="Create it, or set TRIVET_S3_BUCKET to one that is there.",
            )
        if status == 412 or (status == 409 and conditional) or (status == 404 and conditional and verb == "write"):
            return StoreConflict(f"{self.where}: {self._name(key)} was written by another ({status} {code}).")
        if status >= 500 or status in (0, 408, 409, 429) or code in _TRY_AGAIN:
            return StoreUnavailable(f"{self.where} failed: {what}.", hint="It is tried again.")
        if status in (401, 403) or code in _FORBIDDEN:
            return StoreForbidden(
                f"{self.where} refused: {what}.",
                hint="Check TRIVET_S3_ACCESS_KEY, TRIVET_S3_SECRET_KEY and the rights on the bucket.",
            )
        if status in (301, 307):
            return StoreForbidden(
                f"{self.where} says that bucket {self.bucket!r} is in another region.", hint="Set TRIVET_S3_REGION."
            )
        if status == 404:
            return NotInStore(f"{self.where} has no {self._name(key)}.")
        return InvalidRequest(f"{self.where} did not accept the request: {what}.")

    def _name(self, key: str) -> str:
        return f"{key!r} in bucket {self.bucket!r}" if key else f"bucket {self.bucket!r}"

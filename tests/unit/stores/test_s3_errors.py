"""Whatever boto3 raises is one of ours, and shows no secret."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import boto3.exceptions
import botocore.exceptions
import pytest
import urllib3.exceptions
from botocore.exceptions import ClientError
from pydantic import SecretStr

from trivet.errors import (
    InvalidRequest,
    NotInStore,
    StoreConflict,
    StoreForbidden,
    StoreUnavailable,
    TrivetError,
)
from trivet.settings import Settings
from trivet.stores.s3 import S3Store
from trivet.stores.s3_errors import ErrorMap

ERRORS = ErrorMap("http://s3.example:8333", "bucket-1")


#: Bugs in boto3's own data files, and what urllib3 tells botocore, which wraps it.
NEVER_SEEN = {"UndefinedModelAttributeError", "MissingServiceIdError", "ProxySchemeUnsupported"}


def vendor_errors() -> list[type[Exception]]:
    return [
        kind
        for module in (botocore.exceptions, boto3.exceptions, urllib3.exceptions)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception)
        and not issubclass(kind, Warning | ClientError)
        and kind.__module__ == module.__name__
        and kind.__name__ not in NEVER_SEEN
    ]


@pytest.mark.parametrize("kind", vendor_errors(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_error_of_boto3_and_its_parts_becomes_one_of_ours(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    with pytest.raises(TrivetError) as caught, ERRORS.during("write", "some/key"):
        raise error
    assert "http://s3.example:8333" in caught.value.message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("status", "code", "options", "kind"),
    [
        (412, "PreconditionFailed", {"conditional": True}, StoreConflict),
        (409, "ConditionalRequestConflict", {"conditional": True}, StoreConflict),
        (404, "NoSuchKey", {"conditional": True}, StoreConflict),
        (409, "OperationAborted", {}, StoreUnavailable),
        (404, "NoSuchKey", {}, NotInStore),
        (404, "404", {}, NotInStore),
        (404, "NoSuchBucket", {}, StoreForbidden),
        (404, "NoSuchBucket", {"conditional": True}, StoreForbidden),
        (404, "404", {"bucket": True}, StoreForbidden),
        (403, "AccessDenied", {}, StoreForbidden),
        (403, "InvalidAccessKeyId", {}, StoreForbidden),
        (403, "SignatureDoesNotMatch", {"conditional": True}, StoreForbidden),
        (401, "Unauthorized", {}, StoreForbidden),
        (400, "ExpiredToken", {}, StoreForbidden),
        (400, "AuthorizationHeaderMalformed", {}, StoreForbidden),
        (301, "PermanentRedirect", {}, StoreForbidden),
        (400, "RequestTimeout", {}, StoreUnavailable),
        (400, "BadDigest", {"conditional": True}, StoreUnavailable),
        (429, "TooManyRequests", {}, StoreUnavailable),
        (500, "InternalError", {"conditional": True}, StoreUnavailable),
        (503, "SlowDown", {}, StoreUnavailable),
        (507, "", {}, StoreUnavailable),
        (0, "", {}, StoreUnavailable),
        (400, "KeyTooLongError", {}, InvalidRequest),
        (400, "EntityTooLarge", {}, InvalidRequest),
    ],
)
def test_an_answer_is_told_apart_by_status_and_code(
    status: int, code: str, options: dict[str, bool], kind: type[TrivetError]
) -> None:
    answer: Any = {"Error": {"Code": code, "Message": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(TrivetError) as caught, ERRORS.during("write", "some/key", **options):
        raise ClientError(answer, "PutObject")
    assert type(caught.value) is kind
    assert "S3 at http://s3.example:8333" in caught.value.message
    assert "\n" not in caught.value.message
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_404_to_a_plain_read_that_says_conditional_is_still_not_in_store() -> None:
    answer: Any = {"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
    with pytest.raises(NotInStore), ERRORS.during("read", "k", conditional=True):
        raise ClientError(answer, "GetObject")


def test_a_failed_upload_is_told_by_what_the_store_answered() -> None:
    answer: Any = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    error = boto3.exceptions.S3UploadFailedError("failed")
    error.__context__ = ClientError(answer, "UploadPart")
    with pytest.raises(StoreForbidden), ERRORS.during("write", "k"):
        raise error


def test_our_own_errors_and_bugs_pass_untouched() -> None:
    with pytest.raises(ZeroDivisionError), ERRORS.during("read", "k"):
        _ = 1 / 0
    with pytest.raises(StoreConflict, match="mine"), ERRORS.during("read", "k"):
        raise StoreConflict("mine")


@pytest.mark.parametrize("endpoint", ["not a url", "http://", "127.0.0.1:8333", "http://[::1"])
def test_an_endpoint_that_is_no_url_is_an_invalid_request(endpoint: str) -> None:
    store = S3Store(Settings(s3_endpoint=endpoint, s3_access_key="a", s3_secret_key=SecretStr("b")))
    with pytest.raises(InvalidRequest, match="endpoint"):
        store.get("key")


def test_user_info_in_the_endpoint_is_never_shown() -> None:
    store = S3Store(Settings(s3_endpoint="http://user:hunter2@127.0.0.1:9/?token=hunter2"))
    assert "hunter2" not in store.endpoint

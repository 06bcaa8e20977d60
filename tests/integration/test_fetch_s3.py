"""s3: sources against a real S3."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest

from trivet.clock import ManualClock
from trivet.errors import SourceError, SourceForbidden, SourceNotFound, SourceRefused, SourceUnavailable
from trivet.fetch import fetch
from trivet.fetch.s3 import S3Fetcher
from trivet.settings import Settings


@pytest.fixture
def allowed(settings: Settings) -> Settings:
    """Settings that let the tests' bucket in as a source."""
    return settings.model_copy(update={"allow_buckets": (settings.s3_bucket, "not-there")})


@pytest.fixture
def client(settings: Settings) -> Iterator[Any]:
    made = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
    )
    yield made
    made.close()


def test_an_object_comes_with_all_that_the_store_states(allowed: Settings, client: Any, tmp_path: Path) -> None:
    key = f"{allowed.s3_prefix}/a b+c#d?e%20.md"
    put = client.put_object(
        Bucket=allowed.s3_bucket,
        Key=key,
        Body=b"# Title",
        ContentType="text/markdown; charset=utf-8",
        ContentDisposition='attachment; filename="title.md"',
    )
    found = fetch(allowed, f"s3://{allowed.s3_bucket}/{quote(key)}", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"# Title"
    assert (found.media_type, found.charset, found.filename) == ("text/markdown", "utf-8", "title.md")
    assert found.etag == put["ETag"]
    assert found.last_modified.endswith(" GMT")


def test_an_object_stored_packed_is_unpacked(allowed: Settings, client: Any, tmp_path: Path) -> None:
    key = f"{allowed.s3_prefix}/packed.txt"
    client.put_object(Bucket=allowed.s3_bucket, Key=key, Body=gzip.compress(b"text " * 99), ContentEncoding="gzip")
    assert fetch(allowed, f"s3://{allowed.s3_bucket}/{key}", tmp_path / "x").size == 495


def test_what_is_not_there_is_not_found(allowed: Settings, tmp_path: Path) -> None:
    for url in (f"s3://{allowed.s3_bucket}/no/such/key", "s3://not-there/key"):
        with pytest.raises(SourceNotFound, match="does not exist"):
            fetch(allowed, url, tmp_path / "x")


def test_a_bucket_that_is_not_listed_is_refused_the_stores_own_too(settings: Settings, tmp_path: Path) -> None:
    for url in (f"s3://{settings.s3_bucket}/key", f"s3://{settings.s3_bucket.upper()}/key", "s3://other/key"):
        with pytest.raises(SourceRefused, match="bucket"):
            fetch(settings, url, tmp_path / "x")


@pytest.mark.parametrize(
    "url", ["s3://b", "s3://b/", "s3:///key", "s3://b/a#b", "s3://b/a?x=y", "s3://b/a?versionId=", "s3:b/key"]
)
def test_a_url_that_names_no_object_is_an_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        fetch(Settings(allow_buckets=("b",)), url, tmp_path / "x")


def test_credentials_in_the_url_are_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused) as caught:
        fetch(Settings(allow_buckets=("b",)), "s3://key:secret@b/k", tmp_path / "x")
    assert "secret" not in str(caught.value)


def test_wrong_credentials_are_forbidden(allowed: Settings, tmp_path: Path) -> None:
    wrong = allowed.model_copy(update={"s3_access_key": "somebody-else"})
    with pytest.raises(SourceForbidden):
        fetch(wrong, f"s3://{allowed.s3_bucket}/key", tmp_path / "x")


def test_no_credentials_at_all_are_one_sentence(allowed: Settings, tmp_path: Path) -> None:
    none = allowed.model_copy(update={"s3_access_key": "", "s3_secret_key": type(allowed.s3_secret_key)("")})
    with pytest.raises(SourceForbidden, match="no credentials"):
        fetch(none, f"s3://{allowed.s3_bucket}/key", tmp_path / "x")


def test_a_store_that_does_not_answer_may_do_so_later(allowed: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    away = allowed.model_copy(update={"s3_endpoint": f"http://127.0.0.1:{port}"})
    with pytest.raises(SourceUnavailable, match="does not answer"):
        fetch(away, f"s3://{allowed.s3_bucket}/key", tmp_path / "x")


def test_the_total_time_ends_a_long_download(allowed: Settings, client: Any, tmp_path: Path) -> None:
    class Hurried(ManualClock):
        def monotonic(self) -> float:
            self.advance(200)
            return super().monotonic()

    key = f"{allowed.s3_prefix}/long.txt"
    client.put_object(Bucket=allowed.s3_bucket, Key=key, Body=b"x" * 300_000)
    with pytest.raises(SourceUnavailable, match="within 300 s"):
        S3Fetcher(allowed, clock=Hurried()).fetch(f"s3://{allowed.s3_bucket}/{key}", tmp_path / "x")
    assert not (tmp_path / "x").exists()

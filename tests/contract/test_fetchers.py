"""What every fetcher promises, whatever the scheme: http on a real server, s3 on a real S3, data and file."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import boto3
import pytest

from tests.support.web import Server, answer
from trivet.errors import SourceNotFound, SourceRefused, SourceTooLarge
from trivet.fetch import fetch
from trivet.settings import Settings


class Place(Protocol):
    """Somewhere that sources lie, and the settings that let them in."""

    settings: Settings
    #: Whether the place states types and whether it can be forbidden or lack a source: a data: URL can not.
    states_types: bool
    guarded: bool

    def put(self, name: str, body: bytes, content_type: str) -> str: ...


class Web:
    states_types = guarded = True

    def __init__(self) -> None:
        self.server = Server({})
        self.settings = Settings(allow_addresses=(self.server.place,))

    def put(self, name: str, body: bytes, content_type: str) -> str:
        path = "/" + quote(name)
        self.server.pages[path] = answer(body, Content_Type=content_type, ETag='"1"')
        return self.server.url(path)


class Bucket:
    states_types = guarded = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.model_copy(update={"allow_buckets": (settings.s3_bucket,)})
        self.client = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            region_name=settings.s3_region,
            aws_access_key_id=settings.s3_access_key,
            aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
        )

    def put(self, name: str, body: bytes, content_type: str) -> str:
        key = f"{self.settings.s3_prefix}/sources/{name}"
        self.client.put_object(Bucket=self.settings.s3_bucket, Key=key, Body=body, ContentType=content_type)
        return f"s3://{self.settings.s3_bucket}/{quote(key)}"


class Data:
    states_types, guarded = True, False

    def __init__(self) -> None:
        self.settings = Settings()

    def put(self, name: str, body: bytes, content_type: str) -> str:
        return f"data:{content_type};base64,{base64.b64encode(body).decode()}"


class Folder:
    states_types, guarded = False, True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(allow_file_urls=True)

    def put(self, name: str, body: bytes, content_type: str) -> str:
        path = self.folder / name
        path.write_bytes(body)
        return path.as_uri()


@pytest.fixture(params=["http", "s3", "data", "file"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if request.param == "http":
        web = Web()
        yield web
        web.server.close()
    elif request.param == "s3":
        bucket = Bucket(request.getfixturevalue("settings"))
        yield bucket
        bucket.client.close()
    else:
        yield Data() if request.param == "data" else Folder(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "source"


def test_the_bytes_arrive_as_they_are_with_their_size_and_hash(place: Place, target: Path) -> None:
    body = secrets.token_bytes(300_001)
    found = fetch(place.settings, place.put("a.bin", body, "application/octet-stream"), target)
    assert target.read_bytes() == body
    assert (found.path, found.size, found.sha256) == (target, len(body), hashlib.sha256(body).hexdigest())
    assert [path.name for path in target.parent.iterdir()] == ["source"]


def test_a_second_fetch_gives_the_same_and_replaces_what_was_there(place: Place, target: Path) -> None:
    target.write_bytes(b"something longer that was there before")
    url = place.put("a.txt", b"short", "text/plain")
    first = fetch(place.settings, url, target)
    assert target.read_bytes() == b"short"
    assert fetch(place.settings, url, target) == first


def test_an_empty_source_is_fetched_as_empty(place: Place, target: Path) -> None:
    assert fetch(place.settings, place.put("empty.txt", b"", "text/plain"), target).size == 0
    assert target.read_bytes() == b""


def test_a_source_of_the_limit_passes_and_one_byte_more_leaves_nothing(place: Place, target: Path) -> None:
    settings = place.settings.model_copy(update={"source_max_bytes": 1000})
    assert fetch(settings, place.put("a.txt", b"x" * 1000, "text/plain"), target).size == 1000
    target.unlink()
    with pytest.raises(SourceTooLarge, match="1,000 bytes"):
        fetch(settings, place.put("b.txt", b"x" * 1001, "text/plain"), target)
    assert not target.exists()


def test_type_and_charset_are_as_stated(place: Place, target: Path) -> None:
    found = fetch(place.settings, place.put("a.html", b"<p>", "Text/HTML;charset=UTF-8"), target)
    assert (found.media_type, found.charset) == (("text/html", "utf-8") if place.states_types else ("", ""))


def test_a_name_in_any_script_comes_back(place: Place, target: Path) -> None:
    name = "über 100% #1 & 日本.txt"
    found = fetch(place.settings, place.put(name, b"x", "text/plain"), target)
    assert found.filename == (name if place.guarded else "")


def test_a_missing_source_is_not_found(place: Place, target: Path) -> None:
    if not place.guarded:
        return
    url = place.put("a.txt", b"x", "text/plain").replace("a.txt", "b.txt")
    with pytest.raises(SourceNotFound):
        fetch(place.settings, url, target)
    assert not target.exists()


def test_without_leave_nothing_is_fetched(place: Place, target: Path) -> None:
    if not place.guarded:
        return
    url = place.put("a.txt", b"x", "text/plain")
    closed = place.settings.model_copy(
        update={"allow_addresses": (), "allow_buckets": ("other",), "allow_file_urls": False}
    )
    with pytest.raises(SourceRefused):
        fetch(closed, url, target)
    assert not target.exists()

"""data: and file: sources."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.errors import SourceError, SourceForbidden, SourceNotFound, SourceRefused, SourceTooLarge
from trivet.fetch import fetch
from trivet.fetch.data import DataFetcher
from trivet.settings import Settings

OPEN = Settings(allow_file_urls=True)


@pytest.mark.parametrize(
    ("url", "body", "media_type", "charset"),
    [
        ("data:,Hello%2C%20World", b"Hello, World", "text/plain", "us-ascii"),
        ("data:text/html;charset=utf-8,<p>Gr%C3%BC%C3%9Fe", "<p>Grüße".encode(), "text/html", "utf-8"),
        ("data:text/plain,Grüße", "Grüße".encode(), "text/plain", ""),
        ("data:;charset=utf-8,x", b"x", "text/plain", "utf-8"),
        ("data:text/markdown;base64,IyBIaQ==", b"# Hi", "text/markdown", ""),
        ("data:text/markdown;BASE64,IyBIaQ", b"# Hi", "text/markdown", ""),
        ("data:;base64,_-8", b"\xff\xef", "text/plain", "us-ascii"),
        ("data:;base64,IyBI%0AaQ%3D%3D", b"# Hi", "text/plain", "us-ascii"),
        ("data:text/markdown,# One\n# Two, three", b"# One\n# Two, three", "text/markdown", ""),
        ("DATA:,x", b"x", "text/plain", "us-ascii"),
        ("data:,", b"", "text/plain", "us-ascii"),
    ],
)
def test_data_urls_are_read_as_rfc_2397_says(
    tmp_path: Path, url: str, body: bytes, media_type: str, charset: str
) -> None:
    found = fetch(Settings(), url, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == body
    assert (found.media_type, found.charset, found.filename) == (media_type, charset, "")
    assert found.final_url.endswith(",…"), "the data must not come back as a URL"


@pytest.mark.parametrize("url", ["data:text/plain", "data:", "data:;base64,@@@", "data:;base64,A", "data:;base64,AA=A"])
def test_broken_data_urls_are_errors_that_do_not_repeat_the_data(tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceError) as caught:
        fetch(Settings(), url, tmp_path / "x")
    assert "@@@" not in str(caught.value)
    assert not (tmp_path / "x").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(url=st.text(max_size=100))
def test_no_data_url_raises_anything_else(tmp_path: Path, url: str) -> None:
    try:
        found = DataFetcher(Settings()).fetch("data:" + url, tmp_path / "x")
    except SourceError:
        return
    assert found.size == (tmp_path / "x").stat().st_size


def test_data_over_the_limit_are_refused(tmp_path: Path) -> None:
    small = Settings(source_max_bytes=10)
    assert fetch(small, "data:,%30%30%30%30%30%30%30%30%30%30", tmp_path / "x").size == 10
    for url in ("data:,12345678901", "data:," + "x" * 1000):
        with pytest.raises(SourceTooLarge):
            fetch(small, url, tmp_path / "x")


def test_a_file_is_refused_unless_files_are_let_in(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(SourceRefused, match="not let in"):
        fetch(Settings(), (tmp_path / "a").as_uri(), tmp_path / "x")
    assert fetch(OPEN, (tmp_path / "a").as_uri(), tmp_path / "x").size == 1
    assert fetch(OPEN, f"file://localhost{tmp_path}/a", tmp_path / "x").size == 1


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
            with pytest.raises(SourceRefused, match="not a file"):
                fetch(OPEN, path.as_uri(), tmp_path / "x")
        with pytest.raises(SourceError, match="cannot be opened"):
            fetch(OPEN, (tmp_path / "socket").as_uri(), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_link_is_followed_to_its_file_and_a_dangling_one_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    assert fetch(OPEN, (tmp_path / "link").as_uri(), tmp_path / "x").filename == "link"
    with pytest.raises(SourceNotFound):
        fetch(OPEN, (tmp_path / "dangling").as_uri(), tmp_path / "x")
    with pytest.raises(SourceError):
        fetch(OPEN, (tmp_path / "self").as_uri(), tmp_path / "x")


def test_a_file_that_grows_past_its_size_is_still_held_to_the_limit(tmp_path: Path) -> None:
    # The kernel states size 0 for files under /proc.
    with pytest.raises(SourceTooLarge):
        fetch(Settings(allow_file_urls=True, source_max_bytes=10), "file:///proc/self/status", tmp_path / "x")


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("file://server/share/a", SourceRefused),
        ("file:relative", SourceError),
        ("file:///a%00b", SourceError),
        ("file:///a?b", SourceError),
        ("file:///a#b", SourceError),
        ("file:///no/such/file", SourceNotFound),
        ("file:///etc/passwd/x", SourceNotFound),
        ("file:///" + "a" * 5000, SourceError),
        ("file:", SourceError),
    ],
)
def test_odd_file_urls_are_errors(tmp_path: Path, url: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        fetch(OPEN, url, tmp_path / "x")


def test_a_file_without_leave_to_read_is_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("trivet.fetch.file.os.open", denied)
    with pytest.raises(SourceForbidden, match="may not be read"):
        fetch(OPEN, (tmp_path / "a").as_uri(), tmp_path / "x")

"""Bytes from a source to a file, within limits."""

from __future__ import annotations

import gzip
import hashlib
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trivet.errors import CorruptDocument, SourceError, SourceTooLarge, SourceUnavailable
from trivet.fetch.body import encoding_of, save

URL = "https://source/x"
MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def cut(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def bare(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


@MANY
@example(b"", 1, "bare")
@given(st.binary(max_size=2000), st.integers(1, 300), st.sampled_from(["", "gzip", "two", "zlib", "bare"]))
def test_what_is_written_is_what_was_meant_however_it_is_cut(tmp_path: Path, data: bytes, size: int, how: str) -> None:
    half = len(data) // 2
    encoding, sent = {
        "": ("", data),
        "gzip": ("gzip", gzip.compress(data)),
        "two": ("gzip", gzip.compress(data[:half]) + gzip.compress(data[half:]) + b"\0" * 7),
        "zlib": ("deflate", zlib.compress(data)),
        "bare": ("deflate", bare(data)),
    }[how]
    target = tmp_path / "x"
    found = save(cut(sent, size), target, url=URL, max_bytes=100_000, encoding=encoding)
    assert target.read_bytes() == data
    assert found == (len(data), hashlib.sha256(data).hexdigest())


def test_a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not(tmp_path: Path) -> None:
    assert save([b"x" * 10], tmp_path / "x", url=URL, max_bytes=10)[0] == 10
    with pytest.raises(SourceTooLarge):
        save([b"x" * 10, b"x"], tmp_path / "y", url=URL, max_bytes=10)
    assert not (tmp_path / "y").exists()


def test_a_bomb_is_stopped_by_its_ratio_and_by_its_size_in_little_memory(tmp_path: Path) -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    tracemalloc.start()
    with pytest.raises(SourceTooLarge, match="100 times"):
        save([bomb], tmp_path / "x", url=URL, max_bytes=1 << 30, encoding="gzip")
    with pytest.raises(SourceTooLarge, match="larger than"):
        save([bomb], tmp_path / "x", url=URL, max_bytes=1 << 20, encoding="gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    assert list(tmp_path.iterdir()) == []


def test_text_that_packs_well_is_no_bomb(tmp_path: Path) -> None:
    text = b"all work and no play makes jack a dull boy\n" * 20_000
    assert save([gzip.compress(text)], tmp_path / "x", url=URL, max_bytes=1 << 20, encoding="gzip")[0] == len(text)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bytes_that_are_not_packed_as_stated_are_corrupt(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(CorruptDocument):
        save([b"\xff\xffplain text, not packed"], tmp_path / "x", url=URL, max_bytes=1000, encoding=encoding)


def test_a_packed_body_that_breaks_off_may_come_whole_next_time(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="middle"):
        save([gzip.compress(b"text" * 1000)[:-9]], tmp_path / "x", url=URL, max_bytes=10_000, encoding="gzip")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_body_is_empty_whatever_its_encoding(tmp_path: Path) -> None:
    assert save([], tmp_path / "x", url=URL, max_bytes=10, encoding="gzip")[0] == 0


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", ""),
        ("identity", ""),
        ("gzip", "gzip"),
        ("X-GZIP", "gzip"),
        ("deflate", "deflate"),
        ("identity, gzip", "gzip"),
    ],
)
def test_known_content_encodings_are_read(header: str, encoding: str) -> None:
    assert encoding_of(header, URL) == encoding


@pytest.mark.parametrize("header", ["br", "zstd", "gzip, gzip", "compress", "gzip;q=1"])
def test_other_content_encodings_are_refused(header: str) -> None:
    with pytest.raises(SourceError, match="content encoding"):
        encoding_of(header, URL)

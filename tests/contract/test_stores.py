"""What every object store must hold, the real one and its twin."""

from __future__ import annotations

import hashlib
import io
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from trivet.errors import NotInStore, StoreConflict, StoreUnavailable
from trivet.stores import ObjectStore
from trivet.stores.memory import MemoryStore
from trivet.stores.selftest import check_conditional_writes

KEYS = [
    "plain",
    "sub/a+b",
    "sub/a:b",
    "sub/a@b",
    "sub/a~b",
    "sub/a b",
    "sub/100%25",
    "日本語/ü ñ",
    "quo\"te's",
    "#x?y=1&z",
]


@pytest.fixture(params=["memory", "s3"])
def held(request: pytest.FixtureRequest) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else request.getfixturevalue("store")


@pytest.fixture
def base() -> str:
    return f"contract/{uuid.uuid4().hex}/"


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_what_is_put_is_got_with_its_size_and_checksum(held: ObjectStore, base: str) -> None:
    put = held.put(base + "a", b"hello", sha256=sha(b"hello"))
    body, got = held.get(base + "a")
    assert body == b"hello"
    assert put == got == held.head(base + "a")
    assert (got.key, got.size, got.sha256) == (base + "a", 5, sha(b"hello"))
    assert '"' not in got.etag


def test_without_a_checksum_none_is_reported(held: ObjectStore, base: str) -> None:
    held.put(base + "a", b"hello")
    assert held.head(base + "a").sha256 == ""


def test_bytes_that_do_not_match_their_checksum_are_not_stored(held: ObjectStore, base: str) -> None:
    with pytest.raises(StoreUnavailable):
        held.put(base + "a", b"hello", sha256=sha(b"other"))
    with pytest.raises(NotInStore):
        held.head(base + "a")


@pytest.mark.parametrize("body", [b"", b"\x00\xff" * 100], ids=["empty", "binary"])
def test_any_bytes_come_back(held: ObjectStore, base: str, body: bytes) -> None:
    held.put(base + "a", body)
    assert held.get(base + "a")[0] == body
    with held.open(base + "a") as file:
        assert file.read() == body


@pytest.mark.parametrize("read", ["get", "head", "open"])
def test_a_missing_key_is_not_in_store(held: ObjectStore, base: str, read: str) -> None:
    with pytest.raises(NotInStore, match="missing"):
        getattr(held, read)(base + "missing")


def test_a_put_without_condition_overwrites(held: ObjectStore, base: str) -> None:
    first = held.put(base + "a", b"1")
    second = held.put(base + "a", b"2")
    assert first.etag != second.etag
    assert held.get(base + "a")[0] == b"2"


def test_if_none_match_writes_only_what_is_absent(held: ObjectStore, base: str) -> None:
    held.put(base + "a", b"1", if_none_match=True)
    with pytest.raises(StoreConflict):
        held.put(base + "a", b"2", if_none_match=True)
    assert held.get(base + "a")[0] == b"1"


def test_if_match_writes_only_over_the_version_it_names(held: ObjectStore, base: str) -> None:
    first = held.put(base + "a", b"1")
    second = held.put(base + "a", b"2", if_match=first.etag)
    with pytest.raises(StoreConflict):
        held.put(base + "a", b"3", if_match=first.etag)
    assert held.get(base + "a") == (b"2", second)


def test_if_match_of_a_missing_key_is_a_conflict(held: ObjectStore, base: str) -> None:
    etag = held.put(base + "a", b"1").etag
    with pytest.raises(StoreConflict):
        held.put(base + "missing", b"2", if_match=etag)


def test_after_a_delete_the_key_is_free_again(held: ObjectStore, base: str) -> None:
    held.put(base + "a", b"1", if_none_match=True)
    held.delete(base + "a")
    held.delete(base + "a")
    assert held.put(base + "a", b"2", if_none_match=True).size == 1


def test_of_eight_racing_writers_exactly_one_wins_each_key(held: ObjectStore, base: str) -> None:
    racers, keys = 8, 5
    barrier = threading.Barrier(racers * keys)

    def race(entry: tuple[int, int]) -> tuple[int, int] | None:
        barrier.wait()
        try:
            held.put(f"{base}{entry[0]}", f"{entry[1]}".encode(), if_none_match=True)
        except StoreConflict:
            return None
        return entry

    with ThreadPoolExecutor(racers * keys) as pool:
        won = [entry for entry in pool.map(race, [(k, r) for r in range(racers) for k in range(keys)]) if entry]
    assert sorted(key for key, _ in won) == list(range(keys))
    for key, racer in won:
        assert held.get(f"{base}{key}")[0] == f"{racer}".encode()


def test_compare_and_swap_loses_no_increment(held: ObjectStore, base: str) -> None:
    key = base + "counter"
    held.put(key, b"0")

    def add(_: int) -> None:
        for _ in range(4):
            while True:
                body, stored = held.get(key)
                try:
                    held.put(key, str(int(body) + 1).encode(), if_match=stored.etag)
                except StoreConflict:
                    continue
                break

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert held.get(key)[0] == b"16"


def test_keys_in_any_script_are_kept_as_they_are(held: ObjectStore, base: str) -> None:
    for key in KEYS:
        held.put(base + key, key.encode())
    assert {found.key for found in held.list(base)} == {base + key for key in KEYS}
    for key in KEYS:
        assert held.get(base + key)[0] == key.encode()


def test_a_listing_has_all_keys_under_the_prefix_and_no_others(held: ObjectStore, base: str) -> None:
    for key in ("x/b", "x/a", "x/c/d", "xy", "x"):
        held.put(base + key, b"123")
    found = list(held.list(base + "x/"))
    assert {stored.key for stored in found} == {base + "x/a", base + "x/b", base + "x/c/d"}
    assert [stored.size for stored in found] == [3, 3, 3]
    assert [stored.etag for stored in found] == [held.head(stored.key).etag for stored in found]
    assert list(held.list(base + "none/")) == []
    assert {stored.key for stored in held.list(base + "x")} == {base + k for k in ("x/b", "x/a", "x/c/d", "xy", "x")}


def test_the_keys_of_one_folder_are_listed_in_byte_order(held: ObjectStore, base: str) -> None:
    names = ["a", "B", "a-b", "a.b", "a0", "10", "9", "é", "日"]
    for name in names:
        held.put(base + name, b"")
    assert [found.key for found in held.list(base)] == [base + name for name in sorted(names, key=str.encode)]


def test_a_listing_and_a_read_say_when_it_was_written(held: ObjectStore, base: str) -> None:
    before = time.time()
    held.put(base + "d/a", b"1")
    (listed,) = held.list(base + "d/")
    # S3 tells whole seconds.
    assert before - 1 <= listed.modified <= time.time() + 1
    assert int(held.get(base + "d/a")[1].modified) == int(held.head(base + "d/a").modified) == int(listed.modified)
    (folder,) = held.list(base, delimiter="/")
    assert folder.modified == 0


def test_aborting_uploads_where_there_are_none_is_harmless(held: ObjectStore, base: str) -> None:
    assert held.abort_uploads(base, time.time() + 60) == 0


def test_a_delimiter_folds_folders_into_their_common_prefix(held: ObjectStore, base: str) -> None:
    for key in ("g/1/m", "g/1/p", "g/2/m", "g/10/m", "g/note"):
        held.put(base + key, b"1")
    found = list(held.list(base + "g/", delimiter="/"))
    assert [stored.key.removeprefix(base) for stored in found] == ["g/1/", "g/10/", "g/2/", "g/note"]
    assert [stored.size for stored in found] == [0, 0, 0, 1]


def test_a_listing_of_more_than_one_page_is_complete(held: ObjectStore, base: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: held.put(f"{base}{n // 600}/{n:04}", b""), range(1201)))
    assert sum(1 for _ in held.list(base)) == 1201
    assert len(list(held.list(base, delimiter="/"))) == 3


def test_open_reads_any_range_and_seeks(held: ObjectStore, base: str) -> None:
    body = bytes(range(256)) * 4096
    held.put(base + "a", body)
    with held.open(base + "a") as file:
        assert file.seekable()
        assert file.seek(-4, io.SEEK_END) == len(body) - 4
        assert file.read() == body[-4:]
        assert file.read() == b""
        file.seek(70_000)
        assert file.read(600_000) == body[70_000:670_000]
        file.seek(10, io.SEEK_CUR)
        assert file.tell() == 670_010
        assert file.read(1) == body[670_010:670_011]
        file.seek(len(body) + 100)
        assert file.read(5) == b""


def test_a_file_of_many_mebibytes_is_uploaded_and_stays_open(held: ObjectStore, base: str) -> None:
    body = hashlib.shake_128(b"seed").digest(1 << 20) * 20
    file = io.BytesIO(body)
    stored = held.upload(base + "big", file, sha256=sha(body))
    assert not file.closed
    assert (stored.size, stored.sha256) == (len(body), sha(body))
    assert held.head(base + "big") == stored
    with held.open(base + "big") as reader:
        digest = hashlib.sha256()
        while block := reader.read(3_000_001):
            digest.update(block)
    assert digest.hexdigest() == sha(body)


def test_an_empty_file_is_uploaded(held: ObjectStore, base: str) -> None:
    assert held.upload(base + "empty", io.BytesIO()).size == 0


def test_a_store_with_conditions_passes_the_self_test_and_keeps_nothing_of_it(held: ObjectStore, base: str) -> None:
    check_conditional_writes(held, base)
    assert list(held.list(base)) == []


def test_ensuring_the_bucket_twice_is_harmless(held: ObjectStore) -> None:
    held.ensure_bucket()
    held.ensure_bucket()


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=2000), reads=st.lists(st.tuples(st.integers(0, 2100), st.integers(0, 2100)), max_size=4))
def test_a_reader_agrees_with_bytes(held: ObjectStore, base: str, body: bytes, reads: list[tuple[int, int]]) -> None:
    held.put(base + "any", body)
    with held.open(base + "any") as file:
        for start, size in reads:
            file.seek(start)
            assert file.read(size) == body[start : start + size]

"""Key names on S3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.ids import check_name, check_object_id
from trivet.settings import Settings
from trivet.stores.layout import Layout

LAYOUT = Layout("v1", "acme", "docs")
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
object_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._~:@+-]{0,127}", fullmatch=True)
hashes = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)


def test_keys_are_named_as_the_design_says() -> None:
    assert LAYOUT.spec("5bec") == "v1/acme/docs/specs/5bec.json"
    assert LAYOUT.snapshot() == "v1/acme/docs/snapshot.json"
    assert LAYOUT.current("o") == "v1/acme/docs/objects/o/current.json"
    assert LAYOUT.raw("o", "aa") == "v1/acme/docs/objects/o/raw/aa"
    assert LAYOUT.plan("o", "aa", "5bec") == "v1/acme/docs/objects/o/plan/aa-5bec/plan.json"
    assert LAYOUT.staged("o", "aa", "5bec", 3, "ff") == "v1/acme/docs/objects/o/plan/aa-5bec/3-ff.parquet"
    assert LAYOUT.part("o", 7, 3, "ff") == "v1/acme/docs/objects/o/g/7/part-3-ff.parquet"
    assert LAYOUT.manifest("o", 7) == "v1/acme/docs/objects/o/g/7/manifest.json"


@pytest.mark.parametrize("prefix", ["", "/", "v1", "/v1/", "a/b"])
def test_no_key_begins_with_a_slash_or_has_two(prefix: str) -> None:
    key = Layout.of(Settings(s3_prefix=prefix), "acme", "docs").manifest("o", 1)
    assert not key.startswith("/")
    assert "//" not in key


@given(namespace=names, collection=names, object_id=object_ids, generation=st.integers(1, 10**15), hashed=hashes)
def test_generation_and_object_are_found_again_in_every_key(
    namespace: str, collection: str, object_id: str, generation: int, hashed: str
) -> None:
    check_name(namespace, "Name")
    check_object_id(object_id)
    for prefix in ("", "v1", "g/1/objects"):
        layout = Layout(prefix, namespace, collection)
        for key in (
            layout.manifest(object_id, generation),
            layout.part(object_id, generation, 0, hashed),
            layout.generation(object_id, generation),
        ):
            assert layout.generation_of(key) == generation
            assert layout.object_of(key) == object_id
        for key in (layout.current(object_id), layout.plan(object_id, hashed, hashed), layout.raw(object_id, hashed)):
            assert layout.generation_of(key) is None
            assert layout.object_of(key) == object_id
        for key in (layout.spec(hashed), layout.snapshot()):
            assert layout.object_of(key) is None


@pytest.mark.parametrize("name", ["0", "01", "-1", "1x", "", "x"])
def test_what_is_no_generation_is_not_taken_for_one(name: str) -> None:
    assert LAYOUT.generation_of(f"{LAYOUT.generations('o')}{name}/manifest.json") is None


@given(one=object_ids, two=object_ids)
def test_no_object_lies_under_another(one: str, two: str) -> None:
    if one != two:
        assert not LAYOUT.current(one).startswith(LAYOUT.object(two))

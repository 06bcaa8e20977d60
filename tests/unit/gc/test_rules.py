"""What is left over of an object: rules over listings, pointers and times, without any server."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.gc.rules import Holdings, holdings, left_over
from trivet.settings import Settings
from trivet.stores import Stored
from trivet.stores.layout import Layout
from trivet.values import Current

LAYOUT = Layout("v1", "default", "docs")
HOUR = 3600.0
NOW = 1000 * HOUR
SETTINGS = Settings(gc_grace_hours=24.0, generation_retention_hours=48.0)


def current(generation: int, source: str = "aa", spec: str = "5bec", *, tombstone: bool = False) -> Current:
    return Current(
        generation=generation,
        manifest=LAYOUT.manifest("o", generation),
        task_id="task_1",
        input_hash="ff",
        source_sha256=source,
        spec_hash=spec,
        tombstone=tombstone,
    )


def held(keys: dict[str, float], object_id: str = "o") -> Holdings:
    """Keys of the object and how many hours ago each was written."""
    listing = [
        Stored(f"{LAYOUT.object(object_id)}{key}", 1, "e", modified=NOW - age * HOUR) for key, age in keys.items()
    ]
    (found,) = holdings(LAYOUT, listing)
    return found


def gone(keys: dict[str, float], pointer: Current | None) -> set[str]:
    """What of the keys may go."""
    folders = left_over(held(keys), pointer, SETTINGS, NOW)
    return {stored.key.removeprefix(LAYOUT.object("o")) for folder in folders for stored in folder.keys}


def generation(number: int, age: float, *, manifest: bool = True) -> dict[str, float]:
    parts = {f"g/{number}/part-0-ab.parquet": age}
    return parts | ({f"g/{number}/manifest.json": age} if manifest else {})


def test_a_replaced_generation_goes_once_it_has_been_replaced_for_long_enough() -> None:
    keys = {"current.json": 0, **generation(1, 900), **generation(2, 47)}
    assert gone(keys, current(2)) == set()
    keys = {"current.json": 0, **generation(1, 900), **generation(2, 49)}
    assert gone(keys, current(2)) == set(generation(1, 0))


def test_a_generation_that_was_replaced_long_ago_goes_although_the_pointer_has_just_moved() -> None:
    keys = {"current.json": 0, **generation(1, 900), **generation(2, 100), **generation(3, 0)}
    assert gone(keys, current(3)) == set(generation(1, 0))


def test_a_pointer_that_is_newer_than_the_listing_removes_nothing() -> None:
    assert gone({"current.json": 0, **generation(1, 900)}, current(2)) == set()


def test_a_generation_without_manifest_or_above_the_visible_one_goes_after_its_grace() -> None:
    keys = {"current.json": 0, **generation(1, 500, manifest=False), **generation(2, 900), **generation(3, 25)}
    assert gone(keys, current(2)) == {*generation(1, 0, manifest=False), *generation(3, 0)}
    young = {"current.json": 0, **generation(1, 23, manifest=False), **generation(2, 900), **generation(3, 23)}
    assert gone(young, current(2)) == set()


def test_a_generation_is_as_young_as_its_youngest_key() -> None:
    keys = {"g/1/part-0-ab.parquet": 900.0, "g/1/part-1-cd.parquet": 1.0}
    assert gone(keys, None) == set()


def test_of_an_object_that_was_never_visible_all_goes_after_its_grace() -> None:
    keys = {**generation(1, 30), "plan/aa-5bec/plan.json": 30, "raw/aa": 30, "plan/bb-5bec/0-ff.parquet": 3}
    assert gone(keys, None) == {*generation(1, 0), "plan/aa-5bec/plan.json", "raw/aa"}


def test_the_plan_and_raw_bytes_of_what_is_visible_stay_whatever_type_was_stated() -> None:
    keys = {
        "current.json": 900,
        **generation(1, 900),
        "plan/aa-5bec/plan.json": 900,
        "plan/aa.12345678-5bec/plan.json": 900,
        "plan/aa-0000/plan.json": 900,
        "plan/ab-5bec/plan.json": 900,
        "raw/aa": 900,
        "raw/ab": 900,
    }
    assert gone(keys, current(1)) == {"plan/aa-0000/plan.json", "plan/ab-5bec/plan.json", "raw/ab"}


def test_raw_bytes_stay_while_another_generation_does() -> None:
    keys = {"current.json": 1, **generation(1, 900), **generation(2, 1), "raw/aa": 1, "raw/bb": 900}
    assert gone(keys, current(2)) == set()


def test_under_a_tombstone_only_the_tombstone_stays() -> None:
    keys = {
        "current.json": 50,
        **generation(1, 900),
        "g/2/manifest.json": 50,
        "raw/aa": 900,
        "plan/aa-5bec/plan.json": 900,
    }
    assert gone(keys, current(2, source="", spec="", tombstone=True)) == set(keys) - {
        "current.json",
        "g/2/manifest.json",
    }


def test_a_manifest_or_seal_goes_before_what_it_lists() -> None:
    keys = {**generation(1, 900), "plan/aa-5bec/0-ff.parquet": 900, "plan/aa-5bec/plan.json": 900}
    firsts = [folder.keys[0].key.rsplit("/", 1)[1] for folder in left_over(held(keys), None, SETTINGS, NOW)]
    assert firsts == ["manifest.json", "plan.json"]


@pytest.mark.parametrize("name", ["note", "g/x/part", "g/0/part", "plan/x", "plan/a/b/c", "raw/a/b", "raw.txt"])
def test_what_is_none_of_ours_is_never_named(name: str) -> None:
    assert gone({name: 900, "raw/aa": 900}, None) == {"raw/aa"}


def test_one_visible_generation_with_its_plan_and_bytes_is_tidy() -> None:
    keys = {"current.json": 1, **generation(3, 1), "plan/aa-5bec/plan.json": 1, "raw/aa": 1}
    assert held(keys).tidy
    assert not held({**keys, "raw/bb": 1}).tidy
    assert not held({key: age for key, age in keys.items() if key != "current.json"}).tidy


def test_a_listing_falls_apart_into_its_objects() -> None:
    keys = [f"{LAYOUT.object(name)}raw/{n}" for name in ("a", "b", "c") for n in range(3)]
    found = list(holdings(LAYOUT, [Stored(key, 1, "e") for key in keys]))
    assert [(one.object_id, len(one.raw)) for one in found] == [("a", 3), ("b", 3), ("c", 3)]


_AGES = st.floats(0, 2000)
_KEYS = st.dictionaries(
    st.sampled_from(
        [
            "current.json",
            "raw/aa",
            "raw/bb",
            "plan/aa-5bec/plan.json",
            "plan/bb-5bec/0-ff.parquet",
            "plan/bb-5bec/plan.json",
        ]
        + [f"g/{n}/{name}" for n in range(1, 6) for name in ("manifest.json", "part-0-ab.parquet", "part-1-ab.parquet")]
    ),
    _AGES,
    min_size=1,
)


@given(_KEYS, st.none() | st.integers(1, 6), st.booleans())
def test_whatever_is_listed_the_visible_generation_and_what_is_young_stays(
    keys: dict[str, float], visible: int | None, tombstone: bool
) -> None:
    pointer = None if visible is None else current(visible, tombstone=tombstone)
    named = gone(keys, pointer)
    assert named <= set(keys) - {"current.json"}
    assert not any(keys[key] < 24 for key in named if not key.startswith("g/"))
    if visible is not None:
        assert not {key for key in named if key.startswith(f"g/{visible}/")}
        assert named.isdisjoint({"raw/aa", "plan/aa-5bec/plan.json"})
        assert not any(keys[key] < 24 for key in _of(named, range(visible + 1, 7)))


def _of(keys: Iterable[str], generations: range) -> list[str]:
    return [key for key in keys if key.startswith("g/") and int(key.split("/")[1]) in generations]

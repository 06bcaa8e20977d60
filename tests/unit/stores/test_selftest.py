"""The self-test finds stores that ignore conditions."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.commits import Wrapped
from trivet.errors import StoreConflict, StoreForbidden, StoreUnconditional
from trivet.stores import Stored
from trivet.stores.memory import MemoryStore
from trivet.stores.selftest import check_conditional_writes


class Ignoring(Wrapped):
    """Writes whatever the conditions named say."""

    def __init__(self, *ignored: str) -> None:
        super().__init__(MemoryStore())
        self.ignored = ignored

    def put(self, key: str, body: bytes, **conditions: Any) -> Stored:
        return self.inner.put(key, body, **{k: v for k, v in conditions.items() if k not in self.ignored})


class Racy(Wrapped):
    """Checks first and writes later, as some emulators do."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())

    def put(self, key: str, body: bytes, *, if_none_match: bool = False, **rest: Any) -> Stored:
        if not if_none_match or "race" not in key:
            return self.inner.put(key, body, if_none_match=if_none_match, **rest)
        there = any(found.key == key for found in self.inner.list(key))
        time.sleep(0.05)
        if there:
            raise StoreConflict("412")
        return self.inner.put(key, body)


class Unmatched(Wrapped):
    """Takes If-Match of a missing key for a plain write."""

    def put(self, key: str, body: bytes, *, if_match: str | None = None, **rest: Any) -> Stored:
        missing = not any(found.key == key for found in self.inner.list(key))
        return self.inner.put(key, body, if_match=None if missing else if_match, **rest)


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (Ignoring("if_none_match"), "If-None-Match"),
        (Ignoring("if_match"), "If-Match"),
        (Ignoring("if_none_match", "if_match"), "If-None-Match"),
        (Unmatched(MemoryStore()), "If-Match"),
        (Racy(), "race"),
    ],
    ids=["no if-none-match", "no if-match", "neither", "if-match creates", "racy"],
)
def test_a_store_that_ignores_a_condition_is_refused_and_left_clean(store: Wrapped, message: str) -> None:
    with pytest.raises(StoreUnconditional, match=message) as caught:
        check_conditional_writes(store, "v1")
    assert caught.value.hint
    assert list(store.list("")) == []


def test_credentials_that_may_not_delete_pass() -> None:
    class Keeping(Wrapped):
        def delete(self, key: str) -> None:
            raise StoreForbidden("no")

    store = Keeping(MemoryStore())
    check_conditional_writes(store, "v1", token=lambda: "once")
    check_conditional_writes(store, "v1", token=lambda: "twice")
    assert all(found.key.startswith("v1/_selftest/") for found in store.list(""))

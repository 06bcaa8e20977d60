"""Refuse a store on which a commit would not be atomic."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from trivet.errors import StoreConflict, StoreForbidden, StoreUnconditional
from trivet.stores import ObjectStore

_RACERS = 3
_RACES = 4


def check_conditional_writes(
    store: ObjectStore, prefix: str, *, token: Callable[[], str] = lambda: secrets.token_hex(8)
) -> None:
    """Write a few small keys under `{prefix}/_selftest/` with and against conditions, in races too.

    Takes about 30 requests and 1 to 3 seconds; the keys are removed again where the credentials allow it. (No
    namespace starts with `_`.) Raises `StoreUnconditional` with the condition that was ignored, and what the store
    itself raises.
    """
    base = "/".join(part for part in (prefix.strip("/"), "_selftest", token()) if part)
    keys = [f"{base}/condition", f"{base}/missing", *(f"{base}/race-{n}" for n in range(_RACES))]
    try:
        _check_one_writer(store, keys[0], keys[1])
        _check_races(store, keys[2:])
    finally:
        for key in keys:
            with suppress(StoreForbidden):
                store.delete(key)


def _check_one_writer(store: ObjectStore, key: str, missing: str) -> None:
    first = store.put(key, b"first", if_none_match=True)
    _must_conflict("If-None-Match: *", lambda: store.put(key, b"second", if_none_match=True))
    if store.get(key)[0] != b"first":
        raise _ignored("If-None-Match: *")
    second = store.put(key, b"second", if_match=first.etag)
    _must_conflict("If-Match", lambda: store.put(key, b"third", if_match=first.etag))
    body, stored = store.get(key)
    if body != b"second" or stored.etag != second.etag:
        raise _ignored("If-Match")
    _must_conflict("If-Match", lambda: store.put(missing, b"fourth", if_match=second.etag))


def _check_races(store: ObjectStore, keys: Sequence[str]) -> None:
    def write(race: tuple[str, int]) -> tuple[str, int] | None:
        key, racer = race
        try:
            store.put(key, str(racer).encode(), if_none_match=True)
        except StoreConflict:
            return None
        return race

    # All at once: a store may queue the writers of one key behind a lock (SeaweedFS: for about a second each).
    with ThreadPoolExecutor(_RACERS * len(keys)) as pool:
        won = [race for race in pool.map(write, [(key, racer) for racer in range(_RACERS) for key in keys]) if race]
    for key in keys:
        winners = [racer for winner, racer in won if winner == key]
        # A retried request may conflict with itself, so that nobody won proves nothing; that two did proves it all.
        if len(winners) > 1 or (winners and store.get(key)[0] != str(winners[0]).encode()):
            raise _ignored("If-None-Match: *", " when writers race")


def _must_conflict(condition: str, write: Callable[[], object]) -> None:
    try:
        write()
    except StoreConflict:
        return
    raise _ignored(condition)


def _ignored(condition: str, when: str = "") -> StoreUnconditional:
    return StoreUnconditional(
        f"The S3 store ignores {condition}{when}, without which a commit is not atomic.",
        hint="Use a store with conditional writes: AWS S3, SeaweedFS ≥ 4, MinIO or R2.",
    )

"""What every book of API keys must do, whichever keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from trivet.clock import Clock, ManualClock, SystemClock
from trivet.errors import InvalidRequest, UnknownKey
from trivet.keys import EVERY_NAMESPACE, MOST_KEYS, ApiKey, KeyBook, KeyHash, KeyLimits, NewKey, Scope
from trivet.keys.memory import MemoryKeys
from trivet.keys.redis import RedisKeys
from trivet.settings import Settings


@dataclass
class Desk:
    book: KeyBook
    clock: Clock

    def add(self, key_id: str = "sk_1", namespace: str = "ns", **more: object) -> ApiKey:
        fields = {"scopes": (Scope.READ,), "hashes": (KeyHash(value="h1"),), **more}
        return self.book.add(NewKey(key_id=key_id, namespace=namespace, **fields))

    def live(self, key_id: str = "sk_1") -> tuple[str, ...]:
        return self.book.key(key_id).live_hashes(self.clock.now())


@pytest.fixture(params=["redis", "memory"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    if request.param == "redis":
        book = RedisKeys(request.getfixturevalue("settings"))
        yield Desk(book, SystemClock())
        book.close()
    else:
        clock = ManualClock()
        yield Desk(MemoryKeys(clock), clock)


def test_a_key_is_kept_as_it_was_made(desk: Desk) -> None:
    limits = KeyLimits(requests_per_minute=5, sources_per_day=0)
    made = desk.add(name="Grüße", scopes=(Scope.ADMIN, Scope.READ), limits=limits, expires_at=desk.clock.now() + 60)
    assert made == desk.book.key("sk_1") == desk.book.keys("ns")[0]
    assert (made.name, made.scopes, made.limits) == ("Grüße", (Scope.ADMIN, Scope.READ), limits)
    assert made.state(desk.clock.now()) == "active"
    assert "h1" not in str(made.public(desk.clock.now()))


def test_the_same_id_twice_changes_nothing(desk: Desk) -> None:
    first = desk.add()
    assert desk.add(hashes=(KeyHash(value="h2"),)) == first


def test_keys_are_listed_by_namespace_oldest_first(desk: Desk) -> None:
    for name, namespace in (("sk_b", "ns"), ("sk_c", "other"), ("sk_a", "ns"), ("sk_d", EVERY_NAMESPACE)):
        desk.add(name, namespace)
        desk.clock.sleep(0.005)
    assert [key.key_id for key in desk.book.keys("ns")] == ["sk_b", "sk_a"]
    assert [key.key_id for key in desk.book.keys(EVERY_NAMESPACE)] == ["sk_d"]


def test_a_key_that_nobody_made_is_unknown(desk: Desk) -> None:
    for call in (
        lambda: desk.book.key("sk_x"),
        lambda: desk.book.rotate("sk_x", "h", 1),
        lambda: desk.book.revoke("sk_x"),
    ):
        with pytest.raises(UnknownKey):
            call()
    desk.book.used("sk_x")
    with pytest.raises(UnknownKey):
        desk.book.key("sk_x")


def test_a_rotated_key_opens_with_both_secrets_until_the_overlap_ends(desk: Desk) -> None:
    desk.add()
    desk.book.rotate("sk_1", "h2", 0.15)
    assert desk.live() == ("h2", "h1")
    desk.clock.sleep(0.2)
    assert desk.live() == ("h2",)


def test_a_rotation_without_overlap_ends_the_old_secret_at_once(desk: Desk) -> None:
    desk.add()
    assert desk.book.rotate("sk_1", "h2", 0).live_hashes(desk.clock.now()) == ("h2",)


def test_the_same_rotation_twice_is_one(desk: Desk) -> None:
    desk.add()
    first = desk.book.rotate("sk_1", "h2", 60)
    assert desk.book.rotate("sk_1", "h2", 60) == first


def test_a_later_rotation_never_prolongs_an_older_secret(desk: Desk) -> None:
    desk.add()
    ends = desk.book.rotate("sk_1", "h2", 60).hashes[1].expires_at
    assert desk.book.rotate("sk_1", "h3", 3600).hashes[2].expires_at == ends


def test_a_revoked_key_opens_nothing_and_stays_listed(desk: Desk) -> None:
    desk.add()
    assert desk.book.revoke("sk_1") is True
    assert desk.book.revoke("sk_1") is False
    key = desk.book.key("sk_1")
    assert (key.state(desk.clock.now()), key.live_hashes(desk.clock.now()), key.hashes) == ("revoked", (), ())
    assert [each.key_id for each in desk.book.keys("ns")] == ["sk_1"]
    with pytest.raises(InvalidRequest):
        desk.book.rotate("sk_1", "h2", 60)


def test_an_expired_key_opens_nothing(desk: Desk) -> None:
    desk.add(expires_at=desk.clock.now() + 0.05)
    desk.clock.sleep(0.1)
    assert desk.live() == ()
    assert desk.book.key("sk_1").state(desk.clock.now()) == "expired"


def test_a_use_is_noted(desk: Desk) -> None:
    assert desk.add().last_used_at is None
    desk.book.used("sk_1")
    assert desk.book.key("sk_1").last_used_at == pytest.approx(desk.clock.now(), abs=5)


def test_a_namespace_has_so_many_keys_and_no_more() -> None:
    desk = Desk(MemoryKeys(clock := ManualClock()), clock)
    for number in range(MOST_KEYS):
        desk.add(f"sk_{number}")
    with pytest.raises(InvalidRequest):
        desk.add("sk_more")
    desk.add("sk_more", "other")


def test_redis_counts_a_namespaces_keys_too(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivet.keys.redis.MOST_KEYS", 2)
    book = RedisKeys(settings)
    desk = Desk(book, SystemClock())
    desk.add("sk_1")
    desk.add("sk_2")
    with pytest.raises(InvalidRequest):
        desk.add("sk_3")
    book.close()

"""What every book of hooks must do, whichever keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from trivet.clock import Clock, ManualClock, SystemClock
from trivet.delivery.values import SigningSecret
from trivet.errors import InvalidRequest, UnknownHook
from trivet.hooks import Hook, HookBook, NewHook, Received
from trivet.hooks.memory import MemoryHooks
from trivet.hooks.redis import RedisHooks

LONG = 60.0
DONE = Received(hook_id="hook_1", kind="push", status="done", ingested=3, ignored=("Why not: Grüße ✓",))


@dataclass
class Desk:
    book: HookBook
    clock: Clock

    def add(self, hook_id: str = "hook_1", namespace: str = "ns", **more: object) -> Hook:
        fields = {"collection": "c", "scheme": "github", "options": {}, **more}
        return self.book.add(NewHook(hook_id=hook_id, namespace=namespace, **fields))


@pytest.fixture(params=["redis", "memory"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    if request.param == "redis":
        book = RedisHooks(request.getfixturevalue("settings"))
        yield Desk(book, SystemClock())
        book.close()
    else:
        clock = ManualClock()
        yield Desk(MemoryHooks(clock), clock)


def test_a_hook_is_kept_as_it_was_made(desk: Desk) -> None:
    secret = SigningSecret(value=SecretStr("hidden-secret"))
    options = {"paths": ["*.md"], "empty": [], "nested": {"a": None}}
    made = desk.add(secrets=(secret,), options=options, description="Grüße")
    assert made == desk.book.hook("hook_1") == desk.book.hooks("ns")[0]
    assert (made.options, made.description, made.last_at) == (options, "Grüße", None)
    assert made.live_secrets(desk.clock.now()) == ("hidden-secret",)
    assert "hidden-secret" not in str(made.public())


def test_the_same_id_twice_changes_nothing(desk: Desk) -> None:
    first = desk.add()
    assert desk.add(collection="other") == first


def test_hooks_are_listed_by_namespace_oldest_first(desk: Desk) -> None:
    for name, namespace in (("hook_b", "ns"), ("hook_c", "other"), ("hook_a", "ns")):
        desk.add(name, namespace)
        desk.clock.sleep(0.005)
    assert [hook.hook_id for hook in desk.book.hooks("ns")] == ["hook_b", "hook_a"]


def test_a_hook_that_is_not_there_is_unknown(desk: Desk) -> None:
    desk.add()
    desk.book.remove("hook_1")
    desk.book.remove("hook_1")
    for call in (lambda: desk.book.hook("hook_1"), lambda: desk.book.rotate_secret("hook_1", "s", 1)):
        with pytest.raises(UnknownHook):
            call()
    assert desk.book.hooks("ns") == []


def test_a_rotated_hook_knows_both_secrets_until_the_overlap_ends(desk: Desk) -> None:
    desk.add(secrets=(SigningSecret(value=SecretStr("one")),))
    made = desk.book.rotate_secret("hook_1", "two", 0.15)
    assert made.live_secrets(desk.clock.now()) == ("two", "one")
    assert desk.book.rotate_secret("hook_1", "two", 0.15) == made
    desk.clock.sleep(0.2)
    assert desk.book.hook("hook_1").live_secrets(desk.clock.now()) == ("two",)


def test_a_delivery_is_worked_on_once_and_known_again(desk: Desk) -> None:
    desk.add()
    assert desk.book.begin("hook_1", "d", "me", LONG).outcome is None
    assert desk.book.begin("hook_1", "d", "you", LONG).busy
    desk.book.finish("hook_1", "d", DONE, LONG)
    desk.book.finish("hook_1", "d", DONE, LONG)
    for owner in ("me", "you"):
        begun = desk.book.begin("hook_1", "d", owner, LONG)
        assert (begun.busy, begun.outcome) == (False, DONE)
    hook = desk.book.hook("hook_1")
    assert hook.last_kind == "push"
    assert hook.last_at == pytest.approx(desk.clock.now(), abs=5)


def test_the_same_owner_may_begin_again(desk: Desk) -> None:
    assert not desk.book.begin("hook_1", "d", "me", LONG).busy
    assert not desk.book.begin("hook_1", "d", "me", LONG).busy


def test_what_a_dead_process_had_begun_is_begun_again_when_its_lease_ends(desk: Desk) -> None:
    desk.book.begin("hook_1", "d", "dead", 0.1)
    assert desk.book.begin("hook_1", "d", "me", LONG).busy
    desk.clock.sleep(0.15)
    assert not desk.book.begin("hook_1", "d", "me", LONG).busy


def test_what_was_given_up_is_begun_again_at_once_and_only_its_owner_gives_it_up(desk: Desk) -> None:
    desk.book.begin("hook_1", "d", "me", LONG)
    desk.book.give_up("hook_1", "d", "you")
    assert desk.book.begin("hook_1", "d", "you", LONG).busy
    desk.book.give_up("hook_1", "d", "me")
    assert not desk.book.begin("hook_1", "d", "you", LONG).busy


def test_what_is_done_cannot_be_given_up(desk: Desk) -> None:
    desk.book.begin("hook_1", "d", "me", LONG)
    desk.book.finish("hook_1", "d", DONE, LONG)
    desk.book.give_up("hook_1", "d", "me")
    desk.book.give_up("hook_1", "d", "")
    assert desk.book.begin("hook_1", "d", "me", LONG).outcome == DONE


def test_deliveries_are_forgotten_after_their_time(desk: Desk) -> None:
    desk.book.begin("hook_1", "d", "me", LONG)
    desk.book.finish("hook_1", "d", DONE, 0.1)
    desk.clock.sleep(0.15)
    assert desk.book.begin("hook_1", "d", "me", LONG).outcome is None


def test_hooks_do_not_share_deliveries(desk: Desk) -> None:
    desk.book.begin("hook_1", "d", "me", LONG)
    desk.book.finish("hook_1", "d", DONE, LONG)
    assert desk.book.begin("hook_2", "d", "me", LONG).outcome is None


def test_an_older_change_of_an_object_is_told_from_a_newer_one(desk: Desk) -> None:
    for order, newest in (("05", True), ("05", True), ("06", True), ("05", False), ("07", True), ("0601", False)):
        assert desk.book.newest("hook_1", "obj", order, LONG) is newest, order
    assert desk.book.newest("hook_1", "other", "01", LONG)
    assert desk.book.newest("hook_2", "obj", "01", LONG)


def test_the_order_of_an_object_is_forgotten_after_its_time(desk: Desk) -> None:
    assert desk.book.newest("hook_1", "obj", "09", 0.1)
    desk.clock.sleep(0.15)
    assert desk.book.newest("hook_1", "obj", "01", LONG)


def test_a_namespace_has_so_many_hooks_and_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("memory", "redis"):
        monkeypatch.setattr(f"trivet.hooks.{module}.MOST_HOOKS", 2)
    desk.add("hook_1")
    desk.add("hook_2")
    with pytest.raises(InvalidRequest):
        desk.add("hook_3")
    desk.add("hook_3", "other")

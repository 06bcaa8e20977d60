"""Consumer groups of users' own, on the stream of a real Valkey."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from trivet.client import Trivet
from trivet.delivery.groups import EventGroup, consume
from trivet.errors import InvalidRequest, LedgerUnavailable
from trivet.settings import Settings


@pytest.fixture
def client(settings: Settings) -> Trivet:
    made = Trivet(settings=settings.model_copy(update={"model_aliases": {"BAAI/bge-m3": "fake"}}))
    made.create_collection("docs")
    return made


@pytest.fixture
def open_group(settings: Settings) -> Iterator[Callable[..., EventGroup]]:
    made: list[EventGroup] = []

    def opened(consumer: str = "one", group: str = "mine", **how: str) -> EventGroup:
        made.append(EventGroup(settings, group, consumer, **how))  # type: ignore[arg-type]  # test input
        return made[-1]

    yield opened
    for each in made:
        each.close()


def accept(client: Trivet, *names: str) -> None:
    for name in names:
        client.ingest(f"data:,{name}", collection="docs")


def test_each_event_goes_to_one_consumer_of_a_group_and_to_every_group(
    client: Trivet, open_group: Callable[..., EventGroup]
) -> None:
    one, two, other = open_group("one"), open_group("two"), open_group("one", "other")
    assert one.create()
    assert not two.create()
    assert other.create()
    accept(client, "a", "b", "c", "d")
    first, second = one.read(2), two.read(10)
    assert (len(first), len(second), len(other.read(10))) == (2, 2, 4)
    assert not {stream_id for stream_id, _ in first} & {stream_id for stream_id, _ in second}
    assert first[0][1].type == "trivet.ingest.accepted"


def test_a_group_begins_at_the_newest_event_or_the_oldest(
    client: Trivet, open_group: Callable[..., EventGroup]
) -> None:
    accept(client, "a")
    new, old = open_group(group="new"), open_group(group="old")
    new.create()
    old.create("oldest")
    accept(client, "b")
    assert (len(new.read()), len(old.read())) == (1, 2)


def test_what_was_not_acknowledged_comes_again_or_is_taken_over(
    client: Trivet, open_group: Callable[..., EventGroup]
) -> None:
    one, two = open_group("one"), open_group("two")
    one.create()
    accept(client, "a", "b")
    (first, _), (second, _) = one.read()
    assert one.ack(first) == 1
    assert one.ack(first) == 0
    assert [stream_id for stream_id, _ in one.unfinished()] == [second]
    assert two.take_over(60) == []
    assert [stream_id for stream_id, _ in two.take_over(0)] == [second]
    assert one.unfinished() == []
    assert two.ack(second) == 1


def test_a_group_tells_how_far_it_is(client: Trivet, open_group: Callable[..., EventGroup]) -> None:
    one = open_group("one")
    assert one.info() is None
    assert not one.drop()
    one.create()
    accept(client, "a", "b", "c")
    one.read(1)
    info = one.info()
    assert info is not None
    assert (info.lag, info.pending, info.consumers) == (2, 1, {"one": 1})
    assert one.drop()
    assert not one.drop()
    with pytest.raises(LedgerUnavailable):
        one.read()


def test_events_of_other_namespaces_are_acknowledged_unseen(
    settings: Settings, client: Trivet, open_group: Callable[..., EventGroup]
) -> None:
    one = open_group("one", namespace="other")
    one.create()
    other = Trivet(settings=client.settings, namespace="other")
    other.create_collection("docs")
    accept(client, "a")
    accept(other, "b")
    (found,) = one.read()
    assert found[1].data["namespace"] == "other"
    info = one.info()
    assert info is not None
    assert info.pending == 1


def test_an_entry_that_is_no_event_is_passed_over(client: Trivet, open_group: Callable[..., EventGroup]) -> None:
    one = open_group("one")
    one.create()
    for body in (b"{", b"\xff"):
        one._client.xadd(one._stream, {"event": body})
    accept(client, "a")
    assert len(one.read()) == 1
    assert len(one.unfinished()) == 1


def test_consume_begins_with_what_it_had_not_finished(client: Trivet, settings: Settings) -> None:
    accept(client, "a", "b")
    events = consume(settings, "mine", "one", start="oldest")
    event, ack = next(events)
    ack()
    left, _ = next(events)
    events.close()  # type: ignore[attr-defined]  # a generator

    again = consume(settings, "mine", "one")
    accept(client, "c")
    first, ack = next(again)
    assert first.id == left.id
    ack()
    third, ack = next(again)
    assert third.id not in {event.id, left.id}
    ack()
    again.close()  # type: ignore[attr-defined]  # a generator


def test_consume_takes_over_from_a_consumer_that_is_gone(client: Trivet, settings: Settings) -> None:
    accept(client, "a")
    dead = consume(settings, "mine", "dead", start="oldest")
    event, _ = next(dead)
    dead.close()  # type: ignore[attr-defined]  # a generator
    heir = consume(settings, "mine", "heir", idle_seconds=0.0)
    assert next(heir)[0].id == event.id
    heir.close()  # type: ignore[attr-defined]  # a generator


def test_consume_ends_when_it_is_told_to(client: Trivet, settings: Settings) -> None:
    until = time.monotonic() + 0.5
    assert list(consume(settings, "mine", "one", stopping=lambda: time.monotonic() > until)) == []


def test_trivets_own_group_is_not_for_others(settings: Settings) -> None:
    for group in ("deliver", "", "a b"):
        with pytest.raises(InvalidRequest):
            EventGroup(settings, group, "one")

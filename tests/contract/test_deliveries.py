"""What every book of endpoints and deliveries must do, whichever keeps it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from trivet.clock import Clock, ManualClock, SystemClock
from trivet.delivery import LOST, Claimed, Deliveries, DeliveryState, Endpoint, EndpointState, NewEndpoint
from trivet.delivery.memory import MemoryDeliveries
from trivet.delivery.redis import RedisDeliveries
from trivet.delivery.values import SigningSecret, StreamEvent
from trivet.errors import TransientError, UnknownEndpoint
from trivet.faults import arm, disarm
from trivet.settings import Settings

PATIENCE = 0.6  # seconds that an event is tried
LEASE = 0.3  # seconds of a lease that is meant to expire
LONG = 60.0


@dataclass
class Desk:
    """A book with what a test does over and over."""

    book: Deliveries
    clock: Clock
    redis: RedisDeliveries | None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def add(self, endpoint_id: str = "end_1", namespace: str = "ns", **more: object) -> Endpoint:
        fields = {"transport": "memory", "target": "memory:", **more}
        return self.book.add(NewEndpoint(endpoint_id=endpoint_id, namespace=namespace, **fields))

    def emit(
        self, event_id: str, kind: str = "ingest.completed", namespace: str = "ns", collection: str = "c"
    ) -> bytes:
        data = {"namespace": namespace, "collection": collection, "text": "Grüße ✓"}
        body = json.dumps({"id": event_id, "type": f"trivet.{kind}", "data": data}, ensure_ascii=False).encode()
        self.append(body)
        return body

    def append(self, body: bytes) -> None:
        if self.redis is None:
            assert isinstance(self.book, MemoryDeliveries)
            self.book.append(body)
        else:
            self.redis._client.xadd(self.redis._key("events"), {"event": body.decode("utf-8", "surrogateescape")})

    def fan_out(self, *event_ids: str) -> int:
        for event_id in event_ids:
            self.emit(event_id)
        return self.book.fan_out(1000).deliveries

    def claim(
        self, worker: str = "w", most: int = 100, per_endpoint: int = 100, lease: float = LONG, operation: str = ""
    ) -> list[Claimed]:
        return self.book.claim(
            worker,
            operation or f"op{next(self._numbers)}",
            most=most,
            per_endpoint=per_endpoint,
            lease_seconds=lease,
        )

    def one(self, **how: object) -> Claimed:
        claimed = self.claim(**how)  # type: ignore[arg-type]  # test input
        assert len(claimed) == 1, claimed
        return claimed[0]

    def fail(self, claimed: Claimed, delay: float = 0.0, **more: str) -> tuple[str, bool]:
        return self.book.failed(
            claimed, status="500", error="It answered 500.", seconds=0.1, delay_seconds=delay, **more
        )

    def state(self, event_id: str, endpoint_id: str = "end_1") -> str:
        found = self.book.delivery(endpoint_id, event_id)
        return "" if found is None else found.state


@pytest.fixture(params=["redis", "memory"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    if request.param == "redis":
        settings: Settings = request.getfixturevalue("settings")
        settings = settings.model_copy(
            update={"deliver_patience_hours": PATIENCE / 3600, "delivery_log_length": 5, "secret_retention_hours": 1}
        )
        redis = RedisDeliveries(settings)
        yield Desk(redis, SystemClock(), redis)
        redis.close()
    else:
        clock = ManualClock()
        settings = Settings(deliver_patience_hours=PATIENCE / 3600, delivery_log_length=5)
        yield Desk(MemoryDeliveries(settings, clock), clock, None)


def ids(claimed: list[Claimed]) -> list[str]:
    return sorted(each.delivery.event_id for each in claimed)


# ------------------------------------------------------------ endpoints


def test_an_endpoint_is_kept_as_it_was_registered(desk: Desk) -> None:
    secret = SigningSecret(value=SecretStr("whsec_AAAA"))
    made = desk.add(
        target="https://host/path?token=hidden", kinds=("ingest.failed",), collections=("c",), secrets=(secret,)
    )
    assert made == desk.book.endpoint("end_1") == desk.book.endpoints("ns")[0]
    assert (made.state, made.kinds, made.collections, made.reason) == (
        EndpointState.ACTIVE,
        ("ingest.failed",),
        ("c",),
        "",
    )
    assert made.live_secrets(desk.clock.now()) == ("whsec_AAAA",)
    assert "whsec_AAAA" not in json.dumps(made.public())
    assert "hidden" not in json.dumps(made.public())


def test_registering_the_same_id_twice_changes_nothing(desk: Desk) -> None:
    first = desk.add()
    desk.emit("e1")
    assert desk.add(description="another") == first


def test_endpoints_are_listed_by_namespace_oldest_first(desk: Desk) -> None:
    for name, namespace in (("end_b", "ns"), ("end_c", "other"), ("end_a", "ns")):
        desk.add(name, namespace)
        desk.clock.sleep(0.005)
    assert [endpoint.endpoint_id for endpoint in desk.book.endpoints("ns")] == ["end_b", "end_a"]


def test_an_endpoint_that_nobody_registered_is_unknown(desk: Desk) -> None:
    for call in (
        lambda: desk.book.endpoint("end_x"),
        lambda: desk.book.pause("end_x", "why"),
        lambda: desk.book.resume("end_x"),
        lambda: desk.book.rotate_secret("end_x", "whsec_B", 1),
        lambda: desk.book.log("end_x", 1),
        lambda: desk.book.put("end_x", [StreamEvent("", "e", "k", "ns", "", b"{}")], operation="op"),
    ):
        with pytest.raises(UnknownEndpoint):
            call()
    desk.book.remove("end_x")


def test_a_rotated_secret_signs_along_until_its_overlap_ends(desk: Desk) -> None:
    desk.add(secrets=(SigningSecret(value=SecretStr("whsec_A")),))
    desk.book.rotate_secret("end_1", "whsec_B", 0.2)
    again = desk.book.rotate_secret("end_1", "whsec_B", 0.2)
    assert again.live_secrets(desk.clock.now()) == ("whsec_B", "whsec_A")
    desk.clock.sleep(0.25)
    assert again.live_secrets(desk.clock.now()) == ("whsec_B",)
    third = desk.book.rotate_secret("end_1", "whsec_C", 60)
    assert [secret.value.get_secret_value() for secret in third.secrets] == ["whsec_C", "whsec_B"]


# ------------------------------------------------------------ fan-out


def test_each_event_becomes_one_delivery_per_endpoint_that_wants_it(desk: Desk) -> None:
    desk.add("end_all")
    desk.add("end_kind", kinds=("ingest.failed",))
    desk.add("end_collection", collections=("d",))
    desk.add("end_other", namespace="other")
    desk.emit("e1", kind="ingest.failed")
    desk.emit("e2", collection="d")
    done = desk.book.fan_out(100)
    assert (done.read, done.deliveries, done.unreadable) == (2, 4, 0)
    got = {(each.delivery.endpoint_id, each.delivery.event_id) for each in desk.claim()}
    assert got == {("end_all", "e1"), ("end_all", "e2"), ("end_kind", "e1"), ("end_collection", "e2")}


def test_an_endpoint_gets_events_from_its_registration_on(desk: Desk) -> None:
    desk.emit("before")
    desk.add("end_1")
    desk.emit("between")
    desk.add("end_2")
    assert desk.fan_out("after") == 3
    assert desk.state("before") == desk.state("between", "end_2") == ""
    assert desk.state("between") == desk.state("after", "end_2") == DeliveryState.PENDING


def test_the_same_event_twice_on_the_stream_changes_nothing(desk: Desk) -> None:
    desk.add()
    assert desk.fan_out("e1", "e1") == 1
    desk.book.delivered(desk.one(), status="200", seconds=0.1)
    assert desk.fan_out("e1") == 0
    assert desk.claim() == []


def test_what_is_no_event_is_passed_over_and_counted(desk: Desk) -> None:
    desk.add()
    wrong = (b"", b"{", b"[]", b"null", b'{"id":1,"type":"t","data":{"namespace":"ns"}}', b'{"id":"e"}', b"\xff\xfe")
    for body in wrong:
        desk.append(body)
    desk.emit("good")
    done = desk.book.fan_out(100)
    assert (done.read, done.unreadable, done.deliveries) == (len(wrong) + 1, len(wrong), 1)
    assert desk.one().delivery.event_id == "good"


def test_bytes_that_are_no_utf8_reach_the_endpoint_as_they_are(desk: Desk) -> None:
    desk.add()
    body = b'{"id":"e","type":"trivet.x","data":{"namespace":"ns","text":"\xff"}}'
    desk.append(body)
    desk.emit("other")
    desk.book.fan_out(100)
    assert body in [each.body for each in desk.claim()]


def test_the_body_is_the_event_byte_for_byte(desk: Desk) -> None:
    desk.add()
    body = desk.emit("e1")
    desk.book.fan_out(1)
    assert desk.one().body == body


def test_reading_says_up_to_where_all_is_read(desk: Desk) -> None:
    assert desk.book.fan_out(10).last == "0-0"
    desk.emit("e0")
    nobody = desk.book.fan_out(10)
    assert not desk.book.wait(nobody.last, 0.01)
    desk.add()
    desk.emit("e1")
    assert desk.book.wait(nobody.last, 0.01)
    last = desk.book.fan_out(10).last
    assert not desk.book.wait(last, 0.01)
    assert desk.book.fan_out(10).last == last


# ------------------------------------------------------------ leases


def test_a_delivery_is_leased_once_and_told_of_once(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1")
    claimed = desk.one()
    assert desk.claim("other") == []
    assert desk.book.waiting("end_1").leased == 1
    for _ in range(2):
        assert desk.book.delivered(claimed, status="204", seconds=0.5) == DeliveryState.DELIVERED
    assert [(a.event_id, a.attempt, a.ok, a.status) for a in desk.book.log("end_1", 10)] == [("e1", 1, True, "204")]
    assert desk.book.endpoint("end_1").last_success_at is not None


def test_the_same_claim_again_gives_the_same_answer(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1", "e2")
    first = desk.claim(most=1, operation="same")
    assert desk.claim(most=1, operation="same") == first
    assert len(desk.claim(most=5)) == 1


def test_an_expired_lease_goes_to_another_and_its_holder_changes_nothing(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1")
    old = desk.one(lease=LEASE)
    desk.clock.sleep(LEASE + 0.05)
    new = desk.one(worker="other")
    assert new.epoch > old.epoch
    assert new.delivery.attempts == 2
    assert desk.book.delivered(old, status="200", seconds=0) == LOST
    assert desk.fail(old) == (LOST, False)
    assert desk.book.heartbeat([old, new], LONG) == [old]
    assert desk.book.release([old]) == 0
    assert desk.state("e1") == DeliveryState.LEASED


def test_a_heartbeat_keeps_a_lease(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1")
    mine = desk.one(lease=LEASE)
    assert desk.book.heartbeat([mine], LONG) == []
    desk.clock.sleep(LEASE + 0.05)
    assert desk.claim("other") == []


def test_what_is_handed_back_is_due_at_once_and_not_charged(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1")
    mine = desk.one()
    assert desk.book.release([mine]) == 1
    assert desk.book.release([mine]) == 0
    assert desk.one(worker="other").delivery.attempts == 1


def test_one_endpoint_takes_no_more_than_its_share_of_a_process(desk: Desk) -> None:
    desk.add("end_1")
    desk.add("end_2")
    desk.fan_out(*(f"e{n}" for n in range(10)))
    taken = desk.claim(most=10, per_endpoint=2)
    assert sorted(each.delivery.endpoint_id for each in taken) == ["end_1", "end_1", "end_2", "end_2"]
    assert desk.claim(most=10, per_endpoint=2) == []
    assert len(desk.claim("other", most=10, per_endpoint=2)) == 4


def test_endpoints_take_turns(desk: Desk) -> None:
    desk.add("end_1")
    for n in range(20):
        desk.emit(f"e{n}")
    desk.book.fan_out(100)
    assert [each.delivery.endpoint_id for each in desk.claim(most=2)] == ["end_1", "end_1"]
    desk.add("end_2")
    desk.fan_out("late")
    assert "end_2" in {each.delivery.endpoint_id for each in desk.claim(most=2)}


def test_an_endpoint_that_keeps_failing_is_tried_one_by_one(desk: Desk) -> None:
    desk.add()
    desk.fan_out(*(f"e{n}" for n in range(9)))
    for claimed in desk.claim(most=3):
        desk.fail(claimed, delay=LONG)
    only = desk.one(per_endpoint=4)
    desk.book.delivered(only, status="200", seconds=0)
    assert len(desk.claim(per_endpoint=4)) == 4


# ------------------------------------------------------------ failures


def test_a_failed_delivery_waits_and_is_sent_again_under_its_id(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1")
    first = desk.one()
    for _ in range(2):
        assert desk.fail(first, delay=0.2) == (DeliveryState.PENDING, False)
    assert desk.claim() == []
    found = desk.book.delivery("end_1", "e1")
    assert found is not None
    assert (found.status, found.error, found.attempts) == ("500", "It answered 500.", 1)
    assert found.next_at is not None
    desk.clock.sleep(0.25)
    second = desk.one()
    assert (second.delivery.event_id, second.delivery.attempts, second.body) == ("e1", 2, first.body)
    assert len(desk.book.log("end_1", 10)) == 1


def test_an_event_is_given_up_when_patience_ends_while_others_are_taken(desk: Desk) -> None:
    desk.add()
    desk.fan_out("bad", "good")
    bad, good = sorted(desk.claim(), key=lambda each: each.delivery.event_id)
    # The last try comes when patience ends, not a whole pause later.
    desk.fail(bad, delay=LONG)
    desk.book.delivered(good, status="200", seconds=0)
    desk.clock.sleep(PATIENCE + 0.05)
    assert desk.fail(desk.one()) == (DeliveryState.GIVEN_UP, False)
    assert desk.book.endpoint("end_1").state is EndpointState.ACTIVE
    assert desk.state("bad") == DeliveryState.GIVEN_UP
    assert desk.claim() == []


def test_an_endpoint_that_takes_nothing_is_paused_and_nothing_is_lost(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1", "e2")
    for claimed in desk.claim():
        desk.fail(claimed, delay=LONG)
    desk.clock.sleep(PATIENCE + 0.05)
    first, second = desk.claim(per_endpoint=2)
    assert desk.fail(first) == (DeliveryState.PENDING, True)
    assert desk.fail(second) == (DeliveryState.PENDING, False)
    paused = desk.book.endpoint("end_1")
    assert paused.state is EndpointState.PAUSED
    assert paused.reason.startswith("It has taken nothing for")
    assert desk.claim() == []
    assert desk.book.resume("end_1")
    assert ids(desk.claim()) == ["e1", "e2"]


def test_nothing_is_given_up_by_an_endpoint_that_takes_nothing_however_long_an_attempt_is(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1")
    slow = desk.one()
    desk.clock.sleep(0.7 * PATIENCE)
    assert desk.fail(slow, delay=0.01) == (DeliveryState.PENDING, False)
    desk.clock.sleep(0.7 * PATIENCE)
    assert desk.fail(desk.one(), delay=0.01) == (DeliveryState.PENDING, False)
    desk.clock.sleep(0.4 * PATIENCE)
    assert desk.fail(desk.one()) == (DeliveryState.PENDING, True)


def test_an_endpoint_that_is_gone_is_paused_at_once(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1")
    assert desk.fail(desk.one(), pause="It answered 410.") == (DeliveryState.PENDING, True)
    assert desk.book.endpoint("end_1").reason == "It answered 410."


def test_time_in_a_pause_costs_no_patience(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1")
    desk.fail(desk.one())
    desk.book.pause("end_1", "by an operator")
    desk.clock.sleep(PATIENCE + 0.05)
    desk.book.resume("end_1")
    assert desk.fail(desk.one()) == (DeliveryState.PENDING, False)


def test_a_paused_endpoint_gets_what_it_missed_by_a_replay(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1")
    assert desk.book.pause("end_1", "by an operator")
    assert not desk.book.pause("end_1", "again")
    assert desk.fan_out("e2", "e3") == 0
    assert desk.claim() == []
    missed = desk.book.endpoint("end_1")
    assert missed.missed_from is not None
    assert missed.missed_until is not None
    assert desk.book.resume("end_1")
    assert not desk.book.resume("end_1")
    assert ids(desk.claim()) == ["e1"]
    desk.fan_out("e4")
    events = list(desk.book.stream(missed.missed_from, missed.missed_until))
    assert [event.event_id for event in events] == ["e2", "e3"]
    assert desk.book.put("end_1", events, operation="") == 2
    for _ in range(2):
        desk.book.caught_up("end_1", missed.missed_until)
    assert desk.book.endpoint("end_1").missed_from is None
    assert ids(desk.claim()) == ["e2", "e3", "e4"]


def test_what_is_missed_while_a_replay_runs_stays_missed(desk: Desk) -> None:
    desk.add()
    desk.book.pause("end_1", "by an operator")
    desk.fan_out("e1")
    seen = desk.book.endpoint("end_1")
    assert seen.missed_until is not None
    desk.clock.sleep(0.002)
    desk.fan_out("e2")
    desk.book.caught_up("end_1", seen.missed_until)
    left = desk.book.endpoint("end_1")
    assert (left.missed_from, left.missed_until) != (None, None)
    assert left.missed_until != seen.missed_until


def test_a_delivery_under_way_when_its_endpoint_is_paused_ends_as_it_ends(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1", "e2")
    first, second = desk.claim()
    desk.book.pause("end_1", "by an operator")
    assert desk.book.delivered(first, status="200", seconds=0) == DeliveryState.DELIVERED
    assert desk.fail(second) == (DeliveryState.PENDING, False)
    assert desk.claim() == []


# ------------------------------------------------------------ replay, log, removal


def test_a_replay_sends_what_was_delivered_again_once_per_operation(desk: Desk) -> None:
    desk.add()
    body = desk.emit("e1")
    desk.book.fan_out(10)
    desk.book.delivered(desk.one(), status="200", seconds=0)
    event = desk.book.find("end_1", "e1")
    assert event is not None
    assert event.body == body
    assert desk.book.put("end_1", [event], operation="") == 0
    assert desk.book.put("end_1", [event], operation="again") == 1
    again = desk.one()
    assert (again.delivery.event_id, again.delivery.attempts, again.body) == ("e1", 1, body)
    assert desk.book.put("end_1", [event], operation="third") == 0
    desk.book.delivered(again, status="200", seconds=0)
    assert desk.book.put("end_1", [event], operation="again") == 0


def test_what_was_given_up_is_found_and_sent_by_a_replay(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1", "e2")
    claimed = {each.delivery.event_id: each for each in desk.claim()}
    desk.fail(claimed["e1"])
    desk.book.delivered(claimed["e2"], status="200", seconds=0)
    desk.clock.sleep(PATIENCE + 0.05)
    assert desk.fail(desk.one())[0] == DeliveryState.GIVEN_UP
    event = desk.book.find("end_1", "e1")
    assert event is not None
    assert desk.book.put("end_1", [event], operation="op") == 1
    assert desk.one().delivery.attempts == 1


def test_an_event_that_never_was_is_not_found(desk: Desk) -> None:
    desk.add()
    desk.fan_out("e1")
    assert desk.book.find("end_1", "e2") is None


def test_the_stream_is_read_by_time(desk: Desk) -> None:
    desk.emit("e1")
    desk.clock.sleep(0.01)
    middle = str(round(desk.clock.now() * 1000))
    desk.clock.sleep(0.01)
    desk.emit("e2")
    assert [event.event_id for event in desk.book.stream("-", middle)] == ["e1"]
    assert [event.event_id for event in desk.book.stream(middle, "+")] == ["e2"]


def test_the_log_keeps_the_newest_attempts(desk: Desk) -> None:
    desk.add()
    desk.fan_out(*(f"e{n}" for n in range(8)))
    for claimed in sorted(desk.claim(), key=lambda each: each.delivery.event_id):
        desk.fail(claimed, delay=LONG)
    log = desk.book.log("end_1", 10)
    assert [attempt.event_id for attempt in log] == ["e7", "e6", "e5", "e4", "e3"]
    assert all(not attempt.ok and attempt.next_at and attempt.error for attempt in log)
    assert len(desk.book.log("end_1", 2)) == 2


def test_a_removed_endpoint_leaves_nothing_behind(desk: Desk) -> None:
    desk.add("end_1")
    desk.add("end_2")
    desk.fan_out("e1", "e2")
    held = [each for each in desk.claim(most=2) if each.delivery.endpoint_id == "end_1"]
    desk.book.remove("end_1")
    assert all(desk.book.delivered(each, status="200", seconds=0) == LOST for each in held)
    assert desk.state("e1") == desk.state("e2") == ""
    assert {each.delivery.endpoint_id for each in desk.claim("other")} <= {"end_2"}
    desk.book.remove("end_2")
    assert desk.book.endpoints("ns") == []
    if desk.redis is not None:
        assert desk.redis._client.xinfo_groups(desk.redis._key("events")) == []
        left = {key.removeprefix(desk.redis._prefix) for key in desk.redis._client.keys(f"{desk.redis._prefix}*")}
        assert not {key for key in left if key.startswith(("endpoint", "delivery", "outgoing", "attempts", "turns"))}


def test_an_endpoint_with_much_in_line_is_removed_page_by_page_and_a_removal_that_died_can_be_repeated(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trivet.delivery.redis._PAGE", 2)
    desk.add("end_1")
    desk.fan_out(*(f"e{n}" for n in range(5)))
    if desk.redis is not None:
        arm("deliver.after_remove_page", _die)
        with pytest.raises(TransientError):
            desk.book.remove("end_1")
        disarm()
        assert desk.book.waiting("end_1").pending == 3
        assert (desk.book.endpoint("end_1").state, desk.claim()) == (EndpointState.PAUSED, [])
    desk.book.remove("end_1")
    assert desk.book.endpoints("ns") == []
    if desk.redis is not None:
        assert desk.redis._client.keys(f"{desk.redis._prefix}delivery:*") == []


def _die() -> None:
    raise TransientError("died")

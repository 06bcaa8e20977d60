"""Events of real tasks to a real web server, by real processes that are killed."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.support.deliverer import delivering, start
from tests.support.receiver import Receiver, receiving
from trivet.cli import FAILED, INVALID, OK, main
from trivet.client import Trivet
from trivet.delivery import EndpointState
from trivet.delivery.endpoints import Endpoints
from trivet.delivery.redis import RedisDeliveries
from trivet.embedded import servers
from trivet.embedded.valkey import Valkey
from trivet.errors import InvalidRequest, SourceRefused, UnknownEndpoint
from trivet.settings import Settings
from trivet.supervisor.workers import environment
from trivet.values import Event

HOOKS = ("after_read", "after_fan_out", "after_claim", "before_send", "after_send", "after_ledger")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def live(settings: Settings, receiver: Receiver) -> Settings:
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return settings.model_copy(
        update={
            "model_aliases": {"BAAI/bge-m3": "fake"},
            "allow_addresses": (receiver.place,),
            "lease_seconds": 1.0,
            "heartbeat_seconds": 0.2,
            "deliver_retry_seconds": 0.05,
            "deliver_retry_max_seconds": 0.2,
            "deliver_timeout_seconds": 5.0,
            "stop_seconds": 10.0,
        }
    )


@pytest.fixture
def client(live: Settings) -> Trivet:
    made = Trivet(settings=live)
    made.create_collection("docs")
    made.create_collection("other")
    return made


@pytest.fixture
def endpoints(live: Settings) -> Iterator[Endpoints]:
    made = Endpoints(live, live.namespace)
    yield made
    made.close()


def accept(client: Trivet, count: int, collection: str = "docs") -> set[str]:
    """Accept so many tasks; the ids of all events on the stream."""
    for n in range(count):
        client.ingest(f"data:,{collection}{n}", collection=collection)
    return {event.id for _, event in stream(client)}


def stream(client: Trivet) -> list[tuple[str, Event]]:
    return client.events("0-0", 10_000)


def secret_of(endpoint: Any) -> str:
    return str(endpoint.secrets[0].value.get_secret_value())


def wait_for(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def all_read(live: Settings) -> bool:
    """Whether the deliver group has read the whole stream."""
    book = RedisDeliveries(live)
    try:
        (group,) = book._client.xinfo_groups(f"{live.redis_prefix}events")
        return bool(group["lag"] == 0)
    finally:
        book.close()


# ------------------------------------------------------------ what arrives


def test_events_of_real_tasks_arrive_signed_under_their_ids(
    live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    secret = secret_of(endpoints.add(receiver.url()))
    with delivering(live):
        task = client.ingest("data:,hello", collection="docs")
        task.cancel()
        receiver.wait_for(lambda got: len(got) == 2)
    told = {event.id: event for _, event in stream(client)}
    assert {event.type for event in told.values()} == {"trivet.ingest.accepted", "trivet.ingest.cancelled"}
    for request in receiver.got:
        body = Webhook(secret).verify(request.body, request.headers)
        assert body == told[request.event_id].model_dump(mode="json")
        assert request.headers["content-type"].startswith("application/cloudevents+json")
    assert receiver.taken() == Counter(list(told))
    assert [attempt.ok for attempt in endpoints.log(endpoints.list()[0].endpoint_id)] == [True, True]


def test_filters_by_kind_and_collection_hold(
    live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    endpoints.add(receiver.url("/cancelled"), kinds=["trivet.ingest.cancelled"])
    endpoints.add(receiver.url("/other"), collections=["other"])
    with delivering(live):
        client.ingest("data:,1", collection="docs").cancel()
        client.ingest("data:,2", collection="other")
        receiver.wait_for(lambda got: len(got) == 2)
    types = {(r.path, json.loads(r.body)["type"], json.loads(r.body)["data"]["collection"]) for r in receiver.got}
    assert types == {
        ("/cancelled", "trivet.ingest.cancelled", "docs"),
        ("/other", "trivet.ingest.accepted", "other"),
    }


def test_500_events_arrive_though_every_other_answer_is_500(
    live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    receiver.answers = lambda path, nth: 500 if nth % 2 else 204
    endpoint = endpoints.add(receiver.url())
    told = accept(client, 500)
    assert len(told) == 500
    with delivering(live):
        receiver.wait_until_taken(told, 120)
        wait_for(lambda: endpoints.waiting(endpoint.endpoint_id).leased == 0)
    assert receiver.taken() == Counter(dict.fromkeys(told, 1))
    bodies = {(request.event_id, request.body) for request in receiver.got}
    assert {event_id for event_id, _ in bodies} == told
    assert len(bodies) == 500


def test_a_slow_endpoint_keeps_nobody_else_waiting(
    live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    open_up = threading.Event()
    with receiving() as slow:

        def hold(path: str, nth: int) -> int:
            slow.changed.release()
            open_up.wait(60)
            slow.changed.acquire()
            return 200

        slow.answers = hold
        live = live.model_copy(
            update={
                "allow_addresses": (receiver.place, slow.place),
                "deliver_threads": 3,
                "deliver_per_endpoint": 8,
                "deliver_timeout_seconds": 60.0,
            }
        )
        both = Endpoints(live, live.namespace)
        both.add(slow.url())
        both.add(receiver.url())
        told = accept(client, 30)
        with delivering(live):
            receiver.wait_until_taken(told)
            open_up.set()
            slow.wait_until_taken(told)
        both.close()


# ------------------------------------------------------------ kills and outages


@pytest.mark.parametrize("hook", HOOKS)
def test_a_kill_loses_no_event_and_changes_no_id(
    hook: str, live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    endpoints.add(receiver.url())
    process = start(live, f"deliver.{hook}:kill")
    told = accept(client, 12)
    assert process.wait(60) == -signal.SIGKILL
    process = start(live)
    receiver.wait_until_taken(told)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    twice = {event_id for event_id, times in receiver.taken().items() if times > 1}
    # Sent but not written down: only what was in flight at the kill may come again.
    assert len(twice) <= live.deliver_per_endpoint
    if hook in ("after_read", "after_fan_out", "after_claim"):
        assert not twice
    assert len({(request.event_id, request.body) for request in receiver.got}) == len(told)


def test_two_processes_share_the_work(live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver) -> None:
    endpoints.add(receiver.url())
    with delivering(live), delivering(live):
        told = accept(client, 60)
        receiver.wait_until_taken(told)
    assert receiver.taken() == Counter(dict.fromkeys(told, 1))


def test_a_stop_finishes_what_is_being_sent(
    live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    endpoint = endpoints.add(receiver.url())
    over, arrived = threading.Event(), threading.Event()

    def slowly(path: str, nth: int) -> int:
        arrived.set()
        over.wait(30)
        return 200

    receiver.answers = slowly
    told = accept(client, 1)
    with delivering(live):
        assert arrived.wait(30)
        threading.Timer(0.5, over.set).start()
    assert receiver.taken() == Counter(list(told))
    waiting = endpoints.waiting(endpoint.endpoint_id)
    assert (waiting.pending, waiting.leased) == (0, 0)


def test_a_stop_hands_back_what_takes_too_long(
    live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    endpoint = endpoints.add(receiver.url())
    over, arrived = threading.Event(), threading.Event()

    def for_ever(path: str, nth: int) -> int:
        arrived.set()
        over.wait(30)
        return 200

    receiver.answers = for_ever
    accept(client, 1)
    with delivering(live.model_copy(update={"stop_seconds": 0.2, "lease_seconds": 60.0})):
        assert arrived.wait(30)
    waiting = endpoints.waiting(endpoint.endpoint_id)
    over.set()
    assert (waiting.pending, waiting.leased) == (1, 0)


def test_one_bad_entry_on_the_stream_stops_nothing(
    live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    endpoints.add(receiver.url())
    book = RedisDeliveries(live)
    for body in (b"\xff\xfe", b"{", b'{"id":"e","type":"trivet.x","data":{"namespace":"default","b":"\xff"}}'):
        book._client.xadd(f"{live.redis_prefix}events", {"event": body})
    book._client.xadd(f"{live.redis_prefix}events", {"no": "event"})
    book.close()
    client.ingest("data:,hello", collection="docs")
    with delivering(live):
        receiver.wait_for(lambda got: len(got) == 2)
    assert b'"b":"\xff"' in receiver.got[0].body + receiver.got[1].body


def test_a_redis_that_is_away_is_waited_for(tmp_path: Path, receiver: Receiver, live: Settings) -> None:
    server = Valkey(tmp_path / "valkey", log=tmp_path / "valkey.log", max_bytes=64 << 20, rng=random.Random())
    with servers.running(server):
        own = live.model_copy(update={"redis_url": server.url, "redis_prefix": "own:"})
        client = Trivet(settings=own)
        client.create_collection("docs")
        endpoints = Endpoints(own, own.namespace)
        endpoints.add(receiver.url())
        first = accept(client, 3)
        with_outage = delivering(own)
        endpoints.close()
    with with_outage:
        time.sleep(1.0)  # it meets an outage, which nothing here can tell from the outside
        assert receiver.got == []
        with servers.running(server):
            receiver.wait_until_taken(first)
            told = accept(client, 3)
            receiver.wait_until_taken(told)


# ------------------------------------------------------------ pauses, replays, rotation


def test_a_dead_endpoint_is_paused_and_gets_all_of_it_on_resume(
    live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    live = live.model_copy(update={"deliver_patience_hours": 1 / 3600})
    receiver.answers = lambda path, nth: 500
    endpoint_id = endpoints.add(receiver.url()).endpoint_id
    with delivering(live):
        accept(client, 3)
        wait_for(lambda: endpoints.get(endpoint_id).state is EndpointState.PAUSED)
        assert endpoints.get(endpoint_id).reason.startswith("It has taken nothing for")
        told = accept(client, 3, "other")
        wait_for(lambda: endpoints.get(endpoint_id).missed_from is not None)
        wait_for(lambda: endpoints.waiting(endpoint_id).leased == 0)
        receiver.answers = lambda path, nth: 200
        # What came during the pause is put in line by the replay, what was read before it waits in line already.
        wait_for(lambda: all_read(live))
        assert endpoints.resume(endpoint_id, replay=True) == 3
        receiver.wait_until_taken(told)
    assert len(told) == 6
    assert receiver.taken() == Counter(dict.fromkeys(told, 1))
    assert endpoints.get(endpoint_id).missed_from is None


def test_410_pauses_at_once(live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver) -> None:
    receiver.answers = lambda path, nth: 410
    endpoint_id = endpoints.add(receiver.url()).endpoint_id
    with delivering(live):
        accept(client, 1)
        wait_for(lambda: endpoints.get(endpoint_id).state is EndpointState.PAUSED)
    assert "410" in endpoints.get(endpoint_id).reason
    assert len(receiver.got) == 1


def test_an_endpoint_that_is_too_far_behind_is_paused_and_the_stream_keeps_the_rest(
    live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    endpoint_id = endpoints.add(receiver.url()).endpoint_id
    book = RedisDeliveries(live)
    much = {f"e{n}": 1.0 for n in range(100_000)}
    book._client.zadd(f"{live.redis_prefix}outgoing:{endpoint_id}", much)
    told = accept(client, 3)
    assert book.fan_out(10).deliveries == 0
    assert endpoints.get(endpoint_id).reason == "More than 100000 events wait for it."
    with pytest.raises(InvalidRequest, match="waiting already"):
        endpoints.resume(endpoint_id, replay=True)
    book._client.delete(f"{live.redis_prefix}outgoing:{endpoint_id}")
    assert endpoints.resume(endpoint_id, replay=True) == 3
    assert {each.delivery.event_id for each in book.claim("w", "op", most=9, per_endpoint=9, lease_seconds=9)} == told
    book.close()


def test_an_event_is_replayed_by_its_id_and_by_time(
    live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    endpoint_id = endpoints.add(receiver.url()).endpoint_id
    early = accept(client, 3)
    time.sleep(0.01)  # stream ids are milliseconds, and both ends of a range are in it
    middle = datetime.now(UTC)
    time.sleep(0.01)
    told = accept(client, 2, "other")
    one = min(early)
    with delivering(live):
        receiver.wait_until_taken(told)
        wait_for(lambda: endpoints.waiting(endpoint_id).leased == 0)
        assert endpoints.replay(endpoint_id, one) == 1
        receiver.wait_for(lambda got: len(got) == 6)
        assert receiver.got[-1].event_id == one
        wait_for(lambda: endpoints.waiting(endpoint_id).leased == 0)
        assert endpoints.replay(endpoint_id, since=middle) == 2
        receiver.wait_for(lambda got: len(got) == 8)
        wait_for(lambda: endpoints.waiting(endpoint_id).leased == 0)
        assert endpoints.replay(endpoint_id, until=middle) == 3
        receiver.wait_for(lambda got: len(got) == 11)
    assert {r.event_id for r in receiver.got[6:8]} == told - early
    assert {r.event_id for r in receiver.got[8:]} == early
    assert len({(r.event_id, r.body) for r in receiver.got}) == 5
    with pytest.raises(InvalidRequest, match="not known"):
        endpoints.replay(endpoint_id, "no-such-event")
    with pytest.raises(InvalidRequest):
        endpoints.replay(endpoint_id)


def test_a_rotated_secret_and_the_one_before_it_both_verify(
    live: Settings, client: Trivet, endpoints: Endpoints, receiver: Receiver
) -> None:
    made = endpoints.add(receiver.url())
    rotated = endpoints.rotate(made.endpoint_id, overlap_seconds=60)
    assert secret_of(rotated) != secret_of(made)
    third = endpoints.rotate(made.endpoint_id, overlap_seconds=0)
    with delivering(live):
        accept(client, 1)
        receiver.wait_for(lambda got: len(got) == 1)
    request = receiver.got[0]
    assert len(third.secrets) == 1
    Webhook(secret_of(third)).verify(request.body, request.headers)

    fourth = endpoints.rotate(made.endpoint_id)
    with delivering(live):
        accept(client, 1, "other")
        receiver.wait_for(lambda got: len(got) == 2)
    request = receiver.got[1]
    for secret in (secret_of(third), secret_of(fourth)):
        Webhook(secret).verify(request.body, request.headers)


def test_another_namespaces_endpoint_is_unknown(live: Settings, endpoints: Endpoints, receiver: Receiver) -> None:
    endpoint_id = endpoints.add(receiver.url()).endpoint_id
    stranger = Endpoints(live, "stranger")
    for call in (stranger.get, stranger.pause, stranger.remove, stranger.rotate, stranger.log, stranger.waiting):
        with pytest.raises(UnknownEndpoint):
            call(endpoint_id)
    assert stranger.list() == []
    stranger.close()


def test_an_address_of_the_own_network_cannot_be_registered(live: Settings, endpoints: Endpoints) -> None:
    with pytest.raises(SourceRefused):
        endpoints.add("http://127.0.0.1:1/hook")
    assert endpoints.list() == []


# ------------------------------------------------------------ the command line


def test_the_command_line_does_all_of_it(
    live: Settings,
    client: Trivet,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment(live, {}).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, status: int = OK) -> Any:
        capsys.readouterr()
        assert main(["endpoints", *arguments, "--json"]) == status
        return json.loads(capsys.readouterr().out)

    made = run("add", receiver.url() + "?token=hidden", "--kind", "ingest.accepted", "--description", "mine")
    assert made["secret"].startswith("whsec_")
    assert "hidden" not in made["target"]
    endpoint_id = made["endpoint_id"]
    assert [each["endpoint_id"] for each in run("list")] == [endpoint_id]
    shown = run("show", endpoint_id)
    assert made["secret"] not in json.dumps(shown)
    assert (shown["pending"], shown["state"]) == (0, "active")
    assert run("rotate", endpoint_id)["secret"] != made["secret"]
    with delivering(live):
        assert run("test", endpoint_id)["ok"] is True
        told = accept(client, 1)
        receiver.wait_until_taken(told)
        wait_for(lambda: len(run("log", endpoint_id)) == 2)
        assert run("replay", endpoint_id, told.pop())["replayed"] == 1
        wait_for(lambda: len(run("log", endpoint_id)) == 3)
        assert run("replay", endpoint_id, "--since", "2020-01-01T00:00:00Z")["replayed"] == 1
    assert run("test", endpoint_id, "--timeout", "0.1", status=FAILED) is None
    assert run("pause", endpoint_id, "--reason", "because")["reason"] == "because"
    assert run("resume", endpoint_id, "--replay")["replayed"] == 0
    assert run("remove", endpoint_id)["removed"] == endpoint_id
    assert run("list") == []
    assert run("show", endpoint_id, status=INVALID)["error"]["code"] == "unknown_endpoint"
    assert run("add", "http://10.0.0.1/", status=FAILED)["error"]["code"] == "source_refused"
    for arguments in (["list"], ["add", receiver.url()], ["list"]):
        assert main(["endpoints", *arguments]) == OK

"""Doctor tells of roles that nobody serves, and of who keeps the stream from being cut."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from trivet.cli.checks import Finding, findings
from trivet.deleting.purge import request_purge
from trivet.delivery.endpoints import Endpoints
from trivet.delivery.groups import EventGroup
from trivet.delivery.loop import Deliverer
from trivet.delivery.redis import RedisDeliveries
from trivet.gc import collect
from trivet.ledger.redis import RedisLedger
from trivet.settings import Settings
from trivet.stores import ObjectStore

HOOK = "https://example.com/hook"


@pytest.fixture
def book(settings: Settings) -> Iterator[RedisDeliveries]:
    made = RedisDeliveries(settings)
    yield made
    made.close()


@pytest.fixture
def endpoints(settings: Settings, book: RedisDeliveries) -> Endpoints:
    return Endpoints(settings, "default", book=book, resolve=lambda host, port: ["93.184.215.14"])


def found(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings(settings)}


def test_endpoints_to_which_nobody_sends_are_a_problem_until_somebody_does(
    settings: Settings, book: RedisDeliveries, endpoints: Endpoints
) -> None:
    assert not {"deliveries", "paused endpoints"} & found(settings).keys()
    endpoint = endpoints.add(HOOK)
    assert found(settings)["deliveries"].result == "problem"
    over = threading.Event()
    sender = threading.Thread(target=Deliverer(settings, book, over.is_set).run)
    sender.start()
    try:
        for _ in range(200):
            if found_ok := found(settings)["deliveries"].result == "ok":
                break
    finally:
        over.set()
        sender.join()
    assert found_ok
    endpoints.pause(endpoint.endpoint_id)
    assert found(settings)["paused endpoints"].result == "warning"


def test_a_group_that_keeps_the_stream_from_being_cut_is_named(settings: Settings) -> None:
    small = settings.model_copy(update={"event_stream_length": 1})
    group, ledger = EventGroup(settings, "forgotten", "one"), RedisLedger(settings)
    group.create("oldest")
    for n in range(2):
        ledger._client.xadd(f"{settings.redis_prefix}events", {"event": str(n)})
    assert "consumer group forgotten" in found(small)
    assert "consumer group forgotten" not in found(settings)
    group.drop()
    assert "consumer group forgotten" not in found(small)
    group.close()
    ledger._client.close()


def test_without_a_process_that_removes_purges_wait_and_doctor_says_so(settings: Settings, store: ObjectStore) -> None:
    assert found(settings)["garbage collection"].result == "warning"
    request_purge(settings, store, "default", "docs")
    finding = found(settings)["garbage collection"]
    assert (finding.result, "1 purge waits" in finding.detail) == ("problem", True)
    ledger = RedisLedger(settings)
    collect(settings, ledger=ledger, store=store)
    assert found(settings)["garbage collection"].result == "ok"
    ledger._client.close()

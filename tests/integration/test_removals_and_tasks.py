"""What garbage collection and a purge may never take from a task that is open, or that can be run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from infra.prose import prose
from tests.integration.test_gc import HOUR, Later
from tests.support.commits import Wrapped
from tests.support.plant import Plant, plant
from tests.support.web import Server, answer
from trivet import faults
from trivet.deleting.deletes import delete_object
from trivet.deleting.purge import request_purge, run_purges
from trivet.errors import TrivetError, WrongLedger
from trivet.fetch.upload import upload_url
from trivet.gc import GcReport, collect
from trivet.rebuild import rebuild
from trivet.resources.redis import RedisResources
from trivet.settings import Settings
from trivet.stores import ObjectStore
from trivet.stores.layout import upload_key

LOOSE, OWNED = "-/0123", "bkt_1/obj_1/0"


@pytest.fixture
def source() -> Iterator[Server]:
    server = Server({f"/{n}": answer(prose(n, 300).encode(), Content_Type="text/plain") for n in range(4)})
    yield server
    server.close()


@pytest.fixture
def works(settings: Settings, source: Server, store: ObjectStore) -> Iterator[Plant]:
    with plant(settings.model_copy(update={"allow_addresses": (source.place,), "durable_accept": True}), store) as made:
        yield made


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    faults.disarm()


def round_of(works: Plant, hours: float = 400, **how: Any) -> GcReport:
    """A round some two weeks on, which is longer than anything is retained."""
    return collect(works.settings, ledger=works.ledger, store=how.pop("store", works.store), clock=Later(hours * HOUR))


def everything(works: Plant) -> set[str]:
    return {stored.key for stored in works.store.list(f"{works.settings.s3_prefix}/")}


def send(works: Plant, name: str = LOOSE) -> str:
    """Content on the store; the key."""
    key = upload_key(works.settings, "default", name)
    works.store.put(key, prose(5, 200).encode())
    return key


def ingest(works: Plant, name: str = LOOSE, **fields: Any) -> str:
    return works.accept(upload_url("default", name), object_id="sent", media_type="text/plain", **fields)


# ---------------------------------------------------------------- a ledger that is wiped meanwhile


@pytest.mark.parametrize("at", ["store", "ledger"])
def test_a_round_whose_ledger_is_wiped_before_any_of_its_steps_removes_nothing(
    at: str, works: Plant, source: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(works)
    send(works, OWNED)
    resources = RedisResources(works.settings)
    tasks = [works.accept(source.url("/0"), object_id="a"), works.accept(source.url("/1"), object_id="b")]
    works.prepare()
    tasks.append(ingest(works))
    left = {"steps": -1}

    def step() -> None:
        left["steps"] -= 1
        if left["steps"] == 0:
            works.wipe()

    def listing(inner: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*given: Any, **how: Any) -> Any:
            step()
            return inner(*given, **how)

        return stepped

    store = Wrapped(works.store, (lambda verb, key: step()) if at == "store" else (lambda verb, key: None))
    if at == "store":
        monkeypatch.setattr(store, "list", listing(store.list))
    else:
        monkeypatch.setattr(works.ledger, "_do", listing(works.ledger._do))
    for nth in range(1, 400):
        # What a wipe has lost is back: what was staged, what was accepted, and whose the content was.
        rebuild(works.settings, ledger=works.ledger, store=works.store)
        resources.create("default", "object/bkt_1", "obj_1", "{}")
        before = everything(works)
        left["steps"] = nth
        with suppress(TrivetError):
            round_of(works, store=store)
        struck = left["steps"] <= 0
        left["steps"] = -1
        assert everything(works) >= before, f"{before - everything(works)} went after step {nth}"
        if not struck:
            break
        works.wipe()
    assert not struck
    assert nth > 10
    resources.close()
    works.run()
    assert [works.state(task) for task in tasks] == ["completed"] * 3


def test_a_purge_whose_ledger_is_wiped_meanwhile_takes_nothing_from_a_task_that_a_rebuild_brings_back(
    works: Plant, source: Server
) -> None:
    for name in ("a", "b"):
        works.ingested(source.url("/0"), object_id=name)
        delete_object(works.ledger, works.settings, "default", "docs", name)
    works.run()
    # It is ingested anew, so that a purge has to leave it.
    again = works.accept(source.url("/1"), object_id="b")
    works.prepare()
    request_purge(works.settings, works.store, "default", "docs")
    before = {key for key in everything(works) if "/objects/b/" in key}
    faults.arm("purge.after_count", works.wipe)
    with pytest.raises(WrongLedger):
        run_purges(works.settings, works.ledger, works.store)
    assert before <= everything(works)
    faults.disarm()
    rebuild(works.settings, ledger=works.ledger, store=works.store)
    works.run()
    assert works.state(again) == "completed"


# ---------------------------------------------------------------- a seal without its shards


def test_a_prepare_whose_task_is_cancelled_and_purged_before_its_seal_seals_nothing(
    works: Plant, source: Server
) -> None:
    works.ingested(source.url("/0"), object_id="o")
    delete_object(works.ledger, works.settings, "default", "docs", "o")
    works.run()
    task = works.accept(source.url("/1"), object_id="o")
    ended: list[bool] = []

    def cancelled_and_purged() -> None:
        if not ended:
            ended.append(True)
            works.ledger.cancel(task)
            request_purge(works.settings, works.store, "default", "docs", "o")
            run_purges(works.settings, works.ledger, works.store)
            works.ctx.keeper.beat()

    faults.arm("prepare.after_stage", cancelled_and_purged)
    works.prepare()
    assert ended
    assert not [key for key in everything(works) if key.endswith("/plan.json")]
    assert works.state(works.ingested(source.url("/1"), object_id="o")) == "completed"


# ---------------------------------------------------------------- content that was sent


def test_content_stays_for_a_task_of_a_paused_collection_however_long_that_takes(works: Plant) -> None:
    key = send(works)
    works.ledger.pause("default", "docs", reason="for weeks")
    task = ingest(works)
    works.prepare()
    assert round_of(works).sent == 0
    works.ledger.resume("default", "docs")
    works.run()
    assert works.state(task) == "completed"
    assert works.store.head(key)


def test_content_stays_for_a_task_that_failed_and_can_be_run_again(works: Plant, source: Server) -> None:
    key = send(works)
    task, body = ingest(works), works.store.get(key)[0]
    # A document without content fails for good.
    works.store.put(key, b"")
    works.prepare()
    assert works.state(task) == "failed"
    works.store.put(key, body)
    assert round_of(works).sent == 0
    works.ledger.retry(task)
    works.run()
    assert works.state(task) == "completed"


def test_content_of_a_bucket_object_that_is_gone_stays_for_the_task_that_is_queued_for_it(works: Plant) -> None:
    resources = RedisResources(works.settings)
    resources.create("default", "object/bkt_1", "obj_1", "{}")
    send(works, OWNED)
    task = ingest(works, OWNED)
    resources.delete("default", "object/bkt_1", "obj_1")
    assert round_of(works).sent == 0
    works.run()
    assert works.state(task) == "completed"
    resources.close()


def test_content_of_an_object_that_is_queued_and_then_removed_while_a_round_runs_stays(works: Plant) -> None:
    resources = RedisResources(works.settings)
    resources.create("default", "object/bkt_1", "obj_1", "{}")
    # The round removes this one first, and asks for tasks before that.
    send(works, "-/0000")
    send(works, OWNED)
    tasks: list[str] = []

    def queued_and_removed() -> None:
        if not tasks:
            tasks.append(ingest(works, OWNED))
            resources.delete("default", "object/bkt_1", "obj_1")

    faults.arm("gc.before_sent", queued_and_removed)
    assert round_of(works).sent == 1
    works.run()
    assert works.state(tasks[0]) == "completed"
    resources.close()


def test_content_is_found_by_a_task_that_writes_its_url_in_other_letters(works: Plant) -> None:
    send(works)
    task = works.accept("UPLOAD://default/%2D/0123?again", object_id="sent", media_type="text/plain")
    assert round_of(works).sent == 0
    works.run()
    assert works.state(task) == "completed"


def test_content_that_is_sent_again_right_before_its_removal_stays(works: Plant) -> None:
    key = send(works)
    # S3 tells whole seconds.
    time.sleep(1.1)
    sent: list[bool] = []

    class Slow(Wrapped):
        """Listed, and then sent again."""

        def list(self, prefix: str, *, delimiter: str = "") -> Iterator[Any]:
            found = list(super().list(prefix, delimiter=delimiter))
            if any(stored.key == key for stored in found) and not sent:
                sent.append(True)
                send(works)
            return iter(found)

    assert round_of(works, store=Slow(works.store)).sent == 0
    assert sent
    assert works.store.head(key)

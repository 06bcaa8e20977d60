"""What garbage collection and purges leave alone while the ledger is wiped, work waits, or S3 fails in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from infra.prose import prose
from tests.integration.test_gc import HOUR, Later
from tests.support.commits import Wrapped
from tests.support.plant import Plant, plant
from tests.support.web import Server, answer
from trivet.clock import SystemClock
from trivet.deleting.deletes import delete_object
from trivet.deleting.purge import request_purge, run_purges
from trivet.errors import StoreUnavailable, TrivetError
from trivet.fetch.upload import upload_url
from trivet.gc import GcReport, collect
from trivet.parts.plan import Plan
from trivet.rebuild import rebuild
from trivet.settings import Settings
from trivet.stores import ObjectStore, Stored
from trivet.stores.layout import upload_key
from trivet.stores.values import read_value

LONG = 1000 * HOUR


@pytest.fixture
def source() -> Iterator[Server]:
    server = Server({f"/{n}": answer(prose(n, 4000).encode(), Content_Type="text/plain") for n in range(3)})
    yield server
    server.close()


@pytest.fixture
def works(settings: Settings, source: Server, store: ObjectStore) -> Iterator[Plant]:
    with plant(settings.model_copy(update={"allow_addresses": (source.place,), "durable_accept": True}), store) as made:
        yield made


def round_of(works: Plant, store: ObjectStore | None = None) -> GcReport:
    return collect(works.settings, ledger=works.ledger, store=store or works.store, clock=Later(LONG))


class _Wiping(Wrapped):
    """The ledger is wiped while the nth listing is under way."""

    def __init__(self, works: Plant, nth: int) -> None:
        super().__init__(works.store)
        self.works, self.left = works, nth

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[Stored]:
        self.left -= 1
        if self.left == 0:
            self.works.wipe()
        return super().list(prefix, delimiter=delimiter)


@pytest.mark.parametrize("nth", range(1, 9))
def test_a_ledger_that_is_wiped_in_the_middle_of_a_round_costs_nothing(works: Plant, source: Server, nth: int) -> None:
    sent = upload_key(works.settings, works.settings.namespace, "-/abc")
    works.store.put(sent, prose(8, 800).encode())
    waiting = works.accept(upload_url(works.settings.namespace, "-/abc"), object_id="sent", media_type="text/plain")
    works.prepare()
    staged = works.accept(source.url("/1"), object_id="staged")
    works.prepare()
    round_of(works)
    with suppress(TrivetError):
        round_of(works, _Wiping(works, nth))
    assert works.store.head(sent)
    assert works.store.head(works.layout.collection_record())
    works.wipe()
    rebuild(works.settings, ledger=works.ledger, store=works.store)
    works.run()
    assert (works.state(waiting), works.state(staged)) == ("completed", "completed")


@pytest.mark.parametrize("name", ["-/abc", "bkt_gone/obj_gone/content"])
def test_what_was_sent_stays_as_long_as_the_ledger_knows_a_task_that_names_it(works: Plant, name: str) -> None:
    namespace = works.settings.namespace
    for each in (name, "-/nobodys"):
        works.store.put(upload_key(works.settings, namespace, each), prose(1, 800).encode())
    task = works.accept(upload_url(namespace, name), object_id="o", media_type="text/plain")
    assert round_of(works).sent == 1
    works.run()
    assert works.state(task) == "completed"


def test_what_was_sent_again_while_the_round_lists_it_stays(works: Plant) -> None:
    key = upload_key(works.settings, works.settings.namespace, "-/abc")
    works.store.put(key, b"text")

    class Again(Wrapped):
        def head(self, key: str) -> Stored:
            found = super().head(key)
            return Stored(found.key, found.size, found.etag, found.sha256, found.modified + 5)

    assert round_of(works, Again(works.store)).sent == 0
    assert works.store.head(key)


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_purge_that_fails_midway_leaves_no_plan_without_its_shards(works: Plant, source: Server, nth: int) -> None:
    task = works.ingested(source.url("/0"), object_id="o")
    assert works.state(task) == "completed"
    delete_object(works.ledger, works.settings, works.settings.namespace, "docs", "o")
    works.run()
    request_purge(works.settings, works.store, works.settings.namespace, "docs", "o")
    left = [nth]

    def failing(verb: str, key: str) -> None:
        if verb == "delete":
            left[0] -= 1
            if left[0] <= 0:
                raise StoreUnavailable("no answer")

    with suppress(StoreUnavailable):
        run_purges(works.settings, works.ledger, Wrapped(works.store, failing), clock=SystemClock())
    found: Any = [one.key for one in works.store.list(works.layout.object("o")) if one.key.endswith("/plan.json")]
    for key in found:
        plan = read_value(works.store, key, Plan)
        assert plan is not None
        assert all(works.store.head(shard.key) for shard in plan[0].shards)
    again = works.ingested(source.url("/0"), object_id="o")
    assert works.state(again) == "completed"

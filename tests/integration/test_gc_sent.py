"""What was sent to an API is removed once nothing can need it, and not before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.plant import Plant, plant
from trivet.clock import SystemClock
from trivet.gc import collect
from trivet.resources.redis import RedisResources
from trivet.settings import Settings
from trivet.stores import ObjectStore
from trivet.stores.layout import upload_key

WEEKS = 21 * 86400.0


class Later(SystemClock):
    """The machine's clock, three weeks on."""

    def now(self) -> float:
        return super().now() + WEEKS


@pytest.fixture
def works(settings: Settings, store: ObjectStore) -> Iterator[Plant]:
    with plant(settings, store) as made:
        yield made


def test_content_goes_once_its_object_is_gone_and_no_task_can_be_retried(works: Plant, settings: Settings) -> None:
    resources = RedisResources(settings)
    resources.create("default", "object/bkt_1", "obj_kept", "{}")
    resources.create("default", "upload/bkt_1", "upl_kept", "{}")
    names = ["bkt_1/obj_kept/0", "bkt_1/obj_gone/0", "bkt_1/upl_kept", "bkt_1/upl_gone", "-/0123"]
    for name in names:
        works.store.put(upload_key(settings, "default", name), b"content")

    def left() -> list[str]:
        return [name for name in names if list(works.store.list(upload_key(settings, "default", name)))]

    assert collect(settings, ledger=works.ledger, store=works.store).sent == 0
    assert left() == names
    dry = collect(settings, ledger=works.ledger, store=works.store, clock=Later(), dry_run=True)
    assert (dry.sent, dry.bytes) == (3, 21)
    assert left() == names
    assert collect(settings, ledger=works.ledger, store=works.store, clock=Later()).sent == 3
    assert left() == ["bkt_1/obj_kept/0", "bkt_1/upl_kept"]
    resources.close()

"""A Redis that is full refuses new tasks and still lets the old ones be finished."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import fleet, wait_for_all
from trivet.client import Trivet
from trivet.embedded import servers
from trivet.embedded.valkey import Valkey
from trivet.errors import LedgerUnavailable
from trivet.settings import Settings
from trivet.values import TaskState


@pytest.fixture
def small_valkey(tmp_path: Path) -> Iterator[str]:
    server = Valkey(tmp_path / "small", log=tmp_path / "small.log", max_bytes=20 << 20, rng=random.Random())
    with servers.running(server):
        yield server.url


def test_new_tasks_are_refused_and_the_old_ones_are_finished(settings: Settings, small_valkey: str) -> None:
    live = settings.model_copy(
        update={
            "redis_url": small_valkey,
            "model_aliases": {"BAAI/bge-m3": "fake"},
            "lease_seconds": 5.0,
            "sweep_seconds": 0.5,
        }
    )
    client = Trivet(settings=live)
    client.create_collection("docs")
    accepted: list[str] = []
    with pytest.raises(LedgerUnavailable, match="nearly full"):
        _fill(client, accepted)
    assert len(accepted) > 20
    with fleet(live) as workers:
        workers.start_all()
        views = wait_for_all(client, accepted, seconds=240)
    assert {view.state for view in views} == {TaskState.COMPLETED}
    client.ingest("data:text/plain,room%20again", collection="docs", object_id="after")


def _fill(client: Trivet, accepted: list[str]) -> None:
    """Big rows with little to embed, as many as are taken."""
    for n in range(2000):
        url = f"data:text/plain,number%20{n}" + " " * 200_000 + "."
        accepted.append(client.ingest(url, collection="docs", object_id=f"o{n}").task_id)

"""Two hundred small objects and one of a thousand pages, at once: all complete, and the small ones do not wait.

With a small random model in bge-m3's layout, so that the real encoder runs; `make big` does it with the real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.prose import prose
from tests.corpus.pdf import page_of, pdf
from tests.support.fleet import Fleet, fleet, wait_for_all
from tests.support.web import Server, answer
from trivet.client import Trivet
from trivet.encoder.random_model import write_random_model
from trivet.settings import Settings
from trivet.values import TaskState

SMALL = 200
PAGES = 1000


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    pages = {f"/{n}": answer(prose(n, 40).encode(), Content_Type="text/plain") for n in range(SMALL)}
    big = pdf([page_of([prose(n, 250)]) for n in range(PAGES)])
    server = Server({**pages, "/big.pdf": answer(big, Content_Type="application/pdf")})
    yield server
    server.close()


@pytest.fixture
def live(settings: Settings, source: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    real: str = request.config.getoption("--real-model")
    model = Path(real).absolute() if real else write_random_model(tmp_path / "m", seed=1, hidden=32, layers=1, heads=2)
    return settings.model_copy(
        update={
            "model_aliases": {"BAAI/bge-m3": str(model)},
            "allow_addresses": (source.place,),
            "encoder_threads": 1,
        }
    )


@pytest.fixture
def workers(live: Settings) -> Iterator[Fleet]:
    with fleet(live) as made:
        yield made


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_small_ones_do_not_wait_for_the_big_one(workers: Fleet, live: Settings, source: Server) -> None:
    workers.start_all()
    client = Trivet(settings=live)
    client.create_collection("docs")
    big = client.ingest(source.url("/big.pdf"), collection="docs", object_id="big")
    small = [client.ingest(source.url(f"/{n}"), collection="docs").task_id for n in range(SMALL)]
    views = wait_for_all(client, [*small, big.task_id], seconds=1500)
    assert {view.state for view in views} == {TaskState.COMPLETED}
    assert views[-1].pages == PAGES
    waited = sorted(view.updated_at - view.created_at for view in views[:-1])
    took = views[-1].updated_at - views[-1].created_at
    print(f"{SMALL} small: median {waited[SMALL // 2]:.1f} s, last {waited[-1]:.1f} s; {PAGES} pages: {took:.1f} s")
    started, completed = _order(client)
    # In the order of the stream: small ones that were staged before the big one was through did not queue behind its
    # shards, as they would in a plain queue. (How many were staged by then depends on the machine.)
    staged = [task_id for task_id in small if started[task_id] < completed[big.task_id]]
    passed = [task_id for task_id in staged if completed[task_id] < completed[big.task_id]]
    assert len(completed) == SMALL + 1
    assert len(staged) >= SMALL / 10
    assert len(passed) >= len(staged) / 2


def _order(client: Trivet) -> tuple[dict[str, int], dict[str, int]]:
    """Task id → place in the stream of its started and of its completed event."""
    started: dict[str, int] = {}
    completed: dict[str, int] = {}
    events = [event for _, event in client.events(count=10_000)]
    for place, event in enumerate(events):
        if event.type == "trivet.ingest.started":
            started[event.data["task_id"]] = place
        if event.type == "trivet.ingest.completed":
            completed[event.data["task_id"]] = place
    return started, completed

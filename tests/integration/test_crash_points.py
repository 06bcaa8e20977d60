"""A worker that dies between any two calls to Redis or S3: another takes over, and all is as if it had not been.

Each place is taken twice: by a worker in this process, which can do nothing more from there on, and by real processes
that kill themselves there. The places are read from the source, so that no new one is forgotten.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

import trivet
from infra.prose import prose
from tests.contract.ledger import invariants
from tests.support.commits import Wrapped
from tests.support.fleet import fleet, terminal_events, wait_for_all
from tests.support.web import Server, answer
from trivet.accept import accept, parse_request
from trivet.client import Trivet
from trivet.commit import read_manifest, read_pointer
from trivet.deleting.deletes import delete_object
from trivet.encoder.fake import FakeEncoder
from trivet.errors import StoreUnavailable
from trivet.faults import arm, disarm
from trivet.ledger.redis import RedisLedger
from trivet.names import TERMINAL_EVENTS, Stage
from trivet.parts.reader import read_parts
from trivet.settings import Settings
from trivet.stages import commit, prepare
from trivet.stages.context import StageContext
from trivet.stages.embed import EmbedLoop
from trivet.stages.keeper import LeaseKeeper
from trivet.stages.sweep import sweep_once
from trivet.stores import ObjectStore, open_store
from trivet.stores.layout import Layout
from trivet.values import Collection, Pipeline, TaskState, TaskView

FAR = float("inf")


def places(*areas: str) -> list[str]:
    """All fault hooks of these areas, as the source has them."""
    sources = Path(trivet.__file__).parent.rglob("*.py")
    found = {name for path in sources for name in re.findall(r'\bfault\("(\w+\.\w+)"', path.read_text())}
    return sorted(name for name in found if name.split(".")[0] in areas)


INGEST = places("prepare", "embed", "commit")
DELETE = [*places("delete"), *(place for place in places("commit") if "manifest" in place or "current" in place)]


class Dead(BaseException):
    """What nothing between a fault hook and the test may catch."""


@dataclass
class Life:
    """Whether a worker lives."""

    over: bool = False

    def end(self) -> None:
        self.over = True
        raise Dead

    def check(self, *_: str) -> None:
        if self.over:
            raise Dead


class Mortal:
    """A ledger that a dead worker can tell nothing; its heartbeat falls silent."""

    def __init__(self, ledger: RedisLedger, life: Life) -> None:
        self._ledger, self._life = ledger, life

    def heartbeat(self, *args: Any, **how: Any) -> set[str]:
        return set() if self._life.over else self._ledger.heartbeat(*args, **how)

    def __getattr__(self, name: str) -> Any:
        self._life.check()
        return getattr(self._ledger, name)


#: What is written where an answer is to be lost.
_WRITES = {
    "commit.before_manifest_read_back": "/manifest.json",
    "commit.before_current_read_back": "/current.json",
    "embed.before_part_read_back": "/part-",
    "prepare.before_seal_read_back": "/plan.json",
}


class LosesAnswers(Wrapped):
    """The first write of a key with this text in it is done, and nobody hears of it."""

    def __init__(self, inner: ObjectStore, before: Callable[[str, str], None], text: str) -> None:
        super().__init__(inner, before)
        self._text = text

    def put(self, key: str, body: bytes, **how: Any) -> Any:
        stored = super().put(key, body, **how)
        if self._text and self._text in key:
            self._text = ""
            raise StoreUnavailable("The answer was lost.")
        return stored


@dataclass
class Scene:
    """One ledger, one store, and workers that come and go."""

    settings: Settings
    store: ObjectStore
    ledger: RedisLedger
    closing: list[Callable[[], None]] = field(default_factory=list)

    def ingest(self, words: int = 400) -> str:
        text = prose(1, words).replace(" ", "%20").replace("\n", "%0A")
        request = {"url": f"data:text/plain,{text}", "collection": "docs", "object_id": "o", "namespace": "ns"}
        return accept(self.ledger, self.settings, parse_request(request)).task_id

    def worker(self, name: str, life: Life, *, loses: str = "") -> StageContext:
        ledger: Any = Mortal(self.ledger, life)
        store: Any = LosesAnswers(self.store, life.check, loses)
        keeper = LeaseKeeper(ledger, self.settings, name, list(Stage), "{}")
        self.closing.append(keeper.close)
        return StageContext(self.settings, ledger, store, name, keeper, random=Random(1))

    def work(self, ctx: StageContext) -> None:
        """Everything that waits, through all stages."""
        prepare.run(ctx, FAR)
        loop = EmbedLoop(ctx, FakeEncoder.of(64))
        try:
            loop.run(FAR)
        finally:
            with suppress(Dead):
                loop.close()
        commit.run(ctx, FAR)

    def dies_at(self, place: str) -> None:
        """A worker that dies when it first comes by."""
        life = Life()
        arm(place, life.end)
        ctx = self.worker("first", life, loses=_WRITES.get(place, ""))
        with suppress(Dead):
            self.work(ctx)
        disarm()
        assert life.over, f"nobody came by {place}"
        # Uploads have threads of their own; what they were about to say is not said either.
        ctx.keeper.close()

    def finish(self, *ids: str) -> list[TaskView]:
        """A second worker comes, and leases of the first run out."""
        ctx = self.worker("second", Life())
        deadline = time.monotonic() + 30
        while True:
            views = [self.ledger.task(task_id) for task_id in ids]
            found = [view for view in views if view is not None]
            if len(found) == len(ids) and all(view.state.terminal for view in found):
                return found
            assert time.monotonic() < deadline, views
            sweep_once(self.ledger, self.settings)
            self.work(ctx)
            time.sleep(0.02)

    def judge(self, *ids: str, runs: int = 1) -> None:
        """Nothing is left that could block, and each run of each task has ended once."""
        rows = invariants.read(self.ledger)
        invariants.check(rows)
        assert rows.items == {}
        backlog = self.ledger.backlog()
        assert (backlog.leases, backlog.due, backlog.staged_tokens) == (0, 0, {})
        ends = Counter(
            (event.data["task_id"], event.data["run"])
            for _, event in self.ledger.events("0-0", 1000, 0)
            if event.type.removeprefix("trivet.") in TERMINAL_EVENTS
        )
        assert ends == {(task_id, run): 1 for task_id in ids for run in range(1, runs + 1)}

    def visible(self) -> str:
        """The task whose generation readers see, whole."""
        layout = Layout.of(self.settings, "ns", "docs")
        current = read_pointer(self.store, layout, "o")
        assert current is not None
        manifest = read_manifest(self.store, layout, "o", current.generation)
        assert manifest is not None
        if not current.tombstone:
            groups = read_parts("docs", namespace="ns", columns=["chunk_id"], settings=self.settings, store=self.store)
            chunks = [row for group in groups for row in group.table["chunk_id"].to_pylist()]
            assert len(chunks) == len(set(chunks)) == manifest.receipt.chunks > 0
        return current.task_id


@pytest.fixture
def scene(settings: Settings, store: ObjectStore) -> Iterator[Scene]:
    quick = {"lease_seconds": 0.4, "heartbeat_seconds": 0.1, "model_aliases": {"BAAI/bge-m3": "fake"}}
    changed = settings.model_copy(update=quick)
    made = Scene(changed, store, RedisLedger(changed))
    made.ledger.put_collection(Collection(namespace="ns", name="docs", pipeline=Pipeline()), replace=False)
    prepare._SPECS.clear()
    yield made
    disarm()
    for close in made.closing:
        close()
    made.ledger._client.close()


@pytest.mark.parametrize("place", INGEST)
def test_an_ingest_survives_a_death_at(place: str, scene: Scene) -> None:
    task_id = scene.ingest()
    scene.dies_at(place)
    (view,) = scene.finish(task_id)
    assert view.state is TaskState.COMPLETED, view.error
    scene.judge(task_id)
    assert scene.visible() == task_id


@pytest.mark.parametrize("place", DELETE)
def test_a_delete_survives_a_death_at(place: str, scene: Scene) -> None:
    task_id = scene.ingest()
    scene.finish(task_id)
    deleted = delete_object(scene.ledger, scene.settings, "ns", "docs", "o").task_id
    scene.dies_at(place)
    (view,) = scene.finish(deleted)
    assert view.state is TaskState.DELETED, view.error
    scene.judge(task_id, deleted)
    assert scene.visible() == deleted


@pytest.mark.parametrize(
    "place", ["prepare.after_raw", "prepare.after_ledger", "embed.after_part", "embed.after_claim"]
)
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_a_retry_goes_on_from_a_death_at(place: str, again: bool, scene: Scene) -> None:
    task_id = scene.ingest()
    scene.dies_at(place)
    assert scene.ledger.cancel(task_id) is TaskState.CANCELLED
    scene.ledger.retry(task_id)
    if again:
        scene.dies_at(place)
    (view,) = scene.finish(task_id)
    assert (view.state, view.run) == (TaskState.COMPLETED, 2)
    scene.judge(task_id, runs=2)
    assert scene.visible() == task_id


# ---------------------------------------------------------------- real processes


@pytest.fixture
def source() -> Iterator[Server]:
    pages = {f"/{n}": answer(prose(n, 800).encode(), Content_Type="text/plain") for n in range(12)}
    server = Server(pages)
    yield server
    server.close()


def armed(folder: Path, names: Sequence[str]) -> dict[str, object]:
    """Each place kills one process once; no task may run out of expiries by being there each time."""
    faults = ",".join(f"{place}:kill:1:{folder / place}" for place in names)
    return {"faults": faults, "max_expiries": 100}


def test_processes_that_are_killed_anywhere_in_deletes_and_retries_leave_nothing_behind(
    settings: Settings, source: Server, tmp_path: Path
) -> None:
    live = settings.model_copy(
        update={
            "model_aliases": {"BAAI/bge-m3": "fake"},
            "allow_addresses": (source.place,),
            "lease_seconds": 1.0,
            "heartbeat_seconds": 0.25,
            "sweep_seconds": 0.2,
            "retry_base_seconds": 0.05,
        }
    )
    deaths = [place for place in DELETE if not place.endswith("_read_back")]
    first = ["prepare.after_record", "prepare.before_record", "prepare.after_ledger"]
    deaths += [place for place in first if place in INGEST]
    with fleet(live) as workers:
        client = Trivet(settings=live)
        client.create_collection("docs")
        changes = armed(tmp_path, deaths)
        workers.start("sweep", "--roles", "sweep", **changes)
        # Cancelled before anybody works, and run again: the second run is the one that is killed.
        ids = [client.ingest(source.url(f"/{n}"), collection="docs", object_id=f"o{n}").task_id for n in range(12)]
        for task_id in ids:
            client.task(task_id).cancel()
            client.task(task_id).retry()
        workers.start("cpu", "--roles", "prepare,commit", "--concurrency", "2", **changes)
        workers.start("embed", "--roles", "embed", **changes)
        views = wait_for_all(client, ids)
        assert {(view.state, view.run) for view in views} == {(TaskState.COMPLETED, 2)}, views
        gone = [delete_object(client._ledger, live, "default", "docs", f"o{n}").task_id for n in range(12)]
        ended = wait_for_all(client, gone)
        assert {view.state for view in ended} == {TaskState.DELETED}, ended
        missed = [place for place in deaths if not (tmp_path / place).exists()]
        assert missed == []
        told = terminal_events(client)
        assert {task_id: told[task_id] for task_id in ids} == {task_id: ["cancelled", "completed"] for task_id in ids}
        assert {task_id: told[task_id] for task_id in gone} == {task_id: ["deleted"] for task_id in gone}
        backlog = client.backlog()
        assert (backlog["staged_tokens"], backlog["due"]) == ({}, 0)
    store, layout = open_store(live), Layout.of(live, "default", "docs")
    for n, task_id in enumerate(gone):
        current = read_pointer(store, layout, f"o{n}")
        assert current is not None
        assert (current.tombstone, current.task_id) == (True, task_id)
    assert list(read_parts("docs", settings=live)) == []

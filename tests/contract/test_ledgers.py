"""What every ledger must do, whichever keeps it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from trivet.clock import Clock, ManualClock, SystemClock
from trivet.errors import IdempotencyConflict, LeaseLost, TooLate, UnknownCollection, UnknownTask
from trivet.ids import event_id
from trivet.ledger import Accepted, Ledger, NewTask
from trivet.ledger.memory import MemoryLedger
from trivet.ledger.redis import RedisLedger
from trivet.names import TERMINAL_EVENTS, Lane, Stage
from trivet.settings import Settings
from trivet.values import (
    Collection,
    ErrorRecord,
    Event,
    Lease,
    ModelIdentity,
    Part,
    Pipeline,
    Receipt,
    Spec,
    TaskState,
)

MODEL = ModelIdentity(
    requested="BAAI/bge-m3",
    name="m",
    revision="1",
    encoder_key="k" * 16,
    dimensions=8,
    colbert_dimensions=8,
    max_tokens=512,
    pooling="cls",
)
SPEC = Spec(pipeline=Pipeline(), model=MODEL)
CRASH = ErrorRecord(code="worker_crashed", message="It died.", transient=True)
SHORT = 0.2  # seconds of a lease that is meant to expire


@dataclass
class Desk:
    """A ledger with what a test does over and over."""

    ledger: Ledger
    clock: Clock
    rung: list[tuple[Stage, str, str]] = field(default_factory=list)
    _operations: Iterator[int] = field(default_factory=itertools.count)

    def task(self, object_id: str = "o", namespace: str = "ns", lane: Lane = Lane.NORMAL, **extra: object) -> NewTask:
        fields = {
            "task_id": f"task_{next(self._operations):032x}",
            "namespace": namespace,
            "collection": "c",
            "object_id": object_id,
            "lane": lane,
            "url": "https://host/path?…",
            "secret_url": "https://host/path?token=hidden",
            "metadata": "{}",
            "media_type": "",
            "idempotency_key": "",
            "fingerprint": "f",
            "estimated_bytes": 1000,
        }
        return NewTask(**{**fields, **extra})  # type: ignore[arg-type]  # the fields above are complete

    def accept(self, object_id: str = "o", **fields: object) -> str:
        return self.ledger.accept(self.task(object_id, **fields), 60).task_id  # type: ignore[arg-type]  # test input

    def claim(self, stage: Stage, worker: str = "w", **how: object) -> list[Lease]:
        options = {"queues": [MODEL.encoder_key], **how}
        return self.ledger.claim(stage, worker, f"op{next(self._operations)}", **options)  # type: ignore[arg-type]

    def one(self, stage: Stage, worker: str = "w", **how: object) -> Lease:
        (lease,) = self.claim(stage, worker, **how)
        return lease

    def staged(self, object_id: str = "o", shards: int = 2, tokens: int = 100, **fields: object) -> str:
        task_id = self.accept(object_id, **fields)
        lease = self.one(Stage.PREPARE)
        self.stage(lease, shards, tokens)
        return task_id

    def stage(self, lease: Lease, shards: int = 2, tokens: int = 100) -> None:
        self.ledger.allocate(lease, 0, SPEC)
        work = [(tokens, f"h{n}") for n in range(shards)]
        self.ledger.stage(lease, MODEL.encoder_key, "sha", work, pages=1, chunks=shards, fetched_bytes=1000)

    def done(self, lease: Lease) -> None:
        part = Part(
            shard=lease.n, key=f"k{lease.n}", sha256="s", bytes=1, rows=1, tokens=lease.cost, input_hash=f"h{lease.n}"
        )
        self.ledger.shard_done(lease, part, "{}")

    def committed(self, object_id: str = "o") -> str:
        task_id = self.staged(object_id)
        for lease in self.claim(Stage.EMBED, budget=10_000, most=10):
            self.done(lease)
        lease = self.one(Stage.COMMIT)
        self.ledger.committing(lease)
        self.ledger.finish(lease, TaskState.COMPLETED, manifest="m", receipt=Receipt())
        return task_id

    def state(self, task_id: str) -> TaskState:
        view = self.ledger.task(task_id)
        assert view is not None
        return view.state

    def events(self, task_id: str) -> list[Event]:
        return [event for _, event in self.ledger.events("0-0", 1000, 0) if event.data["task_id"] == task_id]

    def kinds(self, task_id: str) -> list[str]:
        return [event.type.removeprefix("trivet.ingest.") for event in self.events(task_id)]

    def sweep(self, max_expiries: int = 5, retention: float = 1000.0) -> int:
        swept = self.ledger.sweep(
            lease_seconds=SHORT, max_expiries=max_expiries, retention_seconds=retention, error=CRASH
        )
        return swept.expired

    def let_bells_age(self, seconds: float) -> None:
        """As if the time had passed; a real server's clock cannot be turned, so its bells are."""
        if isinstance(self.clock, ManualClock):
            self.clock.advance(seconds)
            return
        assert isinstance(self.ledger, RedisLedger)
        client, key = self.ledger._client, self.ledger._key("bells", "prepare", "any")
        for bell in client.zrange(key, 0, -1):
            client.zincrby(key, -1000 * seconds, bell)

    def expire(self, **options: int) -> int:
        """Let leases of SHORT run out, with sweeps as often as a sweeper makes them."""
        expired = self.sweep(**options)
        for _ in range(8):
            self.clock.sleep(SHORT / 5)
            expired += self.sweep(**options)
        return expired


@pytest.fixture(params=["redis", "memory"])
def desk(request: pytest.FixtureRequest) -> Desk:
    rung: list[tuple[Stage, str, str]] = []

    def ring(stage: Stage, door: str, bell: str) -> None:
        rung.append((stage, door, bell))

    if request.param == "memory":
        clock = ManualClock()
        made = Desk(MemoryLedger(ring, clock), clock, rung)
    else:
        settings: Settings = request.getfixturevalue("settings")
        made = Desk(RedisLedger(settings, ring), SystemClock(), rung)
    for namespace in ("ns", "other"):
        made.ledger.put_collection(Collection(namespace=namespace, name="c"), replace=False)
    return made


class TestAccept:
    def test_a_task_is_queued_and_one_bell_rings(self, desk: Desk) -> None:
        task_id = desk.accept()
        assert desk.state(task_id) is TaskState.QUEUED
        assert [(stage, door) for stage, door, _ in desk.rung] == [(Stage.PREPARE, "any")]

    def test_an_unknown_collection_is_refused_and_nothing_is_written(self, desk: Desk) -> None:
        with pytest.raises(UnknownCollection, match="trivet collections create"):
            desk.accept(collection="nowhere")
        assert desk.ledger.tasks("ns", collection=None, state=None, limit=10) == []
        assert desk.ledger.events("0-0", 10, 0) == []

    def test_the_same_task_twice_is_one_task(self, desk: Desk) -> None:
        task = desk.task()
        assert desk.ledger.accept(task, 60) == Accepted(task.task_id, "queued", True)
        assert desk.ledger.accept(task, 60) == Accepted(task.task_id, "queued", False)
        assert desk.kinds(task.task_id) == ["accepted"]

    def test_an_idempotency_key_gives_the_first_task_and_refuses_another_request(self, desk: Desk) -> None:
        first = desk.accept("a", idempotency_key="key")
        assert desk.accept("a", idempotency_key="key") == first
        assert desk.accept("a", idempotency_key="key", namespace="other") != first
        with pytest.raises(IdempotencyConflict, match=first):
            desk.accept("b", idempotency_key="key", fingerprint="g")

    def test_an_object_has_one_active_task_and_waiters_coalesce_to_the_newest(self, desk: Desk) -> None:
        first, second, third = desk.accept(), desk.accept(), desk.accept()
        assert [desk.state(t) for t in (first, second, third)] == ["queued", "superseded", "waiting"]
        assert desk.kinds(second) == ["accepted", "superseded"]
        lease = desk.one(Stage.PREPARE)
        assert lease.task_id == first
        assert desk.claim(Stage.PREPARE) == []
        desk.ledger.finish(lease, TaskState.SKIPPED, manifest="", receipt=Receipt())
        assert desk.one(Stage.PREPARE).task_id == third

    def test_a_collection_changed_afterwards_changes_no_accepted_task(self, desk: Desk) -> None:
        desk.accept()
        changed = Collection(namespace="ns", name="c", pipeline=Pipeline(model_id="other"))
        desk.ledger.put_collection(changed, replace=True)
        config = json.loads(desk.one(Stage.PREPARE).payload)["config"]
        assert Collection.model_validate_json(config).pipeline == Pipeline()

    def test_a_query_string_reaches_the_fetcher_but_no_view_and_no_event(self, desk: Desk) -> None:
        task_id = desk.committed()
        seen = repr(desk.ledger.task(task_id)) + repr(desk.events(task_id))
        assert "hidden" not in seen
        desk.accept("another")
        assert json.loads(desk.one(Stage.PREPARE).payload)["url"].endswith("token=hidden")

    def test_doorbells_never_stand_more_than_two_per_worker(self, desk: Desk) -> None:
        for n in range(20):
            desk.accept(f"o{n}")
        assert len(desk.rung) == 2
        desk.ledger.heartbeat("w1", [], lease_seconds=20, roles=[Stage.PREPARE], info="{}")
        desk.ledger.heartbeat("w2", [], lease_seconds=20, roles=[Stage.PREPARE], info="{}")
        for n in range(20, 40):
            desk.accept(f"o{n}")
        assert len(desk.rung) == 4
        desk.ledger.answer(*desk.rung[0], again=False)
        desk.accept("last")
        assert len(desk.rung) == 5


class TestTheWay:
    def test_a_task_goes_from_accept_to_completed_with_one_event_each(self, desk: Desk) -> None:
        task_id = desk.committed()
        assert desk.state(task_id) is TaskState.COMPLETED
        assert desk.kinds(task_id) == ["accepted", "started", "completed"]
        assert all(e.id == event_id(task_id, 1, e.type.removeprefix("trivet.")) for e in desk.events(task_id))
        view = desk.ledger.task(task_id)
        assert view is not None
        assert (view.shards_done, view.tokens_done, view.manifest_key, view.generation) == (2, 200, "m", 1)
        assert desk.ledger.backlog().staged_tokens == {}

    def test_generations_only_grow_and_never_fall_below_what_s3_holds(self, desk: Desk) -> None:
        desk.committed()
        desk.accept()
        lease = desk.one(Stage.PREPARE)
        assert desk.ledger.allocate(lease, 1, SPEC)[0] == 2
        assert desk.ledger.allocate(lease, 50, SPEC)[0] == 2
        desk.ledger.finish(lease, TaskState.SKIPPED, manifest="", receipt=Receipt())
        desk.accept()
        assert desk.ledger.allocate(desk.one(Stage.PREPARE), 50, SPEC)[0] == 51

    def test_the_spec_is_frozen_by_the_first_prepare(self, desk: Desk) -> None:
        desk.accept()
        lease = desk.one(Stage.PREPARE)
        desk.ledger.allocate(lease, 0, SPEC)
        other = Spec(pipeline=Pipeline(), model=MODEL.model_copy(update={"revision": "2"}))
        assert desk.ledger.allocate(lease, 0, other)[1] == SPEC

    def test_every_transition_twice_is_the_same_as_once(self, desk: Desk) -> None:
        task_id = desk.accept()
        lease = desk.one(Stage.PREPARE)
        desk.stage(lease)
        desk.ledger.stage(
            lease, MODEL.encoder_key, "sha", [(100, "h0"), (100, "h1")], pages=1, chunks=2, fetched_bytes=1000
        )
        shards = desk.claim(Stage.EMBED, budget=1000, most=10)
        assert [s.n for s in shards] == [0, 1]
        for shard in shards:
            desk.done(shard)
            desk.done(shard)
        commit = desk.one(Stage.COMMIT)
        assert desk.ledger.committing(commit) == desk.ledger.committing(commit)
        for _ in range(2):
            desk.ledger.finish(commit, TaskState.COMPLETED, manifest="m", receipt=Receipt())
        assert desk.kinds(task_id) == ["accepted", "started", "completed"]

    def test_the_same_claim_again_gives_the_same_leases(self, desk: Desk) -> None:
        desk.accept("a")
        desk.accept("b")
        first = desk.ledger.claim(Stage.PREPARE, "w", "op", budget=1)
        assert desk.ledger.claim(Stage.PREPARE, "w", "op", budget=1) == first
        assert desk.ledger.claim(Stage.PREPARE, "w", "op2", budget=1) != first

    def test_a_foreign_generation_has_all_shards_written_again_under_a_new_one(self, desk: Desk) -> None:
        task_id = desk.staged()
        for lease in desk.claim(Stage.EMBED, budget=1000, most=10):
            desk.done(lease)
        desk.ledger.restage(desk.one(Stage.COMMIT), floor=7)
        again = desk.claim(Stage.EMBED, budget=1000, most=10)
        assert [json.loads(lease.payload)["generation"] for lease in again] == [8, 8]
        for lease in again:
            desk.done(lease)
        assert [part.shard for part, _ in desk.ledger.committing(desk.one(Stage.COMMIT))] == [0, 1]
        assert desk.kinds(task_id) == ["accepted", "started"]


class TestLeases:
    def test_a_stale_epoch_is_refused_everywhere(self, desk: Desk) -> None:
        desk.accept()
        stale = desk.one(Stage.PREPARE, lease_seconds=SHORT)
        assert desk.expire() == 1
        fresh = desk.one(Stage.PREPARE, "w2")
        assert fresh.item == stale.item
        for attempt in (
            lambda: desk.ledger.allocate(stale, 0, SPEC),
            lambda: desk.stage(stale),
            lambda: desk.done(stale),
            lambda: desk.ledger.committing(stale),
            lambda: desk.ledger.restage(stale, 0),
            lambda: desk.ledger.finish(stale, TaskState.SKIPPED, manifest="", receipt=Receipt()),
            lambda: desk.ledger.fail(stale, CRASH, delay_seconds=0, max_attempts=3),
        ):
            with pytest.raises(LeaseLost):
                attempt()
        desk.ledger.release([stale])
        assert desk.ledger.heartbeat("w", [stale], lease_seconds=20, roles=[], info="{}") == {stale.item}
        assert desk.ledger.heartbeat("w2", [fresh], lease_seconds=20, roles=[], info="{}") == set()

    def test_a_heartbeat_keeps_a_lease(self, desk: Desk) -> None:
        desk.accept()
        lease = desk.one(Stage.PREPARE, lease_seconds=SHORT)
        for _ in range(3):
            desk.clock.sleep(SHORT / 2)
            assert desk.ledger.heartbeat("w", [lease], lease_seconds=SHORT, roles=[], info="{}") == set()
            assert desk.sweep() == 0

    def test_a_release_charges_nothing_and_keeps_the_place(self, desk: Desk) -> None:
        first, second = desk.accept("a"), desk.accept("b")
        for _ in range(10):
            lease = desk.one(Stage.PREPARE)
            assert (lease.task_id, lease.attempts) == (first, 0)
            desk.ledger.release([lease])
        desk.one(Stage.PREPARE)
        assert desk.one(Stage.PREPARE).task_id == second

    def test_a_farewell_gives_everything_back(self, desk: Desk) -> None:
        desk.staged(shards=3)
        assert len(desk.claim(Stage.EMBED, "gone", budget=1000, most=10)) == 3
        assert desk.ledger.farewell("gone") == 3
        assert len(desk.claim(Stage.EMBED, "w2", budget=1000, most=10)) == 3

    def test_errors_are_charged_and_the_third_fails_the_task(self, desk: Desk) -> None:
        task_id = desk.accept()
        for attempt in range(3):
            lease = desk.one(Stage.PREPARE)
            assert lease.attempts == attempt
            outcome = desk.ledger.fail(lease, CRASH, delay_seconds=0.01, max_attempts=3)
            desk.clock.sleep(0.05)
            desk.sweep()
        assert outcome == "failed"
        assert desk.state(task_id) is TaskState.FAILED
        assert desk.kinds(task_id) == ["accepted", "failed"]
        assert desk.events(task_id)[-1].data["error"]["code"] == "worker_crashed"

    def test_a_retry_waits_its_delay(self, desk: Desk) -> None:
        task_id = desk.accept()
        desk.ledger.fail(desk.one(Stage.PREPARE), CRASH, delay_seconds=0.3, max_attempts=3)
        desk.sweep()
        assert desk.claim(Stage.PREPARE) == []
        assert "tried again" in desk.ledger.task(task_id).reason  # type: ignore[union-attr]  # the task is there
        desk.clock.sleep(0.35)
        desk.sweep()
        assert desk.one(Stage.PREPARE).task_id == task_id

    def test_a_permanent_error_fails_at_once(self, desk: Desk) -> None:
        task_id = desk.accept()
        error = ErrorRecord(code="source_not_found", message="404", transient=False)
        assert desk.ledger.fail(desk.one(Stage.PREPARE), error, delay_seconds=9, max_attempts=3) == "failed"
        assert desk.state(task_id) is TaskState.FAILED

    def test_one_failed_shard_ends_its_task_and_leaves_others_alone(self, desk: Desk) -> None:
        bad, good = desk.staged("bad"), desk.staged("good")
        leases = desk.claim(Stage.EMBED, budget=1000, most=10)
        broken = next(lease for lease in leases if lease.task_id == bad)
        permanent = ErrorRecord(code="x", message="no")
        desk.ledger.fail(broken, permanent, delay_seconds=0, max_attempts=3)
        for lease in leases:
            if lease.task_id == good:
                desk.done(lease)
            elif lease != broken:
                with pytest.raises(LeaseLost):
                    desk.done(lease)
        desk.ledger.finish(desk.one(Stage.COMMIT), TaskState.COMPLETED, manifest="m", receipt=Receipt())
        assert (desk.state(bad), desk.state(good)) == (TaskState.FAILED, TaskState.COMPLETED)
        assert desk.ledger.backlog().staged_tokens == {}

    def test_a_crash_among_others_charges_nobody_and_has_each_leased_alone(self, desk: Desk) -> None:
        desk.staged(shards=3)
        assert len(desk.claim(Stage.EMBED, "dead", budget=1000, most=10, lease_seconds=SHORT)) == 3
        assert desk.expire(max_expiries=1) == 3
        for n in range(3):
            (lease,) = desk.claim(Stage.EMBED, f"w{n}", budget=1000, most=10)
            assert lease.alone
            assert desk.claim(Stage.EMBED, f"w{n}", budget=1000, most=10) == []
            desk.done(lease)
        assert desk.one(Stage.COMMIT)

    def test_an_item_that_kills_alone_fails_after_the_cap_and_its_neighbours_live(self, desk: Desk) -> None:
        poison, healthy = desk.staged("poison", shards=1), desk.staged("healthy", shards=1)
        worker = itertools.count()
        for _ in range(12):
            leases = desk.claim(Stage.EMBED, f"w{next(worker)}", budget=1000, most=10, lease_seconds=SHORT)
            if any(lease.task_id == poison for lease in leases):
                desk.expire(max_expiries=2)  # the whole process dies with all that it holds
            else:
                for lease in leases:
                    desk.done(lease)
        assert desk.state(poison) is TaskState.FAILED
        assert desk.state(healthy) is TaskState.EMBEDDING
        assert desk.one(Stage.COMMIT).task_id == healthy

    def test_an_outage_charges_nothing_until_patience_is_over(self, desk: Desk) -> None:
        task_id = desk.accept()
        for attempt in range(8):
            lease = desk.one(Stage.PREPARE)
            assert lease.attempts == 0
            patience = 60.0 if attempt < 7 else 0.01
            outcome = desk.ledger.fail(lease, CRASH, delay_seconds=0.001, max_attempts=2, patience_seconds=patience)
            desk.clock.sleep(0.02)
            desk.sweep()
        assert outcome == "failed"
        assert desk.state(task_id) is TaskState.FAILED

    def test_leases_that_ran_out_while_nobody_swept_are_not_blamed(self, desk: Desk) -> None:
        desk.staged(shards=3)
        leases = desk.claim(Stage.EMBED, budget=1000, most=10, lease_seconds=SHORT)
        desk.sweep()
        desk.clock.sleep(SHORT * 3)  # the ledger was away: nobody could keep a lease, and nobody swept
        assert desk.sweep() == 0
        assert desk.ledger.heartbeat("w", leases, lease_seconds=SHORT, roles=[], info="{}") == set()

    def test_suspects_are_served_while_two_queues_are_full(self, desk: Desk) -> None:
        suspect = desk.staged("suspect", shards=1)
        desk.claim(Stage.EMBED, "dead", budget=1000, most=10, lease_seconds=SHORT)
        desk.expire()
        queues = [MODEL.encoder_key, f"{MODEL.encoder_key}.fp32"]
        served = []
        for n in range(12):
            for queue in queues:
                desk.accept(f"{n}-{queue}")
                lease = desk.one(Stage.PREPARE)
                desk.ledger.allocate(lease, 0, SPEC)
                desk.ledger.stage(lease, queue, "sha", [(100, "h")], pages=1, chunks=1, fetched_bytes=1)
        for n in range(8):
            found = desk.claim(Stage.EMBED, f"w{n}", queues=queues, budget=100, most=10)
            served += [lease.task_id for lease in found]
        assert suspect in served


class TestFairness:
    def test_more_models_give_a_namespace_no_more_of_prepare(self, desk: Desk) -> None:
        for n in range(5):
            pipeline = Pipeline(model_id=f"model-{n}")
            desk.ledger.put_collection(Collection(namespace="other", name=f"c{n}", pipeline=pipeline), replace=False)
        for n in range(60):
            desk.accept(f"g{n}", namespace="other", collection=f"c{n % 5}")
            desk.accept(f"o{n}")
        first = [desk.one(Stage.PREPARE).namespace for _ in range(40)]
        assert 18 <= first.count("ns") <= 22

    def test_a_lane_counts_across_queues(self, desk: Desk) -> None:
        queues = [MODEL.encoder_key, f"{MODEL.encoder_key}.fp32"]
        for n in range(20):
            for queue, lane in zip(queues, (Lane.INTERACTIVE, Lane.BULK), strict=True):
                desk.accept(f"{n}-{lane}", lane=lane)
                lease = desk.one(Stage.PREPARE)
                desk.ledger.allocate(lease, 0, SPEC)
                desk.ledger.stage(lease, queue, "sha", [(100, "h")], pages=1, chunks=1, fetched_bytes=1)
        objects = [desk.one(Stage.EMBED, queues=queues).object_id for _ in range(15)]
        assert sum(object_id.endswith("bulk") for object_id in objects) <= 2

    def test_a_retried_shard_does_not_turn_the_clock_back(self, desk: Desk) -> None:
        desk.staged("big", shards=60, tokens=1000)
        first = desk.one(Stage.EMBED)
        for _ in range(30):
            desk.done(desk.one(Stage.EMBED))
        desk.ledger.release([first])
        assert desk.one(Stage.EMBED).item == first.item
        small = desk.staged("small", shards=1, tokens=10)
        before = [desk.one(Stage.EMBED).task_id for _ in range(3)]
        assert small in before
        late = desk.staged("late", shards=1, tokens=20_000)
        assert late not in [desk.one(Stage.EMBED).task_id for _ in range(10)]

    def test_an_encoder_that_nobody_serves_stops_only_its_own_tasks(self, desk: Desk) -> None:
        pinned = Collection(namespace="ns", name="pinned", pipeline=Pipeline(dtype="bf16"))
        desk.ledger.put_collection(pinned, replace=False)
        desk.staged("a", shards=2, tokens=500, collection="pinned")
        blocked, free = desk.accept("b", collection="pinned"), desk.accept("c")
        assert [lease.task_id for lease in desk.claim(Stage.PREPARE, budget=10**9, most=9, max_staged_tokens=900)] == [
            free
        ]
        assert desk.state(blocked) is TaskState.QUEUED

    def test_an_interactive_task_goes_before_a_thousand_bulk_ones(self, desk: Desk) -> None:
        for n in range(1000 if isinstance(desk.ledger, MemoryLedger) else 300):
            desk.accept(f"b{n}", lane=Lane.BULK)
        for _ in range(20):
            desk.one(Stage.PREPARE)
        urgent = desk.accept("urgent", lane=Lane.INTERACTIVE)
        assert urgent in {desk.one(Stage.PREPARE).task_id for _ in range(2)}

    def test_a_namespace_that_dumps_does_not_delay_another(self, desk: Desk) -> None:
        for n in range(200):
            desk.accept(f"d{n}")
        for _ in range(50):
            desk.one(Stage.PREPARE)
        late = desk.accept("one", namespace="other")
        assert late in {desk.one(Stage.PREPARE).task_id for _ in range(2)}

    def test_a_small_object_does_not_wait_for_a_big_one(self, desk: Desk) -> None:
        desk.staged("big", shards=100, tokens=4000)
        for _ in range(3):
            desk.claim(Stage.EMBED, budget=4000, most=10)
        small = desk.staged("small", shards=1, tokens=50)
        assert small in {lease.task_id for lease in desk.claim(Stage.EMBED, budget=8000, most=10)}

    def test_a_claim_fills_its_budget_past_a_shard_that_does_not_fit(self, desk: Desk) -> None:
        desk.staged("a", shards=1, tokens=600)
        desk.staged("b", shards=1, tokens=700)
        desk.staged("c", shards=1, tokens=300)
        costs = [lease.cost for lease in desk.claim(Stage.EMBED, budget=1000, most=10)]
        assert sum(costs) <= 1000
        assert len(costs) == 2

    def test_prepare_pauses_while_too_many_tokens_are_staged(self, desk: Desk) -> None:
        desk.staged("a", shards=2, tokens=500)
        desk.accept("b")
        assert desk.claim(Stage.PREPARE, max_staged_tokens=999) == []
        assert len(desk.claim(Stage.PREPARE, max_staged_tokens=1000)) == 1


class TestCancel:
    @pytest.mark.parametrize("when", ["waiting", "queued", "preparing", "embedding", "due"])
    def test_a_cancelled_tasks_work_disappears_at_once(self, desk: Desk, when: str) -> None:
        if when == "waiting":
            desk.accept()
        task_id = desk.staged() if when == "embedding" else desk.accept()
        lease = None
        if when in ("preparing", "due"):
            lease = desk.one(Stage.PREPARE)
        if when == "embedding":
            lease = desk.claim(Stage.EMBED, budget=1000, most=1)[0]
        if when == "due" and lease:
            desk.ledger.fail(lease, CRASH, delay_seconds=0, max_attempts=3)
        assert desk.ledger.cancel(task_id) is TaskState.CANCELLED
        assert desk.ledger.cancel(task_id) is TaskState.CANCELLED
        desk.sweep()
        if lease and when != "due":
            with pytest.raises(LeaseLost):
                desk.done(lease)
        assert desk.claim(Stage.EMBED, budget=1000, most=10) == []
        assert task_id not in {lease.task_id for lease in desk.claim(Stage.PREPARE, "w2", budget=10**9, most=10)}
        assert [kind for kind in desk.kinds(task_id) if f"ingest.{kind}" in TERMINAL_EVENTS] == ["cancelled"]
        assert desk.ledger.backlog().staged_tokens == {}

    def test_a_cancel_while_committing_is_too_late(self, desk: Desk) -> None:
        task_id = desk.staged(shards=1)
        desk.done(desk.one(Stage.EMBED))
        lease = desk.one(Stage.COMMIT)
        desk.ledger.committing(lease)
        with pytest.raises(TooLate, match="committing"):
            desk.ledger.cancel(task_id)
        desk.ledger.finish(lease, TaskState.COMPLETED, manifest="m", receipt=Receipt())
        assert desk.ledger.cancel(task_id) is TaskState.COMPLETED

    def test_a_cancelled_task_makes_room_for_the_one_that_waits(self, desk: Desk) -> None:
        first, second = desk.accept(), desk.accept()
        desk.ledger.cancel(first)
        assert desk.state(second) is TaskState.QUEUED
        assert desk.one(Stage.PREPARE).task_id == second

    def test_an_unknown_task_is_said_to_be_unknown(self, desk: Desk) -> None:
        with pytest.raises(UnknownTask, match="task_nope"):
            desk.ledger.cancel("task_nope")


class TestSweep:
    def test_lost_doorbells_are_rung_again(self, desk: Desk) -> None:
        desk.accept()
        desk.ledger.answer(*desk.rung.pop(), again=False)
        desk.sweep()
        assert [stage for stage, _, _ in desk.rung] == [Stage.PREPARE]

    def test_an_answer_rings_again_only_where_work_is_left(self, desk: Desk) -> None:
        desk.accept()
        bell = desk.rung.pop()
        desk.ledger.answer(*bell, again=True)
        assert len(desk.rung) == 1
        desk.one(Stage.PREPARE)
        desk.ledger.answer(*desk.rung.pop(), again=True)
        assert desk.rung == []

    def test_a_door_that_nobody_answers_is_rung_less_and_less(self, desk: Desk) -> None:
        desk.accept()
        for _ in range(60):
            desk.let_bells_age(31)
            desk.sweep()
        assert len(desk.rung) < 20
        before = len(desk.rung)
        desk.ledger.heartbeat("new", [], lease_seconds=20, roles=[Stage.PREPARE], info="{}")
        desk.sweep()
        assert len(desk.rung) > before

    def test_ended_tasks_leave_after_their_retention_and_others_stay(self, desk: Desk) -> None:
        ended, alive = desk.committed("a"), desk.accept("b")
        desk.clock.sleep(0.1)
        desk.sweep(retention=0.05)
        assert desk.ledger.task(ended) is None
        assert desk.ledger.task(alive) is not None
        assert [view.task_id for view in desk.ledger.tasks("ns", collection=None, state=None, limit=10)] == [alive]

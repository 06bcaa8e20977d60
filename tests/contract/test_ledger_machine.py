"""The ledger in Redis against its twin, step by step, through whatever Hypothesis thinks of.

`make machine` takes many more steps. Time decides nothing in the first machine; in the second leases run out.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.contract.ledger import invariants
from tests.contract.ledger.desk import CRASH, MODEL, PERMANENT, SPEC
from trivet.errors import LeaseLost, TrivetError
from trivet.ledger import NewTask
from trivet.ledger.memory import MemoryLedger
from trivet.ledger.memory_queues import Item
from trivet.ledger.redis import RedisLedger
from trivet.ledger.transitions import ALLOWED
from trivet.names import TERMINAL_EVENTS, Lane, Stage, TaskKind
from trivet.settings import Settings
from trivet.values import Collection, Event, Lease, Part, Receipt, TaskState

NAMESPACES, COLLECTIONS, OBJECTS, WORKERS = ("ns", "other"), ("c", "d"), ("o", "p"), ("v", "w", "x")
FOR_EVER = 10_000.0
LONG = hypothesis_settings.get_current_profile_name() == "machine"
STEPS: Counter[str] = Counter()

numbers = st.integers(0, 1000)


class Model(MemoryLedger):
    """The twin; it leases what Redis has leased, if it may."""

    follow: Sequence[str] = ()

    def _take(self, stage: Stage, may: Sequence[str], budget: int, most: int, *, idle: bool) -> list[Item]:
        waits = {i.id: i for i in self._queues.items.values() if i.stage is stage and i.state == "pending"}
        able = {item_id for item_id, item in waits.items() if item.queue in may}
        assert set(self.follow) <= able, "Redis has leased what nobody may lease"
        assert bool(self.follow) == bool(able), f"Redis has leased nothing of {able}"
        assert len(self.follow) <= most
        costs = [waits[item_id].cost for item_id in self.follow]
        assert len(costs) <= 1 or sum(costs) <= budget
        for item_id in self.follow:
            self._queues._unqueue(waits[item_id])
        return [waits[item_id] for item_id in self.follow]


@dataclass(frozen=True)
class Pair:
    """One lease, as each of the two gave it."""

    real: Lease
    twin: Lease


@dataclass(frozen=True)
class Verb:
    """One call on a ledger with a lease, and the one that must come before it."""

    call: Callable[[Any, Lease], object]
    before: Callable[[Any, Lease], object] | None = None
    #: The lease is no longer held after it.
    ends: bool = True


def outcome(call: Callable[[], object]) -> object:
    """The answer, or the kind of error."""
    try:
        return call()
    except TrivetError as error:
        return type(error)


def part_of(lease: Lease) -> Part:
    return Part(
        shard=lease.n, key=f"k{lease.n}", sha256="s", bytes=1, rows=1, tokens=lease.cost, input_hash=f"h{lease.n}"
    )


class Machine(RuleBasedStateMachine):
    """What both machines do: drive Redis, and hold its rows against the invariants after each step."""

    lease_seconds = FOR_EVER

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        super().__init__()
        self.settings = settings.model_copy(
            update={"redis_prefix": f"m{uuid.uuid4().hex[:12]}:", "progress_seconds": 1e6}
        )
        self.real = RedisLedger(self.settings, client=client)
        self.ids: list[str] = []
        self.held: list[Pair] = []
        self.stale: list[Pair] = []
        self.epochs = 0
        self.operations = 0
        self.seen: dict[str, TaskState] = {}
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.last_event = "0-0"

    def teardown(self) -> None:
        """Leave no key behind."""
        client = self.real._client
        if keys := client.keys(self.real._key("*")):
            client.delete(*keys)

    # ------------------------------------------------------------ what the two machines differ in

    def both(self, call: Callable[[Any], object]) -> object:
        """The same call on whatever is driven; the answers are the same."""
        return outcome(lambda: call(self.real))

    def with_lease(self, pair: Pair, call: Callable[[Any, Lease], object]) -> object:
        """As `both`, each with its own lease."""
        return outcome(lambda: call(self.real, pair.real))

    def claim_twin(self, stage: Stage, worker: str, operation: str, leases: list[Lease], **how: Any) -> list[Lease]:
        """What the twin leases."""
        return leases

    # ------------------------------------------------------------ steps

    def new_task(self, where: int, lane: Lane, kind: TaskKind, key: str) -> NewTask:
        object_id = OBJECTS[where % 2]
        task_id = f"task_{len(self.ids):032x}"
        self.ids.append(task_id)
        return NewTask(
            task_id=task_id,
            namespace=NAMESPACES[where // 2 % 2],
            collection=COLLECTIONS[where // 4 % 2],
            object_id=object_id,
            lane=lane,
            url="https://host/?…",
            secret_url="https://host/?secret" if where % 3 else "",
            metadata="{}",
            media_type="",
            idempotency_key=key,
            fingerprint=object_id,
            estimated_bytes=100,
            kind=kind,
        )

    @initialize()
    def collections(self) -> None:
        for namespace, name in itertools.product(NAMESPACES, COLLECTIONS):
            made = Collection(namespace=namespace, name=name)
            self.both(methodcaller("put_collection", made, replace=False))

    @rule(
        # Few objects more often: tasks of one object meet there.
        where=st.integers(0, 23) | st.just(1),
        lane=st.sampled_from(Lane),
        kind=st.sampled_from([TaskKind.INGEST, TaskKind.INGEST, TaskKind.INGEST, TaskKind.DELETE]),
        key=st.sampled_from(["", "", "k1", "k2"]),
        twice=st.booleans(),
    )
    def accept(self, where: int, lane: Lane, kind: TaskKind, key: str, twice: bool) -> None:
        task = self.new_task(where, lane, kind, key)
        for _ in range(1 + twice):
            self.both(lambda ledger: ledger.accept(task, FOR_EVER))

    @rule(
        stage=st.sampled_from(Stage),
        worker=st.sampled_from(WORKERS),
        budget=st.sampled_from([1, 250, 10**6]),
        most=st.integers(1, 5),
        twice=st.booleans(),
    )
    def claim(self, stage: Stage, worker: str, budget: int, most: int, twice: bool) -> None:
        self.operations += 1
        operation = f"op{self.operations}"
        how = {"queues": [MODEL.encoder_key], "budget": budget, "most": most, "lease_seconds": self.lease_seconds}
        leases = self.real.claim(stage, worker, operation, **how)
        for lease in leases:
            assert lease.epoch > self.epochs, "an epoch was given twice"
            self.epochs = lease.epoch
        twins = self.claim_twin(stage, worker, operation, leases, **how)
        if twice:
            assert self.real.claim(stage, worker, operation, **how) == leases
            assert self.claim_twin(stage, worker, operation, leases, **how) == twins
        assert [lease.item for lease in twins] == [lease.item for lease in leases]
        assert [(t.cost, t.attempts) for t in twins] == [(r.cost, r.attempts) for r in leases]
        self.held += [Pair(real, twin) for real, twin in zip(leases, twins, strict=True)]

    @rule(which=numbers, verb=numbers, shards=st.integers(1, 3), twice=st.booleans())
    def work(self, which: int, verb: int, shards: int, twice: bool) -> None:
        # No precondition: what is held depends on the time, and Hypothesis must be able to do the same again.
        if self.held:
            self.work_with(self.held[which % len(self.held)], verb, shards, twice=twice)

    def work_with(self, pair: Pair, verb: int, shards: int, *, twice: bool) -> None:
        """What a worker does to one item; done twice, the answer is the same, or that the lease is lost."""
        chosen = self.verb(pair.real, verb, shards)
        if chosen.before:
            self.with_lease(pair, chosen.before)
            self.look()
        answer = self.with_lease(pair, chosen.call)
        if twice:
            again = self.with_lease(pair, chosen.call)
            assert again == answer or (chosen.ends and again in (LeaseLost, "again"))
        if chosen.ends and pair in self.held:
            self.held.remove(pair)
            self.stale.append(pair)

    @rule(worker=st.sampled_from(WORKERS), verbs=st.lists(numbers, min_size=1, max_size=6), rounds=st.integers(1, 3))
    def go_on(self, worker: str, verbs: list[int], rounds: int) -> None:
        """Whatever waits is leased and worked on: else few tasks would ever come far."""
        for _, stage in itertools.product(range(rounds), Stage):
            self.claim(stage, worker, budget=10**6, most=5, twice=False)
            self.look()
            for number, pair in zip(itertools.cycle(verbs), list(self.held), strict=False):
                if pair in self.held:
                    self.work_with(pair, number, 1 + number % 3, twice=number % 5 == 0)
                    self.look()

    def look(self) -> None:
        """What is looked at after each step of Hypothesis' own."""
        self.holds()

    @rule(which=numbers, verb=numbers, shards=st.integers(1, 3))
    def work_with_a_lost_lease(self, which: int, verb: int, shards: int) -> None:
        if not self.stale:
            return
        pair = self.stale[which % len(self.stale)]
        call = self.verb(pair.real, verb, shards).call
        before = self.fingerprint()
        answer = self.with_lease(pair, call)
        assert answer in (LeaseLost, None, "again", {pair.real.item})
        assert self.fingerprint() == before, "a lost lease has changed something"

    def verb(self, lease: Lease, number: int, shards: int) -> Verb:
        """What a worker may do with a lease."""

        def fail(ledger: Any, lease: Lease) -> object:
            error = (CRASH, CRASH, PERMANENT)[number % 3]
            return ledger.fail(lease, error, delay_seconds=0 if number % 2 else FOR_EVER, max_attempts=2)

        def release(ledger: Any, lease: Lease) -> object:
            return ledger.release([lease])

        def heartbeat(ledger: Any, lease: Lease) -> object:
            return ledger.heartbeat("v", [lease], lease_seconds=self.lease_seconds, roles=[], info="{}")

        def allocate(ledger: Any, lease: Lease) -> object:
            return ledger.allocate(lease, number % 4, SPEC)[0]

        def stage(ledger: Any, lease: Lease) -> object:
            work = [(100 * (n + 1), f"h{n}") for n in range(shards)]
            return ledger.stage(lease, MODEL.encoder_key, "sha", work, pages=1, chunks=shards, fetched_bytes=number)

        def skip(ledger: Any, lease: Lease) -> object:
            return ledger.finish(lease, TaskState.SKIPPED, manifest="", receipt=Receipt())

        def shard_done(ledger: Any, lease: Lease) -> object:
            return ledger.shard_done(lease, part_of(lease), "{}")

        def committing(ledger: Any, lease: Lease) -> object:
            return [part for part, _ in ledger.committing(lease)]

        def take(ledger: Any, lease: Lease) -> object:
            return ledger.take_generation(lease, number % 4)

        def restage(ledger: Any, lease: Lease) -> object:
            return ledger.restage(lease, number % 4)

        def finish(ledger: Any, lease: Lease) -> object:
            well = TaskState.DELETED if json.loads(lease.payload)["kind"] == "delete" else TaskState.COMPLETED
            state = (well, well, TaskState.SUPERSEDED)[shards - 1]
            return ledger.finish(lease, state, manifest="m", receipt=Receipt())

        staging, ending = Verb(stage, before=allocate), Verb(finish, before=committing)
        own = {
            Stage.PREPARE: [staging, staging, staging, Verb(allocate, ends=False), Verb(skip)],
            Stage.EMBED: [Verb(shard_done)] * 5,
            Stage.COMMIT: [
                ending,
                ending,
                Verb(committing, ends=False),
                Verb(take, ends=False),
                Verb(restage, committing),
            ],
        }
        verbs = [*own[lease.stage], Verb(fail), Verb(release), Verb(heartbeat, ends=False)]
        return verbs[number % len(verbs)]

    @rule(worker=st.sampled_from(WORKERS))
    def farewell(self, worker: str) -> None:
        self.both(lambda ledger: ledger.farewell(worker))

    @precondition(lambda self: len(self.ids) > 2)
    @rule(which=numbers, twice=st.booleans())
    def cancel(self, which: int, twice: bool) -> None:
        task_id = self.one_of(which, lambda state: not state.terminal)
        for _ in range(1 + twice):
            self.both(lambda ledger: ledger.cancel(task_id))

    def one_of(self, which: int, fits: Callable[[TaskState], bool]) -> str:
        """A task in such a state, mostly; else any."""
        able = [task_id for task_id, state in self.seen.items() if fits(state)]
        ids = able if able and which % 8 else self.ids
        return ids[which % len(ids)]

    @precondition(lambda self: self.ids)
    @rule(which=numbers, url=st.sampled_from(["", "https://host/?new"]))
    def retry(self, which: int, url: str) -> None:
        task_id = self.one_of(which, lambda state: state in (TaskState.FAILED, TaskState.CANCELLED))
        self.both(lambda ledger: ledger.retry(task_id, secret_url=url))

    @precondition(lambda self: self.ids)
    @rule(which=numbers)
    def why(self, which: int) -> None:
        task_id = self.ids[which % len(self.ids)]
        assert self.both(lambda ledger: ledger.why(task_id).reason)

    @rule(namespace=st.sampled_from(NAMESPACES), collection=st.sampled_from([None, *COLLECTIONS]), lift=st.booleans())
    def pause(self, namespace: str, collection: str | None, lift: bool) -> None:
        self.both(lambda ledger: ledger.pause(namespace, collection, "why not"))
        if lift:
            self.look()
            self.both(lambda ledger: ledger.resume(namespace, collection))

    @rule()
    def resume(self) -> None:
        for scope in self.real.paused():
            namespace, _, collection = scope.partition("/")
            self.both(methodcaller("resume", namespace, collection or None))
            self.look()

    @rule(namespace=st.sampled_from(NAMESPACES), weight=st.sampled_from([0.5, 1.0, 4.0]))
    def weigh(self, namespace: str, weight: float) -> None:
        self.both(lambda ledger: ledger.set_weight(namespace, weight))

    @rule()
    def sweep(self) -> None:
        how = {"lease_seconds": self.lease_seconds, "max_expiries": 2, "retention_seconds": FOR_EVER, "error": CRASH}
        self.both(lambda ledger: ledger.sweep(**how))

    # ------------------------------------------------------------ what must hold

    def fingerprint(self) -> object:
        """All that a caller without a lease must not change."""
        rows = invariants.read(self.real)
        return rows.tasks, rows.items, rows.of("leases").keys(), rows.of("object")

    def note_states(self, rows: invariants.Rows) -> None:
        """Only ways that the table has are gone."""
        for task_id, row in rows.tasks.items():
            state, before = TaskState(row["state"]), self.seen.get(task_id)
            assert state is before or (before, state) in ALLOWED, (task_id, before, state)
            self.seen[task_id] = state

    @invariant()
    def holds(self) -> None:
        STEPS[type(self).__name__] += 1
        rows = invariants.read(self.real)
        invariants.check(rows)
        self.note_states(rows)
        self.drop_what_was_lost(rows)
        while entries := self.real.events(self.last_event, 1000, 0):
            self.last_event = entries[-1][0]
            for _, event in entries:
                self.events[event.data["task_id"]].append(event)
        for task_id, row in rows.tasks.items():
            state = TaskState(row["state"])
            told = self.events[task_id]
            ends = Counter(e.data["run"] for e in told if e.type.removeprefix("trivet.") in TERMINAL_EVENTS)
            run = int(row["run"])
            expected = dict.fromkeys(range(1, run + state.terminal), 1)
            assert ends == expected, (task_id, state, ends)
            ids = [event.id for event in told]
            assert len(ids) == len(set(ids)), task_id

    def drop_what_was_lost(self, rows: invariants.Rows) -> None:
        """Leases that the ledger has taken back are lost ones from now on."""
        for pair in list(self.held):
            row = rows.items.get(pair.real.item, {})
            if row.get("epoch") != str(pair.real.epoch):
                self.held.remove(pair)
                self.stale.append(pair)
        del self.stale[:-20]


class Lockstep(Machine):
    """Redis and its twin, always the same."""

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        super().__init__(settings, client)
        self.twin = Model(progress_seconds=1e6)

    def both(self, call: Callable[[Any], object]) -> object:
        real, twin = outcome(lambda: call(self.real)), outcome(lambda: call(self.twin))
        assert real == twin
        return real

    def with_lease(self, pair: Pair, call: Callable[[Any, Lease], object]) -> object:
        real, twin = outcome(lambda: call(self.real, pair.real)), outcome(lambda: call(self.twin, pair.twin))
        assert real == twin
        return real

    def claim_twin(self, stage: Stage, worker: str, operation: str, leases: list[Lease], **how: Any) -> list[Lease]:
        self.twin.follow = [lease.item for lease in leases]
        return self.twin.claim(stage, worker, operation, **how)

    def look(self) -> None:
        self.holds()
        self.is_as_its_twin()

    @invariant()
    def is_as_its_twin(self) -> None:
        real, twin = self.real.backlog(), self.twin.backlog()
        for name in ("states", "staged_tokens", "leases", "due", "dead", "paused"):
            assert getattr(real, name) == getattr(twin, name), name
        plain = {"created_at": 0.0, "updated_at": 0.0}
        for task_id, row in self.twin._tasks.items():
            mine, other = self.real.task(task_id), self.twin.task(task_id)
            assert mine is not None
            assert other is not None
            assert mine.model_copy(update=plain) == other.model_copy(update=plain)
            told = [event for _, event in self.twin._events if event.data["task_id"] == task_id]
            assert [(e.id, e.type, e.data) for e in self.events[task_id]] == [(e.id, e.type, e.data) for e in told]
            assert row.run == mine.run


class Expiring(Machine):
    """Redis alone, with leases that run out and workers that die with what they hold."""

    lease_seconds = 0.03

    @rule(sweeps=st.integers(1, 3))
    def time_passes(self, sweeps: int) -> None:
        # As often as a sweeper comes by: else the ledger takes it that it was itself away.
        for _ in range(3 * sweeps):
            time.sleep(self.lease_seconds / 2.5)
            self.sweep()


def take_steps(machine: type[Machine], settings: Settings, short: int) -> None:
    """Run a machine: `short` examples in the suite, hundreds in its long form."""
    client = RedisLedger(settings)._client
    how = hypothesis_settings(
        max_examples=260 if LONG else short,
        stateful_step_count=50 if LONG else 40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(lambda: machine(settings, client), settings=how)
    client.close()
    print(f"{machine.__name__}: {STEPS[machine.__name__]} steps")
    if LONG:
        assert STEPS[machine.__name__] >= 10_000


@pytest.mark.timeout(3000)
def test_redis_and_its_twin_are_always_the_same(settings: Settings) -> None:
    take_steps(Lockstep, settings, short=15)


@pytest.mark.timeout(3000)
def test_leases_that_run_out_leave_nothing_undone(settings: Settings) -> None:
    take_steps(Expiring, settings, short=6)

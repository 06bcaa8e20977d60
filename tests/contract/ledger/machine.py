"""The state machine that drives a ledger in Redis, and holds its rows against the invariants after each step."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from operator import methodcaller
from typing import Any

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.contract.ledger import invariants
from tests.contract.ledger.desk import CRASH, MODEL
from tests.contract.ledger.verbs import FOR_EVER, verb_of
from trivet.errors import LeaseLost, TrivetError
from trivet.ledger import NewTask
from trivet.ledger.redis import RedisLedger
from trivet.ledger.transitions import ALLOWED
from trivet.names import TERMINAL_EVENTS, Lane, Stage, TaskKind
from trivet.settings import Settings
from trivet.values import Collection, Event, Lease, TaskState

NAMESPACES, COLLECTIONS, OBJECTS, WORKERS = ("ns", "other"), ("c", "d"), ("o", "p"), ("v", "w", "x")
#: Steps that each machine has taken.
STEPS: Counter[str] = Counter()

numbers = st.integers(0, 1000)


@dataclass(frozen=True)
class Pair:
    """One lease, as each of the two gave it."""

    real: Lease
    twin: Lease


def outcome(call: Callable[[], object]) -> object:
    """The answer, or the kind of error."""
    try:
        return call()
    except TrivetError as error:
        return type(error)


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
            secret_url="https://host/?secret" if where % 3 and kind is TaskKind.INGEST else "",
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
        more=st.integers(0, 3),
    )
    def accept(self, where: int, lane: Lane, kind: TaskKind, key: str, twice: bool, more: int) -> None:
        for n in range(1 + more):
            task = self.new_task(where + n * more, lane, kind, key if n == 0 else "")
            for _ in range(1 + twice):
                self.both(methodcaller("accept", task, FOR_EVER))
            self.look()

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
        how: dict[str, Any] = {
            "queues": [MODEL.encoder_key],
            "budget": budget,
            "most": most,
            "lease_seconds": self.lease_seconds,
        }
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
        chosen = verb_of(pair.real, verb, shards, self.lease_seconds)
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

    @rule(worker=st.sampled_from(WORKERS), verbs=st.lists(numbers, min_size=3, max_size=6), rounds=st.integers(1, 3))
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
        call = verb_of(pair.real, verb, shards, self.lease_seconds).call
        before = self.fingerprint()
        answer = self.with_lease(pair, call)
        assert answer in (LeaseLost, None, "again", {pair.real.item})
        assert self.fingerprint() == before, "a lost lease has changed something"

    @rule(worker=st.sampled_from(WORKERS))
    def farewell(self, worker: str) -> None:
        self.both(lambda ledger: ledger.farewell(worker))

    @precondition(lambda self: self.ids)
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

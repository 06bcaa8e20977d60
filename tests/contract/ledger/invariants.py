"""What must hold of a ledger's rows in Redis between any two calls."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from trivet.ledger.redis import RedisLedger
from trivet.values import TaskState

STAGES = ("prepare", "embed", "commit")


@dataclass
class Rows:
    """All rows of a ledger, by the first word of their keys."""

    tasks: dict[str, dict[str, str]] = field(default_factory=dict)
    items: dict[str, dict[str, str]] = field(default_factory=dict)
    #: First word → rest of the key → what it holds.
    other: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))

    def of(self, *name: str) -> Any:
        """One row, or nothing."""
        return self.other.get(name[0], {}).get(":".join(name[1:]), {})


_READ = {"hash": "hgetall", "set": "smembers", "string": "get"}


def read(ledger: RedisLedger) -> Rows:
    """Every row that the invariants speak of."""
    client, start = ledger._client, len(ledger._key(""))
    keys = [key for key in client.keys(ledger._key("*")) if key != ledger._key("events")]
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.type(key)
    # Some keys live for milliseconds.
    kinds = {key: kind for key, kind in zip(keys, pipe.execute(), strict=True) if kind != "none"}
    for key, kind in kinds.items():
        if kind == "zset":
            pipe.zrange(key, 0, -1, withscores=True)
        else:
            getattr(pipe, _READ[kind])(key)
    rows = Rows()
    for (key, kind), found in zip(kinds.items(), pipe.execute(), strict=True):
        word, _, rest = key[start:].partition(":")
        value = dict(found) if kind == "zset" else found
        if word == "task":
            rows.tasks[rest] = value
        elif word == "item":
            rows.items[rest] = value
        else:
            rows.other[word][rest] = value
    return rows


def check(rows: Rows) -> None:
    """Raise `AssertionError` for the first thing that is not as it must be."""
    _places(rows)
    _lines(rows)
    _steps(rows)
    _counters(rows)
    _objects(rows)


def _places(rows: Rows) -> None:
    """Each work item is in exactly one place, and nothing else is there."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, word in (("pending", "line"), ("pending", "suspects"), ("parked", "parked")):
        for found in rows.other.get(word, {}).values():
            for item in found:
                places[item].append(name)
    for item in rows.of("due"):
        places[item].append("due")
    leases = set(rows.of("leases"))
    held = [item for found in rows.other.get("held", {}).values() for item in found]
    assert sorted(held) == sorted(leases), "leases and holders differ"
    for item in leases:
        places[item].append("leased")
    assert set(places) == set(rows.items), set(places) ^ set(rows.items)
    for item, row in rows.items.items():
        assert places[item] == [row["state"]], (item, places[item], row)
        assert (row["state"] == "leased") == ("owner" in row), (item, row)
        if row["state"] == "leased":
            assert item in rows.of("held", row["owner"])
        else:
            assert row["epoch"] == "0"
        if row["state"] == "pending":
            where = ("suspects", row["stage"], row["queue"])
            if row.get("suspect") != "1":
                where = ("line", row["stage"], row["flow"], row["queue"])  # type: ignore[assignment]  # one word more
            assert rows.of(*where)[item] == float(row["tag"]), item
        assert (row["state"] == "parked") == ("parked" in row), (item, row)


def _lines(rows: Rows) -> None:
    """What a claim looks at first says what is there."""
    for stage in STAGES:
        waiting: Counter[str] = Counter()
        flows: dict[str, set[str]] = defaultdict(set)
        for row in rows.items.values():
            if row["stage"] == stage and row["state"] == "pending":
                waiting[row["queue"]] += 1
                if row.get("suspect") != "1":
                    flows[row["flow"]].add(row["queue"])
        assert {queue: int(n) for queue, n in rows.of("waiting", stage).items()} == waiting
        assert set(rows.of("vt", stage)) == set(flows)
        for flow, queues in flows.items():
            assert rows.of("lines", stage, flow) == queues


def _steps(rows: Rows) -> None:
    """Each open task has exactly one next step, and an ended one has none."""
    found: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for item in rows.items:
        task_id, stage, n = item.split("/")
        found[task_id][stage].add(int(n))
    assert set(found) <= set(rows.tasks)
    for task_id, row in rows.tasks.items():
        mine, state = {stage: ns for stage, ns in found[task_id].items() if ns}, TaskState(row["state"])
        shards = set(range(int(row.get("shards") or 0)))
        done = {int(n) for n in rows.of("done", task_id)}
        assert done == {int(n) for n in rows.of("parts", task_id)}, task_id
        first = {"commit": {0}} if row.get("kind") == "delete" else {"prepare": {0}}
        expected: dict[str, set[int]] = {}
        if state in (TaskState.QUEUED, TaskState.PREPARING):
            expected = first
        elif state is TaskState.EMBEDDING:
            expected = {"embed": shards - done} if shards - done else {"commit": {0}}
            assert done <= shards
        elif state is TaskState.COMMITTING:
            expected = {"commit": {0}}
            assert done == shards
        assert mine == expected, (task_id, state, mine, expected)


def _counters(rows: Rows) -> None:
    """Counts are those of what is there."""
    states = Counter(row["state"] for row in rows.tasks.values())
    assert {state: int(n) for state, n in rows.of("states").items() if int(n)} == states
    staged: Counter[str] = Counter()
    for item, row in rows.items.items():
        if row["stage"] == "embed":
            staged[rows.tasks[item.split("/")[0]]["model"]] += int(row["cost"])
    assert {model: int(n) for model, n in rows.of("staged").items()} == staged
    ended = {task_id for task_id, row in rows.tasks.items() if TaskState(row["state"]).terminal}
    assert set(rows.of("terminal")) == ended
    assert set(rows.of("dead")) == {task_id for task_id in ended if rows.tasks[task_id]["state"] == "failed"}


def _objects(rows: Rows) -> None:
    """Each open task is its object's active one or the one that waits."""
    for task_id, row in rows.tasks.items():
        owner = rows.of("object", row["namespace"], row["collection"], row["object"])
        state = TaskState(row["state"])
        assert (owner.get("waiting") == task_id) == (state is TaskState.WAITING), (task_id, state, owner)
        active = not state.terminal and state is not TaskState.WAITING
        assert (owner.get("active") == task_id) == active, (task_id, state, owner)
        if "generation" in row:
            assert int(row["generation"]) <= int(owner["generation"])

"""The twin's queues, leases and doorbells: what `lua/_common.lua` and `lua/claim.lua` do, in Python."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from trivet.names import ANY, Lane, Stage

LANES = {Lane.INTERACTIVE: ("0", 64), Lane.NORMAL: ("1", 8), Lane.BULK: ("2", 1)}
_MISFITS = 16
_BELL_SECONDS = 30.0


@dataclass
class Item:
    """One work item."""

    task_id: str
    stage: Stage
    n: int
    queue: str
    flow: str
    tag: float
    cost: int
    input_hash: str = ""
    state: str = "pending"
    epoch: int = 0
    attempts: int = 0
    expiries: int = 0
    suspect: bool = False
    owner: str = ""
    deadline: float = 0.0
    due_at: float = 0.0

    @property
    def id(self) -> str:
        """As `Lease.item`."""
        return f"{self.task_id}/{self.stage}/{self.n}"


@dataclass
class Line:
    """The queue of one (stage, queue name): flows by virtual time, items of a flow by tag."""

    flows: dict[str, dict[str, float]] = field(default_factory=dict)
    virtual: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    served: dict[str, float] = field(default_factory=dict)
    now: float = 0.0
    suspects: list[str] = field(default_factory=list)

    @property
    def waiting(self) -> bool:
        """Whether anything is in it."""
        return bool(self.virtual or self.suspects)


class Queues:
    """All queues, leases and doorbells of the twin."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.lines: dict[tuple[Stage, str], Line] = defaultdict(Line)
        self.weights: dict[str, float] = {}
        self.slots: dict[Stage, set[str]] = defaultdict(set)
        self.standing: dict[tuple[Stage, str], dict[str, float]] = defaultdict(dict)
        self.bells: list[tuple[Stage, str, str]] = []
        self._bell = 0

    def flow_weight(self, flow: str) -> float:
        """Lane weight times namespace weight."""
        order, namespace = flow.split("|", 1)
        lane = next(weight for digit, weight in LANES.values() if digit == order)
        return lane * self.weights.get(namespace, 1.0)

    def ring(self, stage: Stage, queue: str, now: float) -> None:
        """Ring unless 2 x workers doorbells stand there."""
        door = queue if stage is Stage.EMBED else ANY
        standing = self.standing[stage, door]
        for bell in [bell for bell, at in standing.items() if at <= now - _BELL_SECONDS]:
            del standing[bell]
        if len(standing) < 2 * max(1, len(self.slots[stage])):
            self._bell += 1
            standing[str(self._bell)] = now
            self.bells.append((stage, door, str(self._bell)))

    def create(self, item: Item, ahead: int, now: float) -> None:
        """Put a new item at its place."""
        line = self.lines[item.stage, item.queue]
        item.tag = line.served.get(item.flow, 0.0) + ahead + item.cost
        self.items[item.id] = item
        self.push(item, now)

    def push(self, item: Item, now: float) -> None:
        """Let the item wait (again)."""
        item.state, item.epoch, item.owner = "pending", 0, ""
        line = self.lines[item.stage, item.queue]
        if item.suspect:
            line.suspects.append(item.id)
        else:
            line.flows.setdefault(item.flow, {})[item.id] = item.tag
            if item.flow not in line.virtual:
                line.virtual[item.flow] = max(line.now, line.last.get(item.flow, 0.0))
        self.ring(item.stage, item.queue, now)

    def forget(self, item_id: str) -> int:
        """Remove an item wherever it is; returns its cost, 0 if there is none."""
        item = self.items.pop(item_id, None)
        if item is None:
            return 0
        line = self.lines[item.stage, item.queue]
        members = line.flows.get(item.flow, {})
        if members.pop(item_id, None) is not None and not members:
            line.flows.pop(item.flow)
            line.last[item.flow] = line.virtual.pop(item.flow, 0.0)
        if item_id in line.suspects:
            line.suspects.remove(item_id)
        return item.cost

    def take_next(self, stage: Stage, queue: str, room: int, first: bool) -> Item | None:
        """The next item of the flow that is furthest behind whose cost fits `room` (any, where it is the first)."""
        line = self.lines[stage, queue]
        for flow, behind in sorted(line.virtual.items(), key=lambda pair: (pair[1], pair[0]))[:_MISFITS]:
            members = line.flows[flow]
            ranked = sorted(members.items(), key=lambda pair: (pair[1], pair[0]))[: 1 if first else 4]
            for item_id, tag in ranked:
                item = self.items[item_id]
                if not first and item.cost > room:
                    continue
                del members[item_id]
                line.served[flow], line.now = tag, behind
                after = behind + item.cost / self.flow_weight(flow)
                if members:
                    line.virtual[flow] = after
                else:
                    del line.virtual[flow], line.flows[flow]
                    line.last[flow] = after
                return item
        return None

    def charge_flow(self, stage: Stage, queue: str, flow: str, more: float) -> None:
        """Correct what a flow was charged."""
        line = self.lines[stage, queue]
        where = line.virtual if flow in line.virtual else line.last
        where[flow] = where.get(flow, 0.0) + more / self.flow_weight(flow)

"""The twin's queues, leases and doorbells: what `lua/_queues.lua` and `lua/claim.lua` do, in Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from trivet.names import ANY, Lane, Stage

LANES = {Lane.INTERACTIVE: ("0", 64), Lane.NORMAL: ("1", 8), Lane.BULK: ("2", 1)}
_MOST_DEAF = 7


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
    #: Of expiries alone, in quarters.
    charged: int = 0
    #: With how many others it may be leased since a worker died with it, itself counted; 0: with any.
    group: int = 0
    owner: str = ""
    deadline: float = 0.0
    due_at: float = 0.0
    taken_at: float = 0.0
    #: Seconds that its errors have gone on which are charged to nobody.
    outage: float = 0.0
    #: The paused scope that holds it up.
    parked: str = ""

    @property
    def suspect(self) -> bool:
        """Whether a worker has died with it."""
        return self.group > 0

    @property
    def id(self) -> str:
        """As `Lease.item`."""
        return f"{self.task_id}/{self.stage}/{self.n}"


class Queues:
    """All queues, leases and doorbells of the twin."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        #: (stage, flow) → queue → item → tag; virtual times of flows that wait, and of those that do not.
        self.lines: dict[tuple[Stage, str], dict[str, dict[str, float]]] = defaultdict(dict)
        self.virtual: dict[Stage, dict[str, float]] = defaultdict(dict)
        self.last: dict[Stage, dict[str, float]] = defaultdict(dict)
        self.now: dict[Stage, float] = defaultdict(float)
        self.served: dict[tuple[Stage, str], float] = defaultdict(float)
        self.suspects: dict[tuple[Stage, str], list[str]] = defaultdict(list)
        self.weights: dict[str, float] = {}
        self.slots: dict[Stage, set[str]] = defaultdict(set)
        self.standing: dict[tuple[Stage, str], dict[str, float]] = defaultdict(dict)
        self.deaf: dict[tuple[Stage, str], int] = defaultdict(int)
        self.bells: list[tuple[Stage, str, str]] = []
        self._bell = 0
        #: A doorbell that nobody answered for so long counts as lost.
        self.bell_seconds = 30.0

    def weight(self, flow: str) -> float:
        """Lane weight times namespace weight."""
        order, namespace = flow.split("|", 1)
        lane = next(weight for digit, weight in LANES.values() if digit == order)
        return lane * self.weights.get(namespace, 1.0)

    def waiting(self, stage: Stage) -> list[str]:
        """The queues of a stage in which anything waits."""
        queues = {queue for (s, _), lines in self.lines.items() if s is stage for queue, line in lines.items() if line}
        return sorted(queues | {queue for (s, queue), found in self.suspects.items() if s is stage and found})

    def ring(self, stage: Stage, queue: str, now: float) -> None:
        """Ring unless 2 x workers doorbells stand there."""
        door = queue if stage is Stage.EMBED else ANY
        standing = self.standing[stage, door]
        patience = self.bell_seconds * 2 ** min(self.deaf[stage, door], _MOST_DEAF)
        gone = [bell for bell, at in standing.items() if at <= now - patience]
        for bell in gone:
            del standing[bell]
        self.deaf[stage, door] += 1 if gone else 0
        if len(standing) < 2 * max(1, len(self.slots[stage])):
            self._bell += 1
            standing[str(self._bell)] = now
            self.bells.append((stage, door, str(self._bell)))

    def newcomer(self, stage: Stage) -> None:
        """Somebody new may hear what nobody answered."""
        for queue in self.waiting(stage):
            door = queue if stage is Stage.EMBED else ANY
            if self.deaf.pop((stage, door), 0):
                self.standing.pop((stage, door), None)

    def create(self, item: Item, ahead: int, now: float) -> None:
        """Put a new item at its place."""
        item.tag = self.served[item.stage, item.flow] + ahead + item.cost
        self.items[item.id] = item
        self.push(item, now)

    def push(self, item: Item, now: float, *, back: bool = False) -> None:
        """Let the item wait (again); `back`: it was not worked on, and its flow is not charged for the claim."""
        item.state, item.epoch, item.owner, item.parked = "pending", 0, "", ""
        stage, flow = item.stage, item.flow
        refund = item.cost / self.weight(flow) if back else 0.0
        if item.suspect:
            self.suspects[stage, item.queue].append(item.id)
        else:
            self.lines[stage, flow].setdefault(item.queue, {})[item.id] = item.tag
            if flow in self.virtual[stage]:
                self.virtual[stage][flow] -= refund
            else:
                self.virtual[stage][flow] = max(self.now[stage], self.last[stage].pop(flow, 0.0) - refund)
        self.ring(stage, item.queue, now)

    def forget(self, item_id: str) -> int:
        """Remove an item wherever it is; returns its cost, 0 if there is none."""
        item = self.items.pop(item_id, None)
        if item is None:
            return 0
        self._unqueue(item)
        return item.cost

    def park(self, item: Item, scope: str) -> None:
        """Put an item that waits aside; it keeps its tag, and so its place."""
        self._unqueue(item)
        item.state, item.parked = "parked", scope

    def ahead(self, item: Item) -> int | None:
        """Items that stand before this one where it waits."""
        line = self.lines[item.stage, item.flow].get(item.queue, {})
        found = self.suspects[item.stage, item.queue]
        tags = {item_id: self.items[item_id].tag for item_id in found} if item.suspect else line
        order = sorted(tags, key=lambda item_id: (tags[item_id], item_id))
        return order.index(item.id) if item.id in tags else None

    def _unqueue(self, item: Item) -> None:
        if self.lines[item.stage, item.flow].get(item.queue, {}).pop(item.id, None) is not None:
            self._left(item.stage, item.flow, 0.0)
        if item.id in self.suspects[item.stage, item.queue]:
            self.suspects[item.stage, item.queue].remove(item.id)

    def take_next(self, stage: Stage, may: Collection[str], room: int, *, first: bool) -> Item | None:
        """The next item of the flow that is furthest behind whose cost fits `room` (any, where it is the first)."""
        for flow, behind in sorted(self.virtual[stage].items(), key=lambda pair: (pair[1], pair[0])):
            heads = [
                (tag, item_id)
                for queue, line in self.lines[stage, flow].items()
                if queue in may
                for item_id, tag in sorted(line.items(), key=lambda pair: (pair[1], pair[0]))[: 1 if first else 4]
                if first or self.items[item_id].cost <= room
            ]
            if heads:
                tag, item_id = min(heads)
                item = self.items[item_id]
                del self.lines[stage, flow][item.queue][item_id]
                self.served[stage, flow] = max(self.served[stage, flow], tag)
                self.now[stage] = max(self.now[stage], behind)
                self._left(stage, flow, item.cost / self.weight(flow))
                return item
        return None

    def suspects_wait(self, stage: Stage, may: Collection[str]) -> bool:
        """Whether any suspect waits in these queues."""
        return any(self.suspects[stage, queue] for queue in may)

    def take_suspects(self, stage: Stage, may: Collection[str], budget: int, most: int) -> list[Item]:
        """Suspects by tag: as many at once as each of them allows."""
        taken: list[Item] = []
        room, spent = most, 0
        for queue in may:
            found = self.suspects[stage, queue]
            for item_id in sorted(found, key=lambda item_id: (self.items[item_id].tag, item_id)):
                item = self.items[item_id]
                group = min(room, item.group)
                if len(taken) < group and (not taken or spent + item.cost <= budget):
                    found.remove(item_id)
                    taken.append(item)
                    room, spent = group, spent + item.cost
        return taken

    def charge_flow(self, stage: Stage, flow: str, more: float) -> None:
        """Correct what a flow was charged."""
        where = self.virtual[stage] if flow in self.virtual[stage] else self.last[stage]
        where[flow] = where.get(flow, 0.0) + more / self.weight(flow)

    def _left(self, stage: Stage, flow: str, spent: float) -> None:
        lines = self.lines[stage, flow]
        for queue in [queue for queue, line in lines.items() if not line]:
            del lines[queue]
        if lines:
            self.virtual[stage][flow] += spent
        else:
            self.last[stage][flow] = self.virtual[stage].pop(flow, 0.0) + spent

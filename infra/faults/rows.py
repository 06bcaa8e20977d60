"""The matrix: one row per fault and stage."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random

from infra.faults import outages, strikes
from infra.faults.fleet import ROOT, Start
from infra.faults.s3_proxy import sometimes
from infra.faults.scene import SWEEP, Row, Scene, Strikes, crew
from trivet.names import Stage

KILL_SECONDS = 3.0
#: What a killed worker's work may wait at default settings.
_MOST_RECOVERY_SECONDS = 30.0
#: A pause in the shipped code path makes a stage last long enough to be struck, whatever the machine.
_SLOW = {
    "prepare": "prepare.after_allocate:sleep:0.05",
    "embed": "embed.after_forward:sleep:0.6",
    "commit": "commit.before_current:sleep:0.5",
}
_EVERY = {"prepare": "fetches and parses", "embed": "encodes", "commit": "commits"}


def apart(role: str) -> tuple[Start, ...]:
    """Every stage in workers of its own, two of them for the role that is struck."""
    starts = [SWEEP]
    for each in Stage:
        changes = {"faults": _SLOW[each]} if each == role else {}
        children = 1 if each is Stage.EMBED else 2
        starts += [Start(f"{each}-{n}", each, children, changes) for n in range(2 if each == role else 1)]
    return tuple(starts)


def kill(role: str, every: float = KILL_SECONDS, tasks: int = 1000) -> Row:
    """A worker killed again and again."""
    return Row(
        name=f"kill-{role}",
        stage=role,
        what=f"`kill -9` of one of two {role} workers every {every:g} s; it is started again at once.",
        strikes=strikes.killing(role, every),
        tasks=tasks,
        workers=apart(role),
    )


def freeze(role: str, every: float = 2.0, tasks: int = 200) -> Row:
    """A worker that sleeps through its leases and goes on."""
    return Row(
        name=f"stop-{role}",
        stage=role,
        what=f"SIGSTOP of one of two {role} workers for two leases, then SIGCONT, again and again.",
        strikes=strikes.freezing(role, every),
        tasks=tasks,
        workers=apart(role),
    )


def doorbells(tasks: int = 1000) -> Row:
    """Celery loses and doubles messages."""
    bells = outages.Doorbells(0.1, 0.2)
    return Row(
        name="doorbells",
        stage="all",
        what="10 % of the doorbells are lost on their way into Celery's lists, 20 % come twice.",
        strikes=strikes.watching(lambda _: bells.struck),
        tasks=tasks,
        rewrite=bells.rewriter,
    )


def kill_sweep(every: float = KILL_SECONDS, tasks: int = 300) -> Row:
    """The sweeper dies while it is needed."""
    bells = outages.Doorbells(0.1, 0.2)
    return Row(
        name="kill-sweep",
        stage="sweep",
        what=f"`kill -9` of the sweeper every {every:g} s, while 10 % of the doorbells are lost.",
        strikes=strikes.killing("sweep", every),
        tasks=tasks,
        rewrite=bells.rewriter,
    )


def s3(name: str, what: str, share: float, mishap: str, *, methods: str = "", tasks: int = 1000) -> Row:
    """S3 misbehaves from the first task to the last."""
    policy = sometimes(share, mishap, Random(name), frozenset(methods.split()))
    return Row(
        name=name,
        stage="all",
        what=what,
        strikes=outages.failing_s3(policy),
        tasks=tasks,
        through_s3_proxy=True,
    )


def s3_5xx(tasks: int = 1000) -> Row:
    """Server errors."""
    return s3("s3-5xx", "10 % of all S3 requests are answered 503, and not done.", 0.1, "503", tasks=tasks)


def s3_outage(seconds: float = 300.0, tasks: int = 300) -> Row:
    """S3 is away for long."""
    return Row(
        name="s3-outage",
        stage="all",
        what=f"S3 answers nothing for {seconds:g} s, while tasks come in.",
        strikes=outages.s3_outage(seconds, after=10.0),
        tasks=tasks,
        per_second=5.0,
        through_s3_proxy=True,
    )


def valkey(name: str, what: str, strike: Strikes, fsync: str = "everysec", *, replayed: bool = False) -> Row:
    """Redis comes and goes while tasks are given in."""
    return Row(
        name=name, stage="ledger", what=what, strikes=strike, tasks=300, per_second=10.0, own_valkey=fsync,
        replayed=replayed,
    )  # fmt: skip


def blackhole(seconds: float = 30.0, tasks: int = 300) -> Row:
    """Redis falls silent, and no connection says so."""
    return Row(
        name="valkey-blackhole",
        stage="ledger",
        what=f"No byte comes through to Redis or back for {seconds:g} s; no connection is closed.",
        strikes=outages.silencing_redis(seconds, after=10.0),
        tasks=tasks,
        per_second=10.0,
        through_redis_proxy=True,
    )


def poison(role: str, tasks: int = 300) -> Row:
    """Documents that kill whoever works on them."""
    place = {"prepare": "prepare.after_fetch", "embed": "encoder.encode"}[role]
    starts = [SWEEP]
    for each in Stage:
        changes = {"faults": f"{place}:kill-if:POISON"} if each == role else {}
        starts += [Start(f"{each}-{n}", each, 1 if each is Stage.EMBED else 2, changes) for n in range(2)]
    return Row(
        name=f"poison-{role}",
        stage=role,
        what=f"5 % of the documents kill (SIGKILL) whoever {_EVERY[role]} them: they must fail, all others complete.",
        strikes=strikes.watching(lambda scene: sum(not task.healthy for task in scene.feeder.given)),
        tasks=tasks,
        workers=tuple(starts),
        poison_every=20,
    )


def oom(tasks: int = 300) -> Row:
    """The device runs out of memory."""
    log = "{folder}/out-of-memory"

    def count(scene: Scene) -> int:
        path = scene.fleet.logs / "out-of-memory"
        return path.stat().st_size if path.exists() else 0

    return Row(
        name="oom",
        stage="embed",
        what="Every 20th batch runs out of memory.",
        strikes=strikes.watching(count),
        tasks=tasks,
        workers=(*crew(embed=0), Start("embed", "embed", 1, {"faults": f"encoder.encode:oom:20:{log}"})),
    )


def clock(tasks: int = 200) -> Row:
    """The workers' clocks are wrong, and jump."""
    hour = 3600

    def module(name: str) -> tuple[str, ...]:
        return ("infra.faults.shifted", f"{{folder}}/{name}.shift")

    def strike(scene: Scene) -> Iterator[float]:
        while not scene.finished():
            for name in ("cpu", "embed"):
                shift = scene.rng.choice((-hour, 0, hour))
                (scene.fleet.logs / f"{name}.shift").write_text(str(shift))
                scene.faults += 1
            yield 3.0

    return Row(
        name="clock",
        stage="all",
        what="The wall clocks of the workers jump by an hour, forth and back, every 3 s.",
        strikes=strike,
        tasks=tasks,
        workers=(
            SWEEP,
            Start("cpu", "prepare,commit", 2, module=module("cpu")),
            Start("embed", "embed", module=module("embed")),
        ),
    )


def recovery(tasks: int = 240) -> Row:
    """What an operator waits for: default settings."""

    def check(scene: Scene) -> Iterable[str]:
        if scene.recovery.waiting:
            yield f"{scene.recovery.waiting} work items of killed workers were never taken up again."
        late = [seconds for seconds in scene.recovery.seconds if seconds > _MOST_RECOVERY_SECONDS]
        if late:
            yield f"{len(late)} work items of killed workers lay for more than {_MOST_RECOVERY_SECONDS:g} s."

    return Row(
        name="recovery",
        stage="all",
        what="At default settings (lease 20 s): `kill -9` of workers that hold work, each role in turn.",
        strikes=strikes.killing_holders(("embed", "prepare", "commit"), 6, 20.0),
        tasks=tasks,
        per_second=2.0,
        workers=(
            SWEEP,
            *(Start(f"{each}-{n}", each, 1, {"faults": _SLOW[each]}) for each in Stage for n in range(2)),
        ),
        settings={
            "lease_seconds": 20.0,
            "heartbeat_seconds": 5.0,
            "sweep_seconds": 2.0,
            "retry_base_seconds": 2.0,
            "retry_max_seconds": 300.0,
            "claim_tokens": 16384,
        },
        check=check,
    )


def real_encoder(every: float = 30.0, tasks: int = 50) -> Row:
    """The embedded model in place of the fake one."""
    return Row(
        name="kill-real-encoder",
        stage="embed",
        what=f"The embedded model; `kill -9` of one of two embed workers every {every:g} s.",
        strikes=strikes.killing("embed", every),
        tasks=tasks,
        words=2000,
        workers=(*crew(embed=0), *(Start(f"embed-{n}", "embed") for n in range(2))),
        settings={
            "model_aliases": {"BAAI/bge-m3": "embedded"},
            "model_dir": ROOT / ".trivet" / "models",
            "encoder_threads": 1,
            "lease_seconds": 5.0,
            "heartbeat_seconds": 1.0,
        },
    )


ROWS: tuple[Row, ...] = (
    Row(
        name="kill-accept",
        stage="accept",
        what="`kill -9` of the client whenever it has given 25 tasks in; it starts again and asks with the same keys.",
        strikes=strikes.killing_the_client(25),
        tasks=1000,
        client_process=True,
    ),
    *(kill(role) for role in Stage),
    Row(
        name="kill-child",
        stage="prepare, commit",
        what=f"`kill -9` of one prefork child every {KILL_SECONDS:g} s.",
        strikes=strikes.killing_children("prepare", KILL_SECONDS),
        tasks=1000,
    ),
    kill_sweep(),
    real_encoder(),
    recovery(),
    *(freeze(role) for role in Stage),
    doorbells(),
    Row(
        name="sigterm",
        stage="all",
        what="SIGTERM of every worker every 20 s; each must end by itself with nothing held and nothing charged.",
        strikes=strikes.terminating(20.0),
        tasks=500,
    ),
    valkey("valkey-term", "SIGTERM of Valkey, twice.", outages.restarting_valkey(signal.SIGTERM, 2, 10.0)),
    valkey(
        "valkey-kill-everysec",
        "`kill -9` of Valkey, twice, with appendfsync everysec.",
        outages.restarting_valkey(signal.SIGKILL, 2, 10.0),
        replayed=True,
    ),
    valkey(
        "valkey-kill-always",
        "`kill -9` of Valkey, twice, with appendfsync always.",
        outages.restarting_valkey(signal.SIGKILL, 2, 10.0),
        "always",
    ),
    blackhole(),
    Row(
        name="valkey-reset",
        stage="ledger",
        what="Every connection to Redis is reset every 2 s.",
        strikes=outages.cutting_redis(2.0),
        through_redis_proxy=True,
    ),
    valkey("valkey-wipe", "FLUSHALL, then `trivet rebuild`.", outages.wiping(0.4), replayed=True),
    s3_5xx(),
    s3("s3-409", "2 % of all writes to S3 are answered 409.", 0.02, "409", methods="PUT POST"),
    s3("s3-lost-answers", "5 % of all writes to S3 are done, and the answer is lost.", 0.05, "drop after",
       methods="PUT POST"),
    s3("s3-slow", "20 % of all S3 requests take 2 s longer.", 0.2, "wait 2", tasks=300),
    s3_outage(),
    oom(),
    poison("prepare"),
    poison("embed"),
    clock(),
)  # fmt: skip


def named(name: str, tasks: int = 0) -> Row | None:
    """A row by its name, with so many tasks (0: its own number)."""
    row = next((row for row in ROWS if row.name == name), None)
    return replace(row, tasks=tasks) if row is not None and tasks else row

"""Rows in which worker processes are struck, or what they work on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from infra.faults import strikes
from infra.faults.fleet import Start
from infra.faults.scene import SWEEP, Row, Scene, Strikes, crew
from trivet.names import Stage
from trivet.settings import Settings

KILL_SECONDS = 3.0
#: What a killed worker's work may wait at default settings.
_MOST_RECOVERY_SECONDS = 30.0
#: A pause in the shipped code path makes a stage last long enough to be struck, whatever the machine.
_SLOW = {
    "prepare": "prepare.after_allocate:sleep:0.05",
    "embed": "embed.after_forward:sleep:0.2",
    "commit": "commit.before_current:sleep:0.1",
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


def _shifted(name: str, what: str, strike: Strikes, tasks: int) -> Row:
    def module(worker: str) -> tuple[str, ...]:
        return ("infra.faults.shifted", f"{{folder}}/{worker}.shift")

    return Row(
        name=name,
        stage="all",
        what=what,
        strikes=strike,
        tasks=tasks,
        per_second=5.0,
        workers=(
            SWEEP,
            Start("cpu", "prepare,commit", 2, module=module("cpu")),
            Start("embed", "embed", module=module("embed")),
        ),
    )


def _set_clocks(scene: Scene, choices: tuple[int, ...]) -> None:
    for worker in ("cpu", "embed"):
        (scene.fleet.logs / f"{worker}.shift").write_text(str(scene.rng.choice(choices)))
        scene.faults += 1


def clock(tasks: int = 200) -> Row:
    """Wrong clocks that jump."""

    def strike(scene: Scene) -> Iterator[float]:
        while not scene.finished():
            _set_clocks(scene, (-3600, 0, 3600))
            yield 3.0

    what = "The wall clocks of the workers jump by an hour, forth and back, every 3 s."
    return _shifted("clock", what, strike, tasks)


def clock_apart(tasks: int = 100) -> Row:
    """Clocks that do not agree."""

    def strike(scene: Scene) -> Iterator[float]:
        _set_clocks(scene, (120,))
        yield 1.0

    what = "The wall clocks of the workers are two minutes ahead of those of clients and sweeper, all the time."
    return replace(_shifted("clock-apart", what, strike, tasks), seconds=180)


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
            "model_dir": Settings.load().models_folder.absolute(),
            "encoder_threads": 1,
            "lease_seconds": 5.0,
            "heartbeat_seconds": 1.0,
        },
    )

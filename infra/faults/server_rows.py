"""Rows in which Redis or S3 is struck, or the way to them."""

from __future__ import annotations

from random import Random

from infra.faults import outages, strikes
from infra.faults.s3_proxy import sometimes
from infra.faults.scene import Row, Strikes, crew
from infra.faults.worker_rows import KILL_SECONDS


def doorbells(tasks: int = 1000) -> Row:
    """Celery loses and doubles messages."""
    bells = outages.Doorbells(0.1, 0.2)
    return Row(
        name="doorbells",
        stage="all",
        what="10 % of the doorbells are lost on their way into Celery's lists, 20 % come twice.",
        strikes=strikes.watching(lambda _: bells.struck),
        tasks=tasks,
        workers=crew(embed=2),
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


def s3(name: str, what: str, share: float, mishap: str, *, methods: str = "", tasks: int = 200) -> Row:
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


def s3_5xx(tasks: int = 200) -> Row:
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


def wipe(*, durable: bool, tasks: int = 300) -> Row:
    """Redis has forgotten everything."""
    again = "even tasks that were only accepted come back" if durable else "clients ask again for what is unknown then"
    return Row(
        name="valkey-wipe-durable" if durable else "valkey-wipe",
        stage="ledger",
        what=f"FLUSHALL in mid-run, then `trivet rebuild`; {again}.",
        strikes=outages.wiping(0.3, ask_again=not durable),
        tasks=tasks,
        own_valkey="everysec",
        replayed=True,
        settings={"durable_accept": durable},
    )


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

"""The matrix: one row per fault and stage."""

from __future__ import annotations

import signal
from dataclasses import replace

from infra.faults import delivery_rows, outages, server_rows, strikes, worker_rows
from infra.faults.scene import Row
from trivet.names import Stage

ROWS: tuple[Row, ...] = (
    Row(
        name="kill-accept",
        stage="accept",
        what="`kill -9` of the client whenever it has given 25 tasks in; it starts again and asks with the same keys.",
        strikes=strikes.killing_the_client(25),
        tasks=1000,
        client_process=True,
    ),
    *(worker_rows.kill(role) for role in Stage),
    Row(
        name="kill-child",
        stage="prepare, commit",
        what=f"`kill -9` of one prefork child every {worker_rows.KILL_SECONDS:g} s.",
        strikes=strikes.killing_children("prepare", worker_rows.KILL_SECONDS),
        tasks=1000,
    ),
    server_rows.kill_sweep(),
    worker_rows.real_encoder(),
    worker_rows.recovery(),
    *(worker_rows.freeze(role) for role in Stage),
    server_rows.doorbells(),
    Row(
        name="sigterm",
        stage="all",
        what="SIGTERM of every worker every 20 s; each must end by itself with nothing held and nothing charged.",
        strikes=strikes.terminating(20.0),
        tasks=150,
    ),
    server_rows.valkey("valkey-term", "SIGTERM of Valkey, twice.", outages.restarting_valkey(signal.SIGTERM, 2, 10.0)),
    server_rows.valkey(
        "valkey-kill-everysec",
        "`kill -9` of Valkey, twice, with appendfsync everysec.",
        outages.restarting_valkey(signal.SIGKILL, 2, 10.0),
        replayed=True,
    ),
    server_rows.valkey(
        "valkey-kill-always",
        "`kill -9` of Valkey, twice, with appendfsync always.",
        outages.restarting_valkey(signal.SIGKILL, 2, 10.0),
        "always",
    ),
    server_rows.blackhole(),
    Row(
        name="valkey-cut",
        stage="ledger",
        what="Every connection to Redis is cut every 2 s.",
        strikes=outages.cutting_redis(2.0),
        through_redis_proxy=True,
    ),
    server_rows.wipe(durable=False),
    server_rows.wipe(durable=True),
    server_rows.s3_5xx(),
    server_rows.s3("s3-409", "2 % of all writes to S3 are answered 409.", 0.02, "409", methods="PUT POST"),
    server_rows.s3("s3-lost-answers", "5 % of all writes to S3 are done, and the answer is lost.", 0.05, "drop after",
       methods="PUT POST"),
    server_rows.s3("s3-slow", "10 % of all S3 requests take a second longer.", 0.1, "wait 1"),
    server_rows.s3_outage(),
    worker_rows.oom(),
    worker_rows.poison("prepare"),
    worker_rows.poison("embed"),
    delivery_rows.webhook(),
    delivery_rows.kill_deliver(),
    worker_rows.clock(),
    worker_rows.clock_apart(),
)  # fmt: skip


def named(name: str, tasks: int = 0) -> Row | None:
    """A row by its name, with so many tasks (0: its own number)."""
    row = next((row for row in ROWS if row.name == name), None)
    return replace(row, tasks=tasks) if row is not None and tasks else row

"""What `trivet doctor` looks at. A check never raises: what it finds is its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

from trivet.cli.common import start_hint
from trivet.cli.console import counted
from trivet.cli.packages import absent_packages
from trivet.errors import LedgerUnavailable, TrivetError
from trivet.machine import gpus
from trivet.names import Stage
from trivet.supervisor.state import Phase, status

if TYPE_CHECKING:
    from trivet.settings import Settings

NO_WORKERS_HERE = "Start workers from a checkout of the repository, or from the container image."
_STALE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    result: Literal["ok", "warning", "problem"]
    detail: str
    hint: str = ""


def findings(settings: Settings) -> Iterator[Finding]:
    """All checks, one after the other. `settings` as `connected_settings` gives them."""
    yield from _system(settings)
    yield from _guarded("Redis", lambda: _redis(settings))
    yield from _guarded("ledger", lambda: _ledger(settings))
    yield from _guarded("S3", lambda: _s3(settings))
    yield from _guarded("model", lambda: _model(settings))
    yield from _guarded("device", lambda: _device(settings))
    yield from _guarded("tuning", lambda: _tuning(settings))
    yield from _guarded("workers", lambda: _workers(settings))
    with suppress(LedgerUnavailable):  # Then the check of Redis has said so.
        yield from _guarded("garbage collection", lambda: _gc(settings), LedgerUnavailable)
        yield from _guarded("events", lambda: _events(settings), LedgerUnavailable)
    yield from _guarded("index", lambda: _index(settings))
    yield from _packages()


def _packages() -> Iterator[Finding]:
    absent = absent_packages()
    for extra, names in absent.items():
        if names:
            yield Finding(
                f"packages, {extra}",
                "warning",
                f"not installed: {', '.join(names)}",
                f"This machine cannot take the role; if it should: pip install 'trivet[{extra}]'",
            )
    if not any(absent.values()):
        yield Finding("packages", "ok", "every role's packages are installed")


def _index(settings: Settings) -> Iterator[Finding]:
    from trivet.cli.index import judged

    if settings.indexed and settings.search_socket.exists():
        well, sentence = judged(settings)
        yield Finding("index", "ok" if well else "warning", sentence)
    elif settings.indexed and status(settings).phase is Phase.UP:
        yield Finding("index", "warning", "No search process answers: searches read the Parquet files.", "See its log.")


def _system(settings: Settings) -> Iterator[Finding]:
    """Whoever named no server expects one that runs here: that there is none explains all that follows."""

    if settings.model_fields_set & {"redis_url", "s3_endpoint", "s3_access_key"}:
        return
    if status(settings).phase is not Phase.DOWN:
        return
    if start_hint():
        yield Finding("system", "warning", "Nothing runs here: start it with `make up` (or `trivet up`).")
    else:
        yield Finding("system", "warning", "Nothing runs here.", "Set TRIVET_REDIS_URL and TRIVET_S3_ENDPOINT.")


def _guarded(name: str, check: Callable[[], Iterator[Finding]], *let_through: type[TrivetError]) -> Iterator[Finding]:
    try:
        yield from check()
    except let_through:
        raise
    except TrivetError as error:
        yield Finding(name, "problem", error.message, error.hint)
    except Exception as error:  # noqa: BLE001 - a doctor that dies of one finding finds no other
        yield Finding(name, "problem", f"The check itself failed: {type(error).__name__}: {error}")


def _redis(settings: Settings) -> Iterator[Finding]:
    from trivet.ids import redact_url
    from trivet.ledger.redis import RedisLedger

    facts = RedisLedger(settings).ping()
    yield Finding("Redis", "ok", f"version {facts['version']} at {redact_url(settings.redis_url)}")
    if facts["aof_enabled"]:
        yield Finding("Redis AOF", "ok", "on: accepted tasks survive a crash of Redis")
    else:
        yield Finding(
            "Redis AOF",
            "problem",
            "off: tasks that were accepted are lost when Redis restarts",
            "Set appendonly yes in its configuration.",
        )
    policy = facts["maxmemory_policy"]
    if policy in ("noeviction", ""):
        detail = "noeviction" if policy else "not to be read here; it must be noeviction"
        yield Finding("Redis maxmemory-policy", "ok" if policy else "warning", detail)
    else:
        yield Finding(
            "Redis maxmemory-policy",
            "problem",
            f"{policy}: Redis may throw away tasks when its memory is full",
            "Set maxmemory-policy noeviction.",
        )


def _ledger(settings: Settings) -> Iterator[Finding]:
    from trivet.ledger.migration import Migration
    from trivet.ledger.refusals import SCHEMA_VERSION, refused

    ledger = Migration(settings)
    version = ledger.version()
    if version == SCHEMA_VERSION:
        yield Finding("ledger schema", "ok", version)
    else:
        error = refused(f"SCHEMA {version}", settings.redis_prefix)
        yield Finding("ledger schema", "problem", error.message, error.hint)
    silent = ledger.seconds_since_sweep()
    if silent is not None and silent < _STALE_SECONDS:
        yield Finding("sweeper", "ok", f"came by {silent:.0f} s ago")
    else:
        yield Finding(
            "sweeper",
            "problem",
            "never came by" if silent is None else f"came by {silent:.0f} s ago",
            "Without it a dead worker's tasks wait for ever: keep one process with the role sweep running.",
        )


def _s3(settings: Settings) -> Iterator[Finding]:
    from trivet.stores import open_store
    from trivet.stores.selftest import check_conditional_writes

    store = open_store(settings)
    where = settings.s3_endpoint or f"AWS, {settings.s3_region}"
    next(iter(store.list(f"{settings.s3_prefix}/_selftest/")), None)
    yield Finding("S3", "ok", f"bucket {settings.s3_bucket} at {where}")
    check_conditional_writes(store, settings.s3_prefix)
    yield Finding("S3 conditional writes", "ok", "If-None-Match and If-Match hold, in races too")


def _model(settings: Settings) -> Iterator[Finding]:
    from trivet.encoder.models import resolve

    identity = resolve(settings, settings.embed_model).identity
    if identity.name == settings.embed_model:
        yield Finding("model", "ok", f"{identity.name} at revision {identity.revision or 'unknown'}")
    else:
        yield Finding(
            "model",
            "warning",
            f"{settings.embed_model} is answered by {identity.name}",
            "Passports name the one that ran.",
        )


def _device(settings: Settings) -> Iterator[Finding]:
    """What embed workers that start here would compute on."""
    cards = gpus()
    try:
        torch = version("torch")
    except PackageNotFoundError:
        return
    if cards and settings.device == "auto" and torch.endswith("+cpu"):
        yield Finding(
            "device",
            "warning",
            f"The CPU computes: torch {torch} knows no GPU, and this machine has {counted(len(cards), 'GPU')}.",
            "Remove .venv and run `make install` again, or build the images with DEVICE=cuda.",
        )
    else:
        yield Finding("device", "ok", counted(len(cards), "GPU") if cards and settings.device != "cpu" else "CPU")


def _tuning(settings: Settings) -> Iterator[Finding]:
    """What was measured on this machine, and how much of it counts beside explicit settings."""
    from trivet.tuning import find, in_force

    tuning, why = find(settings)
    if tuning is None:
        hint = "Measure this machine: trivet tune encoder"
        yield Finding("tuning", "warning" if why else "ok", why or "none: built-in defaults", hint)
        return
    used = in_force(settings, tuning)
    values = ", ".join(f"{name} {value}" for name, value in used.items()) or "nothing, since all of it is set"
    yield Finding("tuning", "ok", f"in force of what was measured at {tuning.measured_at}: {values}")


def _workers(settings: Settings) -> Iterator[Finding]:
    from trivet.ledger.redis import RedisLedger

    workers = RedisLedger(settings).backlog().workers
    alive = {name: info for name, info in workers.items() if info["seen_seconds"] < _STALE_SECONDS}
    roles = {role for info in alive.values() for role in info.get("roles", ())}
    missing = [role for role in Stage if role not in roles]
    if not missing:
        yield Finding("workers", "ok", f"{len(alive)} processes; all roles are served")
    else:
        yield Finding(
            "workers",
            "problem",
            f"nobody serves the role {' or '.join(missing)}: tasks will wait",
            f"{start_hint()} Or start a worker: trivet worker {' '.join(missing)}" if start_hint() else NO_WORKERS_HERE,
        )


def _gc(settings: Settings) -> Iterator[Finding]:
    from trivet.ledger.redis_holding import RedisHolding

    ledger = RedisHolding(settings)
    silent, purges = ledger.seconds_since_turn("gc_turn"), len(ledger.open_purges())
    if silent is not None and silent < _STALE_SECONDS:
        yield Finding("garbage collection", "ok", f"came by {silent:.0f} s ago")
        return
    waiting = f", and {counted(purges, 'purge')} {'wait' if purges > 1 else 'waits'}" if purges else ""
    yield Finding(
        "garbage collection",
        "problem" if purges else "warning",
        ("never came by" if silent is None else f"came by {silent:.0f} s ago") + waiting,
        "Without it nothing is removed from S3, records of ended tasks included: keep one process with the role gc "
        "running.",
    )


def _events(settings: Settings) -> Iterator[Finding]:
    from trivet.delivery import GROUP
    from trivet.delivery.standing import Standing

    standing = Standing(settings)
    try:
        endpoints, groups = standing.endpoints(), standing.groups()
    finally:
        standing.close()
    silent = next((group.silent_seconds for group in groups if group.name == GROUP), None)
    known = endpoints.active + endpoints.paused
    if known and (silent is None or silent >= _STALE_SECONDS):
        yield Finding(
            "deliveries",
            "problem",
            f"nobody sends events to {counted(known, 'endpoint')}, and the stream is kept for them",
            "Keep one process with the role deliver running, or remove the endpoints.",
        )
    elif known:
        detail = f"{counted(known, 'endpoint')}, {counted(endpoints.waiting, 'event')} in line"
        yield Finding("deliveries", "ok", detail)
    if endpoints.paused:
        hint = "See: trivet endpoints list"
        yield Finding("paused endpoints", "warning", f"{counted(endpoints.paused, 'endpoint')} paused: no events", hint)
    for group in groups:
        if group.behind is None or group.behind <= settings.event_stream_length:
            continue
        yield Finding(
            f"consumer group {group.name}",
            "warning",
            f"has {counted(group.behind, 'event')} still to read, more than the stream keeps otherwise",
            "They fill Redis. Run more of its consumers, or drop the group if nobody reads it any more.",
        )

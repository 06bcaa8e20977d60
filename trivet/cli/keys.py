"""`trivet keys` and `trivet audit-log`: who may use the HTTP API, and who did what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from trivet.cli.common import Common, JsonFlag, validated
from trivet.cli.console import print_json, print_table, say
from trivet.errors import InvalidRequest

if TYPE_CHECKING:
    from trivet.keys import ApiKey
    from trivet.keys.service import Keys
    from trivet.settings import Settings

group = typer.Typer(help="Make and end API keys.", no_args_is_help=True, rich_markup_mode=None)

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The visible beginning of the key: sk_ and 16 digits.")]
_WHO = "cli"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="keys")
    app.command("audit-log")(audit_log)


@dataclass(frozen=True, slots=True)
class Opened:
    """What the commands work with."""

    settings: Settings
    keys: Keys
    now: float


def note(settings: Settings, action: str, target: str, now: float) -> None:
    """Put a deed of the command line into the audit log of the namespace."""
    from trivet.trail import entry
    from trivet.trail.redis import RedisTrail

    trail = RedisTrail(settings)
    try:
        trail.note(entry(now, settings.namespace, _WHO, action, target=target))
    finally:
        trail.close()


@contextmanager
def _opened(ctx: typer.Context) -> Iterator[Opened]:
    from trivet.clock import SystemClock
    from trivet.keys.service import Keys

    common: Common = ctx.obj
    settings = common.settings()
    keys = Keys(settings)
    try:
        yield Opened(settings, keys, SystemClock().now())
    finally:
        keys.close()


@group.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Option(help="For whoever lists them.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, search, ingest, delete, manage or admin; repeat it. None: read, search, ingest."),
    ] = None,
    expires_days: Annotated[float | None, typer.Option(help="None: it never expires.")] = None,
    every_namespace: Annotated[bool, typer.Option("--every-namespace", help="For all namespaces, not one.")] = False,
    requests_per_minute: Annotated[int | None, typer.Option(help="Else as TRIVET_RATE_PER_MINUTE says.")] = None,
    sources_per_day: Annotated[int | None, typer.Option(help="Else as TRIVET_SOURCES_PER_DAY says; 0: any.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Make a key for the namespace. It is printed this once."""
    from trivet.keys import EVERY_NAMESPACE, KeyLimits
    from trivet.keys.service import DEFAULT_SCOPES

    limits = validated(KeyLimits, requests_per_minute=requests_per_minute, sources_per_day=sources_per_day)
    with _opened(ctx) as opened:
        made, text = opened.keys.create(
            EVERY_NAMESPACE if every_namespace else opened.settings.namespace,
            name=name,
            scopes=scope or DEFAULT_SCOPES,
            expires_days=expires_days,
            limits=limits,
        )
        note(opened.settings, "keys create", made.key_id, opened.now)
    _tell(made, text, opened.now, json_)


@group.command("list")
def list_(
    ctx: typer.Context,
    every_namespace: Annotated[bool, typer.Option("--every-namespace", help="Those for all namespaces.")] = False,
    json_: JsonFlag = False,
) -> None:
    """List the keys of the namespace; revoked ones for 30 days."""
    from trivet.keys import EVERY_NAMESPACE

    with _opened(ctx) as opened:
        found = opened.keys.list(EVERY_NAMESPACE if every_namespace else opened.settings.namespace)
    if json_:
        print_json([key.public(opened.now) for key in found])
    elif found:
        print_table(
            ("key", "name", "scopes", "state", "created", "expires", "last used"),
            [
                (
                    key.key_id,
                    key.name,
                    ", ".join(key.scopes),
                    key.state(opened.now),
                    moment(key.created_at),
                    moment(key.expires_at),
                    moment(key.last_used_at),
                )
                for key in found
            ],
        )
    else:
        say("There is no API key yet. Make one: trivet keys create")


@group.command()
def revoke(ctx: typer.Context, key_id: KeyId, json_: JsonFlag = False) -> None:
    """End a key at once, whichever namespace it is for."""
    with _opened(ctx) as opened:
        was = opened.keys.revoke(key_id)
        note(opened.settings, "keys revoke", key_id, opened.now)
    if json_:
        print_json({"revoked": key_id, "was_active": was})
    else:
        say(f"API key {key_id} is revoked." if was else f"API key {key_id} was revoked already.")


@group.command()
def rotate(
    ctx: typer.Context,
    key_id: KeyId,
    overlap_hours: Annotated[float, typer.Option(min=0, help="How long the secret before it is good.")] = 24.0,
    json_: JsonFlag = False,
) -> None:
    """Give a key another secret, printed this once; its id, scopes and limits stay."""
    with _opened(ctx) as opened:
        made, text = opened.keys.rotate(key_id, overlap_seconds=overlap_hours * 3600)
        note(opened.settings, "keys rotate", key_id, opened.now)
    _tell(made, text, opened.now, json_)


def audit_log(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, newest first.")] = 50,
    json_: JsonFlag = False,
) -> None:
    """Show who changed, deleted or was refused what in the namespace."""
    from trivet.trail.redis import RedisTrail

    common: Common = ctx.obj
    settings = common.settings()
    trail = RedisTrail(settings)
    try:
        found = trail.entries(settings.namespace, limit)
    finally:
        trail.close()
    if json_:
        print_json([each.model_dump(mode="json") for each in found])
    elif found:
        rows = [(moment(each.at), each.who, each.action, each.target, each.outcome, each.address) for each in found]
        print_table(("time", "who", "action", "target", "outcome", "address"), rows)
    else:
        say("Nothing is in the audit log yet.")


def _tell(made: ApiKey, text: str, now: float, as_json: bool) -> None:
    if as_json:
        print_json({**made.public(now), "api_key": text})
        return
    say(f"API key {made.key_id} may {', '.join(made.scopes)}. Keep it; it is shown this once:")
    typer.echo(text)


def moment(seconds: float | None) -> str:
    """A time for the reader, or nothing."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else ""


def secret_from(text: str) -> str:
    """A secret as it was read from stdin. Raises `InvalidRequest` where there is none."""
    secret = text.strip()
    if not secret:
        raise InvalidRequest("No secret came on stdin.", hint="Pipe it in: … --secret-stdin < file")
    return secret

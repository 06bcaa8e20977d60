"""`trivet endpoints`: where events are sent to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import counted, print_json, print_table, say
from trivet.errors import InvalidRequest

if TYPE_CHECKING:
    from trivet.delivery.endpoints import Endpoints
    from trivet.delivery.values import Attempt, Endpoint

group = typer.Typer(help="Send events to webhooks, SNS and SQS.", no_args_is_help=True, rich_markup_mode=None)

EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Id of the endpoint.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="endpoints")


@contextmanager
def _opened(ctx: typer.Context) -> Iterator[Endpoints]:
    from trivet.delivery.endpoints import Endpoints

    common: Common = ctx.obj
    settings = common.settings()
    made = Endpoints(settings, settings.namespace)
    try:
        yield made
    finally:
        made.close()


@group.command()
def add(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="URL, ARN of a topic, or URL of a queue.")],
    transport: Annotated[str, typer.Option(help="webhook, sns or sqs; else told by the target.")] = "",
    kind: Annotated[list[str] | None, typer.Option(help="Such as ingest.completed; repeat it. None: all.")] = None,
    collection: Annotated[
        list[str] | None, typer.Option("--collection", "-c", help="Of this collection alone; repeat it.")
    ] = None,
    description: Annotated[str, typer.Option(help="For whoever lists them.")] = "",
    json_: JsonFlag = False,
) -> None:
    """Send the events that come from now on there. A webhook's secret is printed this once."""
    with _opened(ctx) as endpoints:
        made = endpoints.add(
            target, transport=transport, kinds=kind or (), collections=collection or (), description=description
        )
    if json_:
        print_json({**made.public(), "secret": _secret(made)})
        return
    say(f"Endpoint {made.endpoint_id} gets the events from now on.")
    _tell_secret(made)


@group.command("list")
def list_(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """List the endpoints of the namespace."""
    with _opened(ctx) as endpoints:
        found = endpoints.list()
    if json_:
        print_json([endpoint.public() for endpoint in found])
    elif found:
        print_table(
            ("endpoint", "transport", "target", "events", "collections", "state", "reason"),
            [
                (
                    each.endpoint_id,
                    each.transport,
                    each.public()["target"],
                    ", ".join(each.kinds) or "all",
                    ", ".join(each.collections) or "all",
                    each.state,
                    each.reason,
                )
                for each in found
            ],
        )
    else:
        say("There is no endpoint yet. Add one: trivet endpoints add URL")


@group.command()
def show(ctx: typer.Context, endpoint_id: EndpointId, json_: JsonFlag = False) -> None:
    """Show one endpoint, and how much it has still to get."""
    with _opened(ctx) as endpoints:
        found, waiting = endpoints.get(endpoint_id), endpoints.waiting(endpoint_id)
    if json_:
        print_json({**found.public(), "pending": waiting.pending, "leased": waiting.leased})
        return
    shown: list[tuple[str, object]] = [
        ("endpoint", found.endpoint_id),
        ("transport", found.transport),
        ("target", found.public()["target"]),
        ("description", found.description),
        ("events", ", ".join(found.kinds) or "all"),
        ("collections", ", ".join(found.collections) or "all"),
        ("state", f"{found.state} since {_time(found.changed_at)}"),
        ("reason", found.reason),
        ("waiting", f"{counted(waiting.pending, 'event')}, and {waiting.leased} being sent"),
        ("last taken", _time(found.last_success_at)),
        ("failing since", _time(found.failing_since)),
        ("missed", f"events from {found.missed_from} on: resume with --replay" if found.missed_from else ""),
        ("secrets", "; ".join(_until(secret.expires_at) for secret in found.secrets)),
        ("created", _time(found.created_at)),
    ]
    print_table(("", ""), [(name, value) for name, value in shown if value != ""])


@group.command()
def rotate(
    ctx: typer.Context,
    endpoint_id: EndpointId,
    overlap_hours: Annotated[float, typer.Option(min=0, help="How long the secrets before it sign along.")] = 24.0,
    json_: JsonFlag = False,
) -> None:
    """Give a webhook a new secret, printed this once."""
    with _opened(ctx) as endpoints:
        made = endpoints.rotate(endpoint_id, overlap_seconds=overlap_hours * 3600)
    if json_:
        print_json({**made.public(), "secret": _secret(made)})
    else:
        say(f"Endpoint {endpoint_id} is signed for with a new secret; the old ones go on for {overlap_hours:g} h.")
        _tell_secret(made)


@group.command()
def pause(
    ctx: typer.Context,
    endpoint_id: EndpointId,
    reason: Annotated[str, typer.Option("--reason", help="Shown to whoever looks.")] = "by an operator",
    json_: JsonFlag = False,
) -> None:
    """Send nothing more; what waits stays in line."""
    with _opened(ctx) as endpoints:
        endpoints.pause(endpoint_id, reason)
        found = endpoints.get(endpoint_id)
    if json_:
        print_json(found.public())
    else:
        say(f"Endpoint {endpoint_id} is paused.")


@group.command()
def resume(
    ctx: typer.Context,
    endpoint_id: EndpointId,
    replay: Annotated[bool, typer.Option("--replay", help="Send also the events that came meanwhile.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Send what waits, at once."""
    with _opened(ctx) as endpoints:
        replayed = endpoints.resume(endpoint_id, replay=replay)
        found = endpoints.get(endpoint_id)
    if json_:
        print_json({**found.public(), "replayed": replayed})
        return
    missed = f", with {counted(replayed, 'event')} that it missed" if replay else ""
    say(f"Endpoint {endpoint_id} goes on{missed}.")
    if found.missed_from:
        say("It missed events while it was paused. To send them too: trivet endpoints resume ENDPOINT --replay")


@group.command()
def remove(ctx: typer.Context, endpoint_id: EndpointId, json_: JsonFlag = False) -> None:
    """Forget an endpoint, with all that waits for it."""
    with _opened(ctx) as endpoints:
        endpoints.remove(endpoint_id)
    if json_:
        print_json({"removed": endpoint_id})
    else:
        say(f"Endpoint {endpoint_id} is removed.")


@group.command()
def log(
    ctx: typer.Context,
    endpoint_id: EndpointId,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, newest first.")] = 50,
    json_: JsonFlag = False,
) -> None:
    """List the attempts to reach an endpoint, newest first."""
    with _opened(ctx) as endpoints:
        found = endpoints.log(endpoint_id, limit)
    if json_:
        print_json([attempt.model_dump(mode="json") for attempt in found])
    elif found:
        print_table(
            ("time", "event", "kind", ">attempt", "status", ">seconds", "next", "error"), [_row(each) for each in found]
        )
    else:
        say("Nothing was sent to it yet.")


@group.command()
def replay(
    ctx: typer.Context,
    endpoint_id: EndpointId,
    event_id: Annotated[str, typer.Argument(metavar="[EVENT]", help="Id of one event.")] = "",
    since: Annotated[str, typer.Option(help="From this time on, such as 2026-05-01T12:00:00Z.")] = "",
    until: Annotated[str, typer.Option(help="Up to this time.")] = "",
    json_: JsonFlag = False,
) -> None:
    """Send an event again, or all of a time that the endpoint wants, each under its own id."""
    with _opened(ctx) as endpoints:
        replayed = endpoints.replay(endpoint_id, event_id or None, since=_moment(since), until=_moment(until))
    if json_:
        print_json({"replayed": replayed})
    else:
        say(f"{counted(replayed, 'event')} will be sent again.")


@group.command("test")
def try_(
    ctx: typer.Context,
    endpoint_id: EndpointId,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the first attempt.")] = 30.0,
    json_: JsonFlag = False,
) -> None:
    """Have a deliver process send a test event. Exit status 1 where the endpoint did not take it."""
    with _opened(ctx) as endpoints:
        found = endpoints.test(endpoint_id, timeout=timeout)
    if json_:
        print_json(found.model_dump(mode="json") if found else None)
    elif found is None:
        say("Nobody has sent it yet: see that a deliver process runs and that the endpoint is not paused.")
    else:
        say(f"It answered {found.status} after {found.seconds:.2f} s." if found.ok else found.error)
    if found is None or not found.ok:
        raise typer.Exit(1)


def _secret(endpoint: Endpoint) -> str:
    return endpoint.secrets[0].value.get_secret_value() if endpoint.secrets else ""


def _tell_secret(endpoint: Endpoint) -> None:
    if endpoint.secrets:
        say("Keep this secret; it is shown this once:")
        typer.echo(_secret(endpoint))


def _row(attempt: Attempt) -> tuple[Any, ...]:
    return (
        _time(attempt.at),
        attempt.event_id,
        attempt.kind,
        attempt.attempt,
        attempt.status or "none",
        f"{attempt.seconds:.2f}",
        _time(attempt.next_at),
        attempt.error,
    )


def _until(expires_at: float | None) -> str:
    return f"one until {_time(expires_at)}" if expires_at else "the current one"


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{text[:40]!r} is no time.", hint="Write it as 2026-05-01T12:00:00Z.") from None


def _time(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else ""

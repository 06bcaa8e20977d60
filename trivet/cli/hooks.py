"""`trivet hooks`: webhooks that take sources in."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import print_json, print_table, say
from trivet.cli.keys import moment, note, secret_from
from trivet.errors import InvalidRequest

if TYPE_CHECKING:
    from trivet.hooks import Hook, Reading
    from trivet.hooks.service import Hooks
    from trivet.settings import Settings

group = typer.Typer(help="Take sources in by webhooks.", no_args_is_help=True, rich_markup_mode=None)

HookId = Annotated[str, typer.Argument(metavar="HOOK", help="Id of the hook.")]
SecretStdin = Annotated[bool, typer.Option("--secret-stdin", help="Read the sender's own secret from stdin.")]
_MOST_PAYLOAD = 32 << 20


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="hooks")


@contextmanager
def _opened(ctx: typer.Context) -> Iterator[tuple[Settings, Hooks]]:
    from trivet.hooks.service import Hooks

    common: Common = ctx.obj
    settings = common.settings()
    hooks = Hooks(settings, settings.namespace)
    try:
        yield settings, hooks
    finally:
        hooks.close()


@group.command()
def create(
    ctx: typer.Context,
    scheme: Annotated[str, typer.Argument(metavar="SCHEME", help="standard, github, s3, sns, eventbridge or hmac.")],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where the sources go.")],
    options: Annotated[
        str, typer.Option(help='Of the scheme, as JSON or @FILE, such as \'{"paths": ["docs/*.md"]}\'.')
    ] = "{}",
    secret_stdin: SecretStdin = False,
    description: Annotated[str, typer.Option(help="For whoever lists them.")] = "",
    json_: JsonFlag = False,
) -> None:
    """Create a hook. Its secret is printed this once."""
    common: Common = ctx.obj
    common.client().collection(collection)
    secret = secret_from(sys.stdin.read()) if secret_stdin else ""
    with _opened(ctx) as (settings, hooks):
        made = hooks.add(
            scheme, collection=collection, options=_options(options), secret=secret, description=description
        )
        note(settings, "hooks create", made.hook_id, made.created_at)
    _tell(made, json_)


@group.command("list")
def list_(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """List the hooks of the namespace."""
    with _opened(ctx) as (_, hooks):
        found = hooks.list()
    if json_:
        print_json([hook.public() for hook in found])
    elif found:
        print_table(
            ("hook", "scheme", "collection", "description", "created", "last delivery", "of"),
            [
                (
                    hook.hook_id,
                    hook.scheme,
                    hook.collection,
                    hook.description,
                    moment(hook.created_at),
                    moment(hook.last_at),
                    hook.last_kind,
                )
                for hook in found
            ],
        )
    else:
        say("There is no hook yet. Create one: trivet hooks create SCHEME -c COLLECTION")


@group.command()
def delete(ctx: typer.Context, hook_id: HookId, json_: JsonFlag = False) -> None:
    """Refuse its deliveries from now on."""
    with _opened(ctx) as (settings, hooks):
        hooks.remove(hook_id)
        _note_now(settings, "hooks delete", hook_id)
    if json_:
        print_json({"deleted": hook_id})
    else:
        say(f"Hook {hook_id} is deleted.")


@group.command()
def rotate(
    ctx: typer.Context,
    hook_id: HookId,
    overlap_hours: Annotated[float, typer.Option(min=0, help="How long the secret before verifies along.")] = 24.0,
    secret_stdin: SecretStdin = False,
    json_: JsonFlag = False,
) -> None:
    """Give a hook another secret, printed this once."""
    secret = secret_from(sys.stdin.read()) if secret_stdin else ""
    with _opened(ctx) as (settings, hooks):
        made = hooks.rotate(hook_id, secret=secret, overlap_seconds=overlap_hours * 3600)
        _note_now(settings, "hooks rotate", hook_id)
    _tell(made, json_)


@group.command("test")
def try_(
    ctx: typer.Context,
    hook_id: HookId,
    payload: Annotated[Path | None, typer.Option(help="A file with a payload; else one that shows the most.")] = None,
    json_: JsonFlag = False,
) -> None:
    """Sign a delivery as its sender would, and say what it would ingest and delete. Nothing is done."""
    body = b""
    if payload is not None:
        try:
            with payload.open("rb") as file:
                body = file.read(_MOST_PAYLOAD)
        except OSError as error:
            raise InvalidRequest(f"The file {payload} cannot be read: {error.strerror}.") from None
    with _opened(ctx) as (_, hooks):
        found = hooks.test(hook_id, body)
    if json_:
        print_json({"kind": found.kind, "actions": _actions(found), "ignored": list(found.ignored)})
        return
    say(f"A delivery of this kind ({found.kind}) is verified.")
    if found.actions:
        rows = [(each["action"], each["object_id"], each["url"]) for each in _actions(found)]
        print_table(("would", "object", "source"), rows)
    else:
        say("It would ingest and delete nothing.")
    for why in found.ignored:
        say(why)


def _actions(found: Reading) -> list[dict[str, str]]:
    from trivet.hooks.values import Done

    return [Done.of(action).model_dump(include={"action", "object_id", "url"}) for action in found.actions]


def _options(text: str) -> dict[str, Any]:
    try:
        if text.startswith("@"):
            text = Path(text[1:]).read_text("utf-8")
        options = json.loads(text)
    except OSError as error:
        raise InvalidRequest(f"The file {text[1:]} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise InvalidRequest("The options are no JSON.", hint="Give an object, or @FILE.") from None
    if not isinstance(options, dict):
        raise InvalidRequest("The options are no JSON object.", hint='Such as {"paths": ["docs/*.md"]}.')
    return options


def _note_now(settings: Settings, action: str, target: str) -> None:
    from trivet.clock import SystemClock

    note(settings, action, target, SystemClock().now())


def _tell(made: Hook, as_json: bool) -> None:
    secret = made.secrets[0].value.get_secret_value() if made.secrets else ""
    if as_json:
        print_json({**made.public(), "url": f"/v1/hooks/{made.hook_id}", "secret": secret})
        return
    say(f"Hook {made.hook_id} takes deliveries at POST /v1/hooks/{made.hook_id} of the API.")
    if secret:
        say("Its secret, which is shown this once:")
        typer.echo(secret)

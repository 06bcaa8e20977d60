"""`trivet events`: the CloudEvents on the Redis stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import clean, out, print_json, print_json_line, say

if TYPE_CHECKING:
    from trivet.values import Event

_BLOCK_SECONDS = 5.0
_PAGE = 500


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(events)


def events(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
    after: Annotated[str, typer.Option(help="Stream id to start after; 0-0 is the start of the stream.")] = "",
    count: Annotated[int, typer.Option(min=1, help="Without --follow: at most so many.")] = 100,
    json_: JsonFlag = False,
) -> None:
    """Print events of the namespace, oldest first; --follow prints those still to come, with --json one per line."""
    common: Common = ctx.obj
    client = common.client()
    last = after or (client.last_event() if follow else "0-0")
    found: list[tuple[str, Event]] = []
    while follow or len(found) < count:
        page = client.events(last, _PAGE, _BLOCK_SECONDS if follow else 0)
        if not page and not follow:
            break
        for stream_id, event in page:
            last = stream_id
            if event.data.get("namespace") != client.namespace:
                continue
            if follow:
                _print(stream_id, event, json_)
            else:
                found.append((stream_id, event))
    if json_:
        print_json([_with_id(stream_id, event) for stream_id, event in found[:count]])
        return
    for stream_id, event in found[:count]:
        _print(stream_id, event, json_)
    if not found:
        say("There is no event yet.")


def _print(stream_id: str, event: Event, as_json: bool) -> None:
    if as_json:
        print_json_line(_with_id(stream_id, event))
    else:
        out().print(clean(line(stream_id, event)), soft_wrap=True)


def _with_id(stream_id: str, event: Event) -> dict[str, Any]:
    return {"stream_id": stream_id, **event.model_dump(mode="json")}


def line(stream_id: str, event: Event) -> str:
    """An event on one line: when, what, which object, and the figures or the error."""
    data = event.data
    rest = ""
    if error := data.get("error"):
        rest = f"{error.get('code', '')}: {error.get('message', '')}"
    elif receipt := data.get("receipt"):
        rest = f"generation {data.get('generation')}, {receipt.get('chunks', 0)} chunks"
    where = f"{data.get('collection', '')}/{data.get('object_id', '')}"
    kind = event.type.removeprefix("trivet.")
    return f"{event.time}  {stream_id}  {kind:18}  {where}  {rest}".rstrip()

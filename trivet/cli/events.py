"""`trivet events`: the CloudEvents on the Redis stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import clean, out, print_json, print_json_line, say

if TYPE_CHECKING:
    from trivet.client import Trivet
    from trivet.values import Event

_BLOCK_SECONDS = 5.0
_PAGE = 500
#: How far back to look for the newest events: a minute, and so many times further while there are too few.
_FIRST_WINDOW_SECONDS = 60
_WIDER = 4


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(events)


def events(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
    after: Annotated[str, typer.Option(help="Stream id to start after, such as 0-0, the start of the stream.")] = "",
    count: Annotated[int, typer.Option(min=1, help="Without --follow: at most so many.")] = 100,
    json_: JsonFlag = False,
) -> None:
    """Print the newest 100 events of the namespace, the oldest of them first.

    --count prints more or fewer, --after the first ones after an id instead of the newest. --follow prints those still
    to come, with --json one per line.
    """
    common: Common = ctx.obj
    client = common.client()
    if follow:
        _follow(client, after or client.last_event(), json_)
    found = list(islice(_after(client, after), count)) if after else newest(client, count)
    if json_:
        print_json([_with_id(stream_id, event) for stream_id, event in found])
        return
    for stream_id, event in found:
        _print(stream_id, event, json_)
    if not found:
        say("There is no event yet.")


def _follow(client: Trivet, last: str, as_json: bool) -> NoReturn:
    while True:
        for stream_id, event in client.events(last, _PAGE, _BLOCK_SECONDS):
            last = stream_id
            if event.data.get("namespace") == client.namespace:
                _print(stream_id, event, as_json)


def newest(client: Trivet, count: int) -> list[tuple[str, Event]]:
    """The newest events of the namespace, at most `count`, oldest first.

    A stream is read forwards; its ids begin with their time in milliseconds, so the end is read without the rest.
    """
    last = int(client.last_event().partition("-")[0])
    window = _FIRST_WINDOW_SECONDS
    while True:
        start = max(last - 1000 * window, 0)
        found = deque(_after(client, f"{start}-0"), maxlen=count)
        if len(found) == count or not start:
            return list(found)
        window *= _WIDER


def _after(client: Trivet, last: str) -> Iterator[tuple[str, Event]]:
    """Events of the namespace after a stream id."""
    while page := client.events(last, _PAGE):
        for stream_id, event in page:
            last = stream_id
            if event.data.get("namespace") == client.namespace:
                yield stream_id, event


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

"""`trivet ingest`: sources in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import print_error, print_json, print_table, say
from trivet.errors import InvalidRequest

if TYPE_CHECKING:
    from trivet.client import Trivet
    from trivet.handles import TaskHandle
    from trivet.values import TaskView

_FAILED = 1
_INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ingest)


def ingest(
    ctx: typer.Context,
    sources: Annotated[list[str], typer.Argument(metavar="URL…", help="https:, http:, s3: or data: URLs, or files.")],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where they go.")],
    create: Annotated[bool, typer.Option("--create", help="Create the collection if it is not there.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Show progress until all have ended.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="With --wait: seconds after which to give up waiting.")] = 0,
    object_id: Annotated[str, typer.Option(help="The object's id, for a single URL; else made from the URL.")] = "",
    idempotency_key: Annotated[str, typer.Option(help="For a single URL: the same key gives the same task.")] = "",
    lane: Annotated[str, typer.Option(help="interactive, normal or bulk.")] = "normal",
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", "-m", help="key=text or key:=JSON, copied to every chunk.")
    ] = None,
    media_type: Annotated[str, typer.Option(help="Overrides what the source states, e.g. text/markdown.")] = "",
    json_: JsonFlag = False,
) -> None:
    """Ingest sources. With --wait the exit status is 1 unless every one was embedded or is unchanged."""
    common: Common = ctx.obj
    if len(sources) > 1 and (object_id or idempotency_key):
        raise InvalidRequest("--object-id and --idempotency-key name one object.", hint="Give a single URL with them.")
    options: dict[str, Any] = {
        "collection": collection,
        "object_id": object_id or None,
        "idempotency_key": idempotency_key or None,
        "lane": lane,
        "metadata": parse_metadata(metadata or []),
        "media_type": media_type or None,
    }
    urls = [source_url(source) for source in sources]
    client = common.client()
    _check(client, urls, options)
    if create:
        client.create_collection(collection, exist_ok=True)
    handles = [client.ingest(url, **options) for url in urls]
    if wait:
        _wait(handles, sources, collection, timeout or None, json_)
    elif json_:
        print_json({"tasks": [_accepted(handle, source) for handle, source in zip(handles, sources, strict=True)]})
    else:
        for handle in handles:
            typer.echo(handle.task_id)
        say("Follow with: trivet tasks, or add --wait.")


def source_url(source: str) -> str:
    """A URL as it is; the path of a file that exists as its `file:` URL. Raises `InvalidRequest`."""
    if not source.strip():
        raise InvalidRequest(
            "The source is empty.", hint="Give a URL such as https://host/path, or the path of a file."
        )
    scheme, colon, _ = source.partition(":")
    if colon and scheme.isalnum() and not Path(source).exists():
        return source
    path = Path(source).expanduser()
    if path.is_file():
        return path.absolute().as_uri()
    what = "is a folder" if path.is_dir() else "is neither a URL nor a file that exists"
    raise InvalidRequest(
        f"{source[:200]!r} {what}.", hint="Give a URL such as https://host/path, or the path of a file."
    )


def parse_metadata(pairs: list[str]) -> dict[str, Any]:
    """`key=text` gives a string, `key:=JSON` any JSON value. Raises `InvalidRequest`."""
    result: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.removesuffix(":"):
            raise InvalidRequest(f"Metadata {pair[:80]!r} is not key=value.")
        if key.endswith(":"):
            try:
                result[key[:-1]] = json.loads(value)
            except ValueError:
                raise InvalidRequest(f"The value of metadata {key[:-1]!r} is not JSON.") from None
        else:
            result[key] = value
    return result


def _check(client: Trivet, urls: list[str], options: dict[str, Any]) -> None:
    """Refuse all before the first is enqueued, so that a wrong URL among many leaves nothing half done."""
    from trivet.accept import parse_request

    for url in urls:
        parse_request({"url": url, "namespace": client.namespace, **options})


def _accepted(handle: TaskHandle, source: str) -> dict[str, Any]:
    return {"task_id": handle.task_id, "source": source, "new": handle.new}


def _wait(handles: list[TaskHandle], sources: list[str], collection: str, timeout: float | None, as_json: bool) -> None:
    from trivet.cli.progress import follow
    from trivet.ids import redact_url

    names = {
        handle.task_id: redact_url(source).rstrip("/").rsplit("/", 1)[-1] or redact_url(source)
        for handle, source in zip(handles, sources, strict=True)
    }
    try:
        views = follow(handles, names=names, timeout=timeout, quiet=as_json)
    except KeyboardInterrupt:
        runs = "the task runs" if len(handles) == 1 else f"the {len(handles)} tasks run"
        print_error(
            "interrupted",
            f"Waiting was interrupted; {runs} on.",
            f"Look again with: trivet tasks --collection {collection}",
            as_json=as_json,
        )
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        print_json({"tasks": [view.model_dump(mode="json") for view in views]})
    else:
        print_outcome(views, names)
    if any(view.state not in ("completed", "skipped") for view in views):
        raise typer.Exit(_FAILED)


def print_outcome(views: list[TaskView], names: dict[str, str]) -> None:
    """A table with a row per object, and a sentence for each that failed or was skipped."""
    print_table(
        ("object", "state", ">pages", ">chunks", ">tokens", ">seconds", "S3 key"),
        [
            (
                names.get(view.task_id, view.object_id),
                view.state,
                view.pages or "",
                view.chunks or "",
                f"{view.tokens:,}" if view.tokens else "",
                f"{view.updated_at - view.created_at:.1f}",
                view.manifest_key or "",
            )
            for view in views
        ],
    )
    for view in views:
        if view.error and view.state == "failed":
            say(f"{names.get(view.task_id, view.object_id)}: {view.error.message} {view.error.hint}".rstrip())
        elif view.state == "skipped":
            say(f"{names.get(view.task_id, view.object_id)} was skipped: {view.reason}.")

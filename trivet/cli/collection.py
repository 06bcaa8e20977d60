"""`trivet collections`: named sets of objects, each with one pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trivet.cli.common import CollectionName, Common, JsonFlag, validated
from trivet.cli.console import print_json, print_table, say
from trivet.errors import InvalidRequest

if TYPE_CHECKING:
    from trivet.client import Trivet
    from trivet.values import Collection, Pipeline

group = typer.Typer(help="Create and show collections.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="collections")


@group.command()
def create(
    ctx: typer.Context,
    name: CollectionName,
    model: Annotated[str, typer.Option(help="Model id.")] = "BAAI/bge-m3",
    revision: Annotated[str, typer.Option(help="Hub revision; else the one that Trivet pins.")] = "",
    dtype: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.")] = "auto",
    split_by: Annotated[str, typer.Option(help="tokens, or none for one chunk per object where it fits.")] = "tokens",
    target_tokens: Annotated[int, typer.Option(help="Tokens that a chunk aims at.")] = 400,
    max_tokens: Annotated[int, typer.Option(help="Tokens that a chunk may have.")] = 512,
    heading_context: Annotated[bool, typer.Option(help="Embed the heading path with the text.")] = True,
    dense: Annotated[bool, typer.Option(help="Store dense vectors.")] = True,
    sparse: Annotated[bool, typer.Option(help="Store sparse weights.")] = True,
    dense_dimensions: Annotated[
        int | None, typer.Option(help="Keep the first so many of the dense vector's numbers, normalised again.")
    ] = None,
    colbert: Annotated[str, typer.Option(help="off, float16 or int8.")] = "float16",
    colbert_pooling: Annotated[
        int, typer.Option(help="Tokens per stored ColBERT vector, about; similar ones are pooled. 1 to 16.")
    ] = 1,
    colbert_dimensions: Annotated[
        int | None, typer.Option(help="Keep the first so many of each ColBERT vector's numbers, normalised again.")
    ] = None,
    colbert_layout: Annotated[
        str, typer.Option(help="binary, or list for float16 as a list of numbers, which writes slower.")
    ] = "binary",
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="Keep it as it is if it exists.")] = False,
    json_: JsonFlag = False,
) -> None:
    """Create a collection."""
    from trivet.values import Chunking, Outputs, Pipeline

    common: Common = ctx.obj
    pipeline = validated(
        Pipeline,
        model_id=model,
        revision=revision,
        dtype=dtype,
        chunking=validated(
            Chunking,
            split_by=split_by,
            target_tokens=target_tokens,
            max_tokens=max_tokens,
            heading_context=heading_context,
        ),
        outputs=validated(
            Outputs,
            dense=dense,
            sparse=sparse,
            dense_dimensions=dense_dimensions,
            colbert=colbert,
            colbert_pooling=colbert_pooling,
            colbert_dimensions=colbert_dimensions,
            colbert_layout=colbert_layout,
        ),
    )
    made = _made(common.client(), name, pipeline, exist_ok=exist_ok)
    if json_:
        print_json(made.model_dump(mode="json"))
    else:
        say(f"Collection {made.name} of namespace {made.namespace} is there.")


def _made(client: Trivet, name: str, pipeline: Pipeline, *, exist_ok: bool) -> Collection:
    try:
        return client.create_collection(name, pipeline=pipeline, exist_ok=exist_ok)
    except InvalidRequest as error:
        # The library names its argument; here it is an option.
        raise InvalidRequest(error.message, hint=error.hint.replace("exist_ok=True", "--exist-ok")) from None


@group.command("list")
def list_(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """List the collections of the namespace."""
    common: Common = ctx.obj
    found = common.client().collections()
    if json_:
        print_json([collection.model_dump(mode="json") for collection in found])
    elif found:
        print_table(("collection", "model", "chunks", "legs"), [_row(collection) for collection in found])
    else:
        say("There is no collection yet. Create one: trivet collections create NAME")


@group.command()
def show(ctx: typer.Context, name: CollectionName, json_: JsonFlag = False) -> None:
    """Show one collection."""
    common: Common = ctx.obj
    found = common.client().collection(name)
    if json_:
        print_json(found.model_dump(mode="json"))
    else:
        print_table(("collection", "model", "chunks", "legs"), [_row(found)])


def _row(collection: Collection) -> tuple[str, str, str, str]:
    pipeline = collection.pipeline
    chunking = pipeline.chunking
    chunks = f"target {chunking.target_tokens}, at most {chunking.max_tokens} tokens"
    if chunking.split_by == "none":
        chunks = "one per object where it fits"
    return collection.name, pipeline.model_id, chunks, _legs(pipeline)


def _legs(pipeline: Pipeline) -> str:
    outputs = pipeline.outputs
    legs = ["dense" + _dimensions(outputs.dense_dimensions)] if outputs.dense else []
    if outputs.sparse:
        legs.append("sparse")
    if outputs.colbert != "off":
        listed = " list" if outputs.colbert_layout == "list" else ""
        pooled = f" pooled by {outputs.colbert_pooling}" if outputs.colbert_pooling > 1 else ""
        legs.append(f"colbert {outputs.colbert}{listed}{_dimensions(outputs.colbert_dimensions)}{pooled}")
    return ", ".join(legs)


def _dimensions(count: int | None) -> str:
    return f" of {count} dimensions" if count else ""

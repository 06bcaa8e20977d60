"""`trivet files` and `trivet search`: what is committed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivet.cli.common import CollectionName, Common, JsonFlag, collection_store, validated
from trivet.cli.console import clean, number, out, print_json, print_table, say
from trivet.cli.explained import print_explained
from trivet.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trivet.retrieval import Hit, LegScore, SearchRequest, SearchResult
    from trivet.retrieval.explaining import Explanation

_SNIPPET = 300


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(files)
    app.command()(search)


def files(ctx: typer.Context, collection: CollectionName, json_: JsonFlag = False) -> None:
    """List the Parquet files that are visible now: what a reader should open, and nothing else."""
    from trivet.parts.reader import collection_files

    common: Common = ctx.obj
    client = common.client()
    store, layout = collection_store(client, collection)
    parts = list(collection_files(store, layout))
    if json_:
        bucket = client.settings.s3_bucket
        print_json([{"uri": f"s3://{bucket}/{part.key}", **part.model_dump(mode="json")} for part in parts])
    elif parts:
        rows = [(part.key, part.rows, f"{part.tokens:,}", number(part.bytes, "B")) for part in parts]
        print_table(("key", ">chunks", ">tokens", ">size"), rows)
        total = sum(part.bytes for part in parts)
        say(f"{len(parts)} files, {number(total, 'B')}, in bucket {client.settings.s3_bucket}.")
    else:
        say(f"Collection {collection!r} has no committed file yet.")


def search(
    ctx: typer.Context,
    collection: CollectionName,
    query: Annotated[str, typer.Argument(help="What to look for, in any language.")],
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Hits.")] = 5,
    fusion: Annotated[str, typer.Option(help="weighted, rrf, dbsf or max.")] = "weighted",
    weights: Annotated[str, typer.Option(help="Weight per leg, such as dense=1,sparse=0.3,colbert=1.")] = "",
    rerank: Annotated[bool, typer.Option("--rerank/--no-rerank", help="Score the best by MaxSim too.")] = True,
    language: Annotated[list[str] | None, typer.Option(help="Only chunks in this language, such as de.")] = None,
    object_id: Annotated[list[str] | None, typer.Option(help="Only chunks of this object.")] = None,
    retriever: Annotated[
        str, typer.Option(help="auto, index, or exact (reads the Parquet files); else TRIVET_RETRIEVER.")
    ] = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each leg's score and rank, which words matched, and what was read.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Search a collection with all three legs: in the index where there is one, else exact over the Parquet."""
    from trivet.retrieval import Filters, Fusion, SearchRequest, choose_retriever, open_retriever
    from trivet.retrieval.explaining import explain as explained
    from trivet.retrieval.query import QueryEncoder

    common: Common = ctx.obj
    request = validated(
        SearchRequest,
        top_k=top_k,
        rerank=rerank,
        fusion=validated(Fusion, method=fusion, **({"weights": parse_weights(weights)} if weights else {})),
        filters=Filters(languages=tuple(language or ()), object_ids=tuple(object_id) if object_id else None),
    )
    client = common.client()
    pipeline = client.collection(collection).pipeline
    encoder = QueryEncoder.load(
        client.settings, pipeline.model_id, revision=pipeline.revision, backend=client.settings.encoder_backend
    )
    encoded = encoder.encode(query)
    chosen = choose_retriever(client.settings, retriever)
    searcher = open_retriever(client.settings, chosen)
    result = searcher.search(client.namespace, collection, encoded.legs, request)
    whys = explained(searcher, client.namespace, encoder.tokenizer, encoded, result.hits) if explain else None
    notes = (*encoded.notes, *result.stats.notes)
    if json_:
        print_json(
            {
                "query": query,
                "model": encoder.identity.name,
                "retriever": chosen,
                "request": request.model_dump(mode="json"),
                "hits": _hits_json(result, whys),
                "stats": asdict(result.stats) | {"seconds": dict(result.stats.seconds)},
                "notes": notes,
            }
        )
        return
    print_hits(result, whys)
    for note in notes:
        say(note)
    if explain:
        _print_stats(result, request, encoder.identity.name, chosen)


def parse_weights(text: str) -> dict[str, float]:
    """`dense=1,sparse=0.3` as a dict. Raises `InvalidRequest`."""
    result: dict[str, float] = {}
    for pair in text.split(","):
        name, equals, value = pair.strip().partition("=")
        try:
            result[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or name not in ("dense", "sparse", "colbert"):
            raise InvalidRequest(
                f"Weight {pair.strip()[:40]!r} is not leg=number.", hint="Write dense=1,sparse=0.3,colbert=1."
            )
    return result


def print_hits(result: SearchResult, whys: Sequence[Explanation] | None = None) -> None:
    """Hits with where they stand; explained, every leg's score and rank among its candidates, and what matched."""
    if not result.hits:
        say("Nothing was found.")
    for place, hit in enumerate(result.hits):
        legs = "" if whys is None else "  ".join(f"{name} {_leg(score)}" for name, score in leg_scores(hit).items())
        head = f"{place + 1}. {hit.score:.3f}  {location(hit)}  {legs}"
        out().print(clean(head.rstrip()), style="bold", soft_wrap=True)
        if whys is None:
            out().print(clean(f"   {snippet(hit.text)}"), soft_wrap=True)
        else:
            print_explained(hit, whys[place])


def _hits_json(result: SearchResult, whys: Sequence[Explanation] | None) -> list[dict[str, Any]]:
    if whys is None:
        return [asdict(hit) for hit in result.hits]
    return [asdict(hit) | {"explanation": asdict(why)} for hit, why in zip(result.hits, whys, strict=True)]


def leg_scores(hit: Hit) -> dict[str, LegScore | None]:
    """The three legs' scores by name."""
    return {"dense": hit.dense, "sparse": hit.sparse, "colbert": hit.colbert}


def location(hit: Hit) -> str:
    """Object, page, heading path and language of a hit."""
    page = ""
    if hit.page_start is not None:
        page = (
            f"page {hit.page_start}"
            if hit.page_end in (None, hit.page_start)
            else f"pages {hit.page_start}–{hit.page_end}"
        )
    name = hit.source_url.rstrip("/").rsplit("/", 1)[-1] or hit.object_id
    return ", ".join(part for part in (name, page, " › ".join(hit.heading_path), hit.language or "") if part)


def snippet(text: str, width: int = _SNIPPET) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _leg(score: LegScore | None) -> str:
    if score is None:
        return "–"
    return f"{score.score:.3f}" + (f" (#{score.rank})" if score.rank else "")


def _print_stats(result: SearchResult, request: SearchRequest, model: str, retriever: str) -> None:
    stats = result.stats
    steps: dict[str, Any] = {step: f"{seconds * 1000:.0f} ms" for step, seconds in stats.seconds.items()}
    rows = [
        ("model", model),
        ("retriever", retriever),
        ("fusion", f"{request.fusion.method} {', '.join(f'{leg}={w:g}' for leg, w in request.fusion.weights.items())}"),
        ("objects", f"{stats.objects_searched} of {stats.objects} searched"),
        ("chunks", f"{stats.rows:,} scored, {stats.rows_reranked} by MaxSim, {stats.rows_filtered} filtered out"),
        ("read", f"{stats.parts} files, {stats.row_groups} row groups, {number(stats.bytes_read, 'B')}"),
        ("time", ", ".join(f"{step} {seconds}" for step, seconds in steps.items())),
    ]
    print_table(("", ""), rows)

"""`trivet files` and `trivet search`: what is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivet.cli import search_options as options
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
    top_k: options.TopK = 5,
    offset: options.Offset = 0,
    group: options.Group = None,
    neighbours: options.Neighbours = 0,
    section: options.SectionTokens = None,
    vectors: options.Vectors = False,
    also: options.Also = None,
    fusion: options.FusionName = "weighted",
    weights: options.Weights = "",
    normalization: options.Normalization = "zscore",
    without: options.Without = None,
    rerank: options.Rerank = True,
    maxsim: options.Maxsim = False,
    candidates: options.Candidates = 100,
    rerank_candidates: options.RerankCandidates = 64,
    language: options.Language = None,
    object_id: options.ObjectId = None,
    where: options.Where = None,
    page: options.PageRange = "",
    since: options.Since = "",
    before: options.Before = "",
    heading: options.Heading = "",
    min_score: options.MinScore = None,
    min_leg: options.MinLeg = "",
    retriever: options.RetrieverName = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each leg's score and rank, which words matched, and what was read.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Search a collection with all three legs: in the index where there is one, else exact."""
    from trivet.retrieval import Fusion, Leg, SearchRequest

    if vectors and not json_:
        raise InvalidRequest("Vectors are shown with --json alone.")
    request = validated(
        SearchRequest,
        top_k=top_k,
        offset=offset,
        candidates=candidates,
        rerank=rerank,
        rerank_candidates=rerank_candidates,
        fusion=options.fusion_of(fusion, weights, normalization, without or ()),
        rerank_fusion=Fusion(weights={Leg.COLBERT: 1.0}, normalization="none") if maxsim else None,
        filters=options.filters_of(language, object_id, where, page, since, before, heading),
        min_score=min_score,
        min_leg_scores=options.parse_weights(min_leg) if min_leg else {},
        group_size=group,
        neighbours=neighbours,
        section_tokens=section,
        return_vectors=vectors,
    )
    _search(ctx.obj, collection, [query, *(also or ())], request, explain, json_, retriever)


def _search(
    common: Common,
    collection: str,
    queries: list[str],
    request: SearchRequest,
    explain: bool,
    json_: bool,
    retriever: str,
) -> None:
    from trivet.retrieval import open_retriever
    from trivet.retrieval.as_json import found_json
    from trivet.retrieval.searching import Searcher

    client = common.client()
    searcher = Searcher(client.settings, open_retriever(client.settings, retriever))
    found = searcher.search(client.collection(collection), queries, request)
    whys = searcher.explain(found) if explain else None
    if json_:
        print_json(
            {
                "query": queries[0],
                "queries": queries,
                "request": request.model_dump(mode="json"),
                **found_json(found, whys),
            }
        )
        return
    print_hits(found.result, whys, request.offset)
    for note in found.notes:
        say(note)
    if explain:
        _print_stats(found.result, request, found.model.name, len(queries))


def print_hits(result: SearchResult, whys: Sequence[Explanation] | None = None, offset: int = 0) -> None:
    """Hits with where they stand; explained, every leg's score and rank among its candidates, and what matched."""
    if not result.hits:
        say("Nothing was found." if not result.ranked else f"Only {result.ranked} were found.")
    for place, hit in enumerate(result.hits):
        scores = {} if whys is None else leg_scores(hit)
        legs = "  ".join(f"{name} {_leg(score, hit.shares.get(name))}" for name, score in scores.items())
        head = f"{offset + place + 1}. {hit.score:.3f}  {location(hit)}  {legs}"
        out().print(clean(head.rstrip()), style="bold", soft_wrap=True)
        if whys is None:
            out().print(clean(f"   {snippet(hit.text)}"), soft_wrap=True)
        else:
            print_explained(hit, whys[place])
        _print_around(hit)


def _print_around(hit: Hit) -> None:
    """What was asked for beside the hit, whole."""
    for name, text in (
        ("before", "\n\n".join(passage.text for passage in hit.before)),
        ("after", "\n\n".join(passage.text for passage in hit.after)),
        ("section" + (" (cut)" if hit.section and hit.section.cut else ""), hit.section.text if hit.section else ""),
    ):
        if text:
            out().print(clean(f"   {name}: {' '.join(text.split())}"), style="dim", soft_wrap=True)


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


def _leg(score: LegScore | None, share: float | None) -> str:
    """`0.634 (#2 → +0.105)`: the leg's own score, the rank among its candidates, what it brings to the hit's score."""
    rank = f"#{score.rank}" if score and score.rank else ""
    told = " → ".join(part for part in (rank, "" if share is None else f"{share:+.3f}") if part)
    return ("–" if score is None else f"{score.score:.3f}") + (f" ({told})" if told else "")


def _fusion(request: SearchRequest, queries: int) -> str:
    """How hits got their score."""
    from trivet.retrieval.many import K

    fusion = request.final_fusion
    how = {"weighted": f" of {fusion.normalization} scores", "rrf": f" with k={fusion.k:g}"}.get(fusion.method, "")
    told = f"{fusion.method}{how}, {', '.join(f'{leg}={weight:g}' for leg, weight in fusion.weights.items())}"
    return told if queries == 1 else f"rrf with k={K:g} over {queries} queries, each by {told}"


def _print_stats(result: SearchResult, request: SearchRequest, model: str, queries: int) -> None:
    stats = result.stats
    steps: dict[str, Any] = {step: f"{seconds * 1000:.0f} ms" for step, seconds in stats.seconds.items()}
    read = f"{stats.parts} files, {stats.row_groups} row groups, {number(stats.bytes_read, 'B')}"
    if "scan" not in stats.seconds:
        read = "the index"
    rows = [
        ("model", model),
        ("fusion", _fusion(request, queries)),
        ("objects", f"{stats.objects_searched} of {stats.objects} searched"),
        ("chunks", f"{stats.rows:,} scored, {stats.rows_reranked} by MaxSim, {stats.rows_filtered} filtered out"),
        ("read", read),
        ("time", ", ".join(f"{step} {seconds}" for step, seconds in steps.items())),
    ]
    print_table(("", ""), rows)

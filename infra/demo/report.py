"""What the demo prints once everything is committed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from infra.demo.documents import Ready
from trivet.cli.console import number, out, print_table
from trivet.cli.search import leg_scores, snippet
from trivet.client import Trivet
from trivet.parts.duck import connect
from trivet.parts.reader import current_manifests
from trivet.retrieval import Hit, LegScore, SearchRequest, open_retriever
from trivet.retrieval.query import QueryEncoder
from trivet.stores import open_store
from trivet.stores.layout import Layout
from trivet.values import TaskView

#: Cells of a terminal that a chunk may take, so that a hit has two lines.
_WIDTH = 72

#: Question, and why it is asked.
QUERIES = (
    ("How can a student be identified from the scanned sheet?", "English, answered by the PDF"),
    ("Is education free of charge?", "cross-lingual: English, answered in Arabic, German and Japanese alone"),
    ("Which version does ^0.2.3 match?", "English, with a term that must match to the letter"),
)

#: Chunks per language, over the files that the manifests list.
SQL = """\
SELECT coalesce(language, 'unknown') AS language, count(DISTINCT object_id) AS objects, count(*) AS chunks,
       sum(token_count)::BIGINT AS tokens, round(avg(len(sparse_ids)), 1) AS terms_per_chunk
FROM chunks GROUP BY ALL ORDER BY tokens DESC"""


def headline(text: str) -> None:
    """A part of the report begins."""
    out().print(f"\n{text}", style="bold")


def objects(client: Trivet, layout: Layout, documents: Sequence[Ready], views: Sequence[TaskView]) -> None:
    """A row per object."""
    prefix = layout.objects()
    headline(f"Objects, committed under s3://{client.settings.s3_bucket}/{prefix}")
    print_table(
        ("object", "lang", ">pages", ">chunks", ">tokens", ">seconds", "S3 key"),
        [
            (
                document.source.name,
                document.source.language,
                view.pages or "–",
                view.chunks,
                f"{view.tokens:,}",
                f"{view.updated_at - view.created_at:.1f}",
                (view.manifest_key or "").removeprefix(prefix),
            )
            for document, view in zip(documents, views, strict=True)
        ],
    )


def events(client: Trivet, collection: str) -> None:
    """The completion events, as any consumer reads them from the Redis stream."""
    headline("Completion events on the Redis stream (CloudEvents 1.0)")
    last, rows = "0-0", []
    while page := client.events(after=last, count=500):
        last = page[-1][0]
        for stream_id, event in page:
            if event.type == "trivet.ingest.completed" and event.data.get("collection") == collection:
                chunks = event.data["receipt"]["chunks"]
                rows.append((stream_id, event.time, event.type, event.subject, event.data["generation"], chunks))
    print_table(("stream id", "time", "type", "subject", ">generation", ">chunks"), rows)


def duckdb(client: Trivet, layout: Layout) -> None:
    """A DuckDB query over the committed Parquet."""
    headline("DuckDB over the committed Parquet")
    out().print(SQL, style="dim")
    answer = connect(open_store(client.settings), layout).execute(SQL)
    columns = [str(column[0]) for column in answer.description]
    rows: list[tuple[Any, ...]] = answer.fetchall()
    print_table([columns[0], *(f">{column}" for column in columns[1:])], rows)


def passports(client: Trivet, layout: Layout) -> None:
    """Which model ran, as the manifests say."""
    made = {
        (passport.requested_model, passport.model, passport.dtype, passport.device, passport.backend)
        for manifest in current_manifests(open_store(client.settings), layout)
        for passport in manifest.passports
    }
    for requested, model, dtype, device, backend in sorted(made):
        note = (
            "" if requested == model else f" It stands in for {requested}, which was asked for: it is not that model."
        )
        out().print(f"Model that ran: {model} ({dtype} on {device}, {backend}).{note}", soft_wrap=True)


def queries(client: Trivet, collection: str) -> None:
    """Hybrid queries with the score of each leg."""
    headline("Hybrid queries: score and rank of each leg")
    settings = client.settings
    pipeline = client.collection(collection).pipeline
    encoder = QueryEncoder.load(
        settings, pipeline.model_id, revision=pipeline.revision, backend=settings.encoder_backend
    )
    retriever = open_retriever(settings)
    for question, why in QUERIES:
        legs = encoder.encode(question).legs
        result = retriever.search(client.namespace, collection, legs, SearchRequest(top_k=3))
        milliseconds = 1000 * sum(result.stats.seconds.values())
        out().print(f"\n“{question}”  ({why}; {milliseconds:.0f} ms)", style="cyan", soft_wrap=True)
        print_table(
            (">fused", ">dense", ">sparse", ">colbert", "chunk"),
            [_row(hit) for hit in result.hits],
        )


def _row(hit: Hit) -> tuple[str, ...]:
    legs = (_score(score) for score in leg_scores(hit).values())
    return f"{hit.score:.2f}", *legs, f"{_place(hit)}\n{_cut(hit.text)}"


def _place(hit: Hit) -> str:
    page = f"page {hit.page_start}" if hit.page_start else ""
    # The last heading is the one that is nearest.
    return _cut(", ".join(filter(None, (hit.object_id, page, *hit.heading_path[-1:]))))


def _cut(text: str) -> str:
    # Cells, not characters: Chinese and Japanese ones take two.
    shown = Text(snippet(text))
    shown.truncate(_WIDTH, overflow="ellipsis")
    return shown.plain


def _score(score: LegScore | None) -> str:
    if score is None:
        return "–"
    return f"{score.score:.3f} #{score.rank}" if score.rank else f"{score.score:.3f}"


def totals(tokens: int, embedding: float, whole: float) -> None:
    """How long it took."""
    headline("Time")
    out().print(
        f"{number(tokens)} tokens from URL to commit in {embedding:.1f} s: {number(tokens / embedding)} tokens/s "
        f"through the whole pipeline. Everything, with start and end of all processes: {whole:.1f} s.",
        soft_wrap=True,
    )

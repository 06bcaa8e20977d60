"""What `trivet search` can be told, and the request that it becomes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivet.cli.common import validated
from trivet.errors import InvalidRequest

if TYPE_CHECKING:
    from trivet.retrieval import Condition, Filters, Fusion

_LEGS = ("dense", "sparse", "colbert")
_WHERE = re.compile(
    r"\s*(?P<key>[^\s<>=!]+)\s*(?P<op>>=|<=|!=|=|>|<|\bin\b|\bcontains\b|\bexists\b)\s*(?P<value>.*)", re.DOTALL
)
_OPS = {"=": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}

TopK = Annotated[int, typer.Option("--top-k", "-k", help="Hits; with --group, objects.")]
Offset = Annotated[int, typer.Option("--offset", help="Pass over so many first.")]
Group = Annotated[int | None, typer.Option("--group", help="Group by object: its best so many chunks.")]
Neighbours = Annotated[int, typer.Option("--neighbours", help="Chunks before and after each hit.")]
SectionTokens = Annotated[
    int | None, typer.Option("--section", metavar="TOKENS", help="The section around each hit, up to so long.")
]
RetrieverName = Annotated[
    str, typer.Option("--retriever", help="auto, index, or exact (reads the Parquet files); else TRIVET_RETRIEVER.")
]
Vectors = Annotated[bool, typer.Option("--vectors", help="With --json: the stored vectors of each hit.")]

Also = Annotated[
    list[str] | None,
    typer.Option("--also", metavar="QUERY", help="Another query; all are fused by rank."),
]
FusionName = Annotated[str, typer.Option("--fusion", help="weighted, rrf, dbsf or max.")]
Weights = Annotated[str, typer.Option("--weights", help="Weight per leg, such as dense=1,sparse=0.3,colbert=4.")]
Normalization = Annotated[
    str, typer.Option("--normalization", help="Of weighted: zscore, minmax, theoretical or none.")
]
Without = Annotated[
    list[str] | None, typer.Option("--without", metavar="LEG", help="Leave out dense, sparse or colbert.")
]
Rerank = Annotated[bool, typer.Option("--rerank/--no-rerank", help="Score the best by MaxSim too.")]
Maxsim = Annotated[bool, typer.Option("--maxsim", help="Let MaxSim alone order the best.")]
Candidates = Annotated[int, typer.Option("--candidates", help="That dense and sparse each bring in.")]
RerankCandidates = Annotated[int, typer.Option("--rerank-candidates", help="That MaxSim is computed for.")]

Language = Annotated[list[str] | None, typer.Option("--language", help="Only in this language, such as de.")]
ObjectId = Annotated[list[str] | None, typer.Option("--object-id", help="Only of this object.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        help='On metadata: year>=2001, kind=book, kind in ["book","paper"], tags contains law, author exists.',
    ),
]
PageRange = Annotated[str, typer.Option("--page", help="Only on this page or these, such as 3, 2-5 or 7-.")]
Since = Annotated[str, typer.Option("--since", help="Committed then or later: 2025-01-31T00:00:00Z.")]
Before = Annotated[str, typer.Option("--before", help="Committed before then.")]
Heading = Annotated[str, typer.Option("--heading", help="Only under this heading; its path with >: Guide > Install.")]
MinScore = Annotated[float | None, typer.Option("--min-score", help="Least score; --normalization none alone has one.")]
MinLeg = Annotated[str, typer.Option("--min-leg", help="Least score of a leg, such as dense=0.5,colbert=0.6.")]


def parse_weights(text: str) -> dict[str, float]:
    """`dense=1,sparse=0.3` as a dict. Raises `InvalidRequest`."""
    result: dict[str, float] = {}
    for pair in text.split(","):
        name, equals, value = pair.strip().partition("=")
        try:
            result[name] = float(value)
        except ValueError:
            equals = ""
        if not equals or name not in _LEGS:
            raise InvalidRequest(
                f"Weight {pair.strip()[:40]!r} is not leg=number.", hint="Write dense=1,sparse=0.3,colbert=1."
            )
    return result


def parse_condition(text: str) -> Condition:
    """`year>=2001` as a condition; a value that is JSON is that value, and any other is a text."""
    from trivet.retrieval import Condition

    found = _WHERE.fullmatch(text)
    if not found or (not found["value"].strip() and found["op"] != "exists"):
        raise InvalidRequest(
            f"The condition {text[:60]!r} cannot be read.",
            hint="Write key=value, key>=value, key in [a, b], key contains value, or key exists.",
        )
    value = _value(found["value"].strip()) if found["value"].strip() else None
    if found["op"] == "in" and not isinstance(value, list):
        value = [_value(part.strip()) for part in found["value"].strip(" []").split(",")]
    return validated(Condition, key=found["key"], op=_OPS.get(found["op"], found["op"]), value=value)


def fusion_of(method: str, weights: str, normalization: str, without: Sequence[str] = ()) -> Fusion:
    """The fusion that the options describe. Raises `InvalidRequest`."""
    from trivet.retrieval import DEFAULT_WEIGHTS, Fusion

    chosen = parse_weights(weights) if weights else {str(leg): weight for leg, weight in DEFAULT_WEIGHTS.items()}
    for name in without:
        if name not in _LEGS:
            raise InvalidRequest(f"No leg is called {name[:40]!r}.", hint=f"Choose one of {', '.join(_LEGS)}.")
        chosen[name] = 0.0
    return validated(Fusion, method=method, weights=chosen, normalization=normalization)


def filters_of(
    language: Sequence[str] | None,
    object_id: Sequence[str] | None,
    where: Sequence[str] | None,
    page: str,
    since: str,
    before: str,
    heading: str,
) -> Filters:
    """The filters that the options describe. Raises `InvalidRequest`."""
    from trivet.retrieval import Filters

    return validated(
        Filters,
        languages=tuple(language or ()),
        object_ids=tuple(object_id) if object_id else None,
        metadata=tuple(parse_condition(text) for text in where or ()),
        pages=_pages(page) if page else None,
        committed_from=since or None,
        committed_before=before or None,
        heading=tuple(title.strip() for title in heading.split(">")) if heading else (),
    )


def _pages(text: str) -> dict[str, Any]:
    found = re.fullmatch(r"\s*(\d*)\s*(-?)\s*(\d*)\s*", text)
    if not found or not (found[1] or found[3]) or (found[3] and not found[2]):
        raise InvalidRequest(f"The pages {text[:40]!r} cannot be read.", hint="Write 3, 2-5, 7- or -4.")
    first, last = (int(part) if part else None for part in (found[1], found[3]))
    return {"first": first, "last": last if found[2] else first}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text

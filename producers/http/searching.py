"""Retrievers as they are kept, and their execution."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from producers.http.context import Context
from producers.http.documents import DocumentAnswer, of_hit
from producers.http.extractors import running_model, slug
from producers.http.kept import Kept, Shelf
from producers.http.naming import collection_named
from trivet.errors import InvalidRequest, ModelInvalid, ModelUnavailable
from trivet.values import Collection

if TYPE_CHECKING:
    from trivet.retrieval import Hit, SearchRequest
    from trivet.retrieval.searching import Found
    from trivet.retrieval.stages import StagePlan

#: RRF's constant, for answers of several collections.
_K = 60.0
#: `SearchRequest.top_k` takes no more.
_MOST = 1000
#: Each may have a ColBERT vector per token: 0.8 MB where chunks have 400.
_MOST_WITH_VECTORS = 100


class KeptRetriever(Kept):
    """A retriever."""

    retriever_name: str
    description: str | None = None
    stages: tuple[dict[str, Any], ...]
    collection_identifiers: tuple[str, ...] = ()
    input_schema: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()


class ExecuteAnswer(BaseModel):
    """What was found. `results` is `documents` again: some clients read the one, some the other."""

    model_config = ConfigDict(json_schema_extra={"required": ["execution_id", "status", "documents"]})

    retriever_id: str
    execution_id: str
    status: str = "completed"
    documents: list[DocumentAnswer]
    results: list[DocumentAnswer]
    pagination: dict[str, Any]
    stage_statistics: dict[str, Any]
    budget: dict[str, Any] = Field(default_factory=dict)
    model: str | None = Field(None, description="The model that encoded the query.")
    warnings: list[str]


def shelf(context: Context, namespace: str) -> Shelf[KeptRetriever]:
    """The retrievers of a namespace."""
    return Shelf(context, namespace, "retriever", KeptRetriever)


def check_stages(stages: list[dict[str, Any]], input_schema: dict[str, Any]) -> None:
    """Raises `InvalidRequest` for stages that could never run, with any text as each input."""
    from trivet.retrieval.stages import read_stages

    read_stages(stages, _Any(dict.fromkeys(input_schema, "text")))


class _Any(dict[str, Any]):
    """Inputs that has a text for every name: what they will be is known when it is executed."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return "text"


def execute(
    context: Context,
    namespace: str,
    retriever: KeptRetriever,
    inputs: dict[str, Any],
    *,
    retriever_id: str = "",
    filters: dict[str, Any] | None = None,
    size: int | None = None,
    page: int = 1,
    return_vectors: bool = False,
) -> ExecuteAnswer:
    """Run a pipeline. Raises `InvalidRequest`, `UnknownCollection`, `ModelUnavailable`, `MissingDependency`."""
    from trivet.retrieval.stages import read_stages

    began = time.monotonic()
    inner = inputs.get("filters") if isinstance(inputs.get("filters"), dict) else None
    plan = read_stages(
        list(retriever.stages),
        inputs,
        filters=_both(filters, inner),
        limit=size,
        offset=(page - 1) * size if size else 0,
        return_vectors=return_vectors,
    )
    names = plan.collections or retriever.collection_identifiers
    collections = [collection_named(context, namespace, name) for name in dict.fromkeys(names)]
    collections = collections or context.ledger.collections(namespace)
    if not collections:
        raise InvalidRequest("There is no collection to search.", hint="Name one in collection_identifiers.")
    several = len(collections) > 1
    found, left_out = _found(context, collections, plan, several, whole=not names)
    documents, total, end = _several(found, plan.request) if several else _one(found[0], plan.request)
    return ExecuteAnswer(
        retriever_id=retriever_id,
        execution_id=f"exec_{secrets.token_hex(8)}",
        documents=documents,
        results=documents,
        pagination={
            "method": "offset",
            "page_number": page,
            "page_size": size or plan.request.top_k,
            "returned": len(documents),
            "total": total,
            "has_next": end < total,
            "has_previous": page > 1,
        },
        stage_statistics={
            "stages": _statistics(found),
            "total_time_ms": round(1000 * (time.monotonic() - began), 1),
        },
        model=", ".join(dict.fromkeys(one.model.name for one in found)),
        warnings=[*left_out, *dict.fromkeys(note for one in found for note in one.notes)],
    )


def _both(one: dict[str, Any] | None, other: dict[str, Any] | None) -> dict[str, Any] | None:
    return {"AND": [one, other]} if one and other else one or other


def _found(
    context: Context, collections: list[Collection], plan: StagePlan, several: bool, *, whole: bool
) -> tuple[list[Found], tuple[str, ...]]:
    """What each collection has. Of the whole namespace some may be left out; sentences say which."""
    request, found, refused = plan.request, [], []
    if several:
        # Each is asked for all that may be on the page, or before it.
        top_k = min(request.offset + request.top_k, _depth(request))
        request = request.model_copy(update={"offset": 0, "top_k": top_k})
    if request.return_vectors:
        try:
            check_vectors(request)
        except ValueError as error:
            raise InvalidRequest(f"return_vectors: {error}.") from None
    for collection in collections:
        try:
            found.append(_search(context, collection, plan, request))
        except (_NoSuchFeature, ModelUnavailable, ModelInvalid) as error:
            if not whole:
                raise
            refused.append(error)
    if not found:
        raise refused[0]
    return found, tuple(f"Left out: {error.message}" for error in refused)


def check_vectors(request: SearchRequest) -> None:
    """Raises `ValueError` for more hits than the vectors of which are read at once."""
    hits = request.top_k * (request.group_size or 1)
    if hits > _MOST_WITH_VECTORS:
        raise ValueError(f"the vectors of up to {hits} hits would be read, and {_MOST_WITH_VECTORS} at most are")


def _depth(request: SearchRequest) -> int:
    """Hits, or groups, of each of several collections that pages are made of."""
    return min(request.window, _MOST)


def _search(context: Context, collection: Collection, plan: StagePlan, request: SearchRequest) -> Found:
    _check_uris(context, collection, plan)
    with loadable(collection):
        return context.searcher.search(collection, plan.queries, request, plan.weights)


@contextmanager
def loadable(collection: Collection) -> Iterator[None]:
    """A model that cannot be loaded is told without what the library's sentence has: folders of this machine."""
    try:
        yield
    except (ModelUnavailable, ModelInvalid) as error:
        raise type(error)(
            f"The model {collection.pipeline.model_id[:80]!r} of collection {collection.name!r} cannot be loaded here.",
            hint="On the server, `trivet doctor` says why.",
        ) from error


class _NoSuchFeature(InvalidRequest):
    """The collection has no such feature; another one may have it."""


def _check_uris(context: Context, collection: Collection, plan: StagePlan) -> None:
    """A URI names the model that was asked for, or the one that runs. Raises `_NoSuchFeature` for any other."""
    asked = collection.pipeline.model_id
    # The last two are of older documentation, which names the extractor's one output so.
    known = {slug(asked), slug(running_model(context.settings, collection.pipeline)[0])}
    known |= {"text_embedding", "text_extractor_v1_embedding"}
    for uri in plan.feature_uris:
        output = uri.removeprefix("mixpeek://").partition("/")[2]
        base = output.removesuffix("_sparse").removesuffix("_colbert")
        if base and base not in known:
            raise _NoSuchFeature(
                f"Collection {collection.name!r} has no feature {uri[:120]!r}.",
                hint=f"It has mixpeek://text_extractor@v1/{slug(asked)}, and the same with _sparse and _colbert.",
            )


def _one(found: Found, asked: SearchRequest) -> tuple[list[DocumentAnswer], int, int]:
    """The page's documents; how many documents (groups, where they are grouped) there are, and at which it ends."""
    documents = [of_hit(found.collection, hit, found.model.name) for hit in found.hits]
    shown = len(found.result.groups) if asked.group_size else len(documents)
    return documents, found.result.ranked, asked.offset + shown


def _several(found: list[Found], asked: SearchRequest) -> tuple[list[DocumentAnswer], int, int]:
    """The same. Scores of several collections cannot be compared: they are fused by rank, and groups stay together."""
    ranked = [
        (1 / (_K + rank), [of_hit(one.collection, hit, one.model.name) for hit in hits])
        for one in found
        for rank, hits in enumerate(_units(one, asked), 1)
    ]
    ranked.sort(key=lambda pair: (-pair[0], pair[1][0].document_id))
    page = ranked[asked.offset : asked.offset + asked.top_k]
    documents = [document.model_copy(update={"score": score}) for score, unit in page for document in unit]
    total = sum(min(one.result.ranked, _depth(asked)) for one in found)
    return documents, total, asked.offset + len(page)


def _units(found: Found, asked: SearchRequest) -> list[tuple[Hit, ...]]:
    """What is ranked as one: a hit, or a group of them."""
    return [hits for _, hits in found.result.groups] if asked.group_size else [(hit,) for hit in found.hits]


def _statistics(found: list[Found]) -> dict[str, Any]:
    """By collection, in the shape that Mixpeek gives a stage."""
    return {one.collection.name: _of_stage(one) for one in found}


def _of_stage(found: Found) -> dict[str, Any]:
    stats, hits = found.result.stats, len(found.hits)
    return {
        "input_count": stats.rows,
        "output_count": hits,
        "duration_ms": round(1000 * sum(stats.seconds.values()), 1),
        "efficiency": round(hits / stats.rows, 6) if stats.rows else 0.0,
        "metadata": {
            "objects": stats.objects,
            "objects_searched": stats.objects_searched,
            "documents_filtered": stats.rows_filtered,
            "documents_reranked": stats.rows_reranked,
            "seconds": dict(stats.seconds),
        },
    }

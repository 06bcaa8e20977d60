"""Mixpeek's retriever stages: a pipeline as it is stored with a retriever, read into a `SearchRequest`.

    feature_search     searches named by feature URI, fused: candidates of dense and sparse, and ColBERT among these
    attribute_filter   conditions; they hold for the whole pipeline, wherever the stage stands
    rerank             MaxSim, fused with the two other legs by the default fusion
    maxsim_rerank      MaxSim alone

A feature URI is `mixpeek://text_extractor@v1/OUTPUT`: an OUTPUT that ends with `_sparse` or `_colbert` is that leg, any
other is the dense one, and none at all is all three legs with the default fusion. One leg alone keeps its own score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trivet.errors import InvalidRequest
from trivet.retrieval import Filters, Fusion, Leg, SearchRequest
from trivet.retrieval.stage_filters import read_filters
from trivet.retrieval.stage_values import (
    AttributeFilter,
    FeatureSearch,
    MaxsimRerank,
    Rerank,
    Search,
    Stage,
    read_stage,
)

_URI = re.compile(r"mixpeek://[\w.-]+@[\w.-]+(?:/(?P<output>[\w.-]+))?")
_INPUT = re.compile(r"\{\{\s*INPUTS?\.([\w.-]+)\s*\}\}", re.IGNORECASE)
_MAXSIM = Fusion(weights={Leg.COLBERT: 1.0}, normalization="none")


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a pipeline asks for: arguments of `trivet.retrieval.searching.Searcher.search`."""

    queries: tuple[str, ...]
    #: One per query; empty: all alike.
    weights: tuple[float, ...]
    request: SearchRequest
    #: As the pipeline names them, in order; for the caller to hold against the collection's model.
    feature_uris: tuple[str, ...]
    #: Collections that the search stage names; none: those of the retriever.
    collections: tuple[str, ...]


def read_stages(
    stages: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, Any],
    *,
    filters: Mapping[str, Any] | None = None,
    limit: int | None = None,
    offset: int = 0,
    return_vectors: bool = False,
) -> StagePlan:
    """A pipeline and the arguments of its execution, as one search.

    `stages` are in Mixpeek's shapes: `{stage_name, config: {stage_id, parameters}}` as retrievers store them, or
    `{type, …}` as `Mixpeek.search` sends them, whose feature_search has a `query` and a `limit` and searches all legs.
    `inputs` fill in `{{INPUT.name}}`; `filters` hold beside the stages' own; `limit` and `offset` cut the page, else
    the stages say how many documents there are.

    Exactly one feature_search is needed, and at most one of rerank and maxsim_rerank, after it. Reranked are the
    documents that the search would return (`final_top_k`), as many of them as the stage says. Searches for different
    texts are fused by rank, if all search the same legs. Raises `InvalidRequest` in one sentence: for what is not
    there, and for what would have to mean something else here.
    """
    read = [_read(number, stage, inputs) for number, stage in enumerate(stages, 1)]
    searches = [stage for stage in read if isinstance(stage, FeatureSearch)]
    reranks = [stage for stage in read if isinstance(stage, Rerank | MaxsimRerank)]
    if len(searches) != 1 or len(reranks) > 1:
        raise InvalidRequest(
            f"The pipeline has {len(searches)} feature_search and {len(reranks)} rerank stages.",
            hint="It needs one feature_search, and may have one of rerank and maxsim_rerank after it.",
        )
    (search,), rerank = searches, reranks[0] if reranks else None
    if rerank and read.index(rerank) < read.index(search):
        raise InvalidRequest("The pipeline reranks before it has searched.", hint="Put feature_search first.")
    trees = [_tree(stage) for stage in read if isinstance(stage, AttributeFilter)]
    if filters:
        trees.append(_filled(filters, inputs))
    queries, weights = _queries(search)
    _same_query(rerank, queries)
    page = {"limit": limit, "offset": offset, "return_vectors": return_vectors}
    request = _request(search, rerank, read_filters(trees), page)
    named = [one.feature_uri for one in search.searches] + ([rerank.feature_uri] if rerank else [])
    collections = dict.fromkeys(
        [*search.collection_identifiers, *(name for one in search.searches for name in one.collection_identifiers)]
    )
    return StagePlan(queries, weights, request, tuple(dict.fromkeys(filter(None, named))), tuple(collections))


# ---------------------------------------------------------------- shapes and templates


def _read(number: int, stage: Mapping[str, Any], inputs: Mapping[str, Any]) -> Stage:
    if (
        isinstance(stage, Mapping)
        and stage.get("type") == "feature_search"
        and "config" not in stage
        and "searches" not in stage
    ):
        stage = {
            "type": "feature_search",
            "searches": [{"feature_uri": "mixpeek://text_extractor@v1", "query": stage.get("query")}],
            "final_top_k": stage.get("limit"),
            "collection_identifiers": stage.get("collection_ids"),
        }
    return read_stage(number, _filled(stage, inputs))


def _filled(value: Any, inputs: Mapping[str, Any]) -> Any:
    """A value with every `{{INPUT.name}}` in its texts filled in; one that is nothing else keeps the input's type."""
    if isinstance(value, Mapping):
        return {name: _filled(inner, inputs) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, inputs) for inner in value]
    if not isinstance(value, str):
        return value
    whole = _INPUT.fullmatch(value.strip())
    filled = _input(whole[1], inputs) if whole else _INPUT.sub(lambda found: str(_input(found[1], inputs)), value)
    if isinstance(filled, str) and not whole and "{{" in filled:
        raise InvalidRequest(f"The template {value[:80]!r} cannot be filled in.", hint="Use {{INPUT.name}}.")
    return filled


def _input(name: str, inputs: Mapping[str, Any]) -> Any:
    if name not in inputs:
        raise InvalidRequest(f"The pipeline needs the input {name!r}.", hint=f'Give inputs: {{"{name}": …}}.')
    return inputs[name]


# ---------------------------------------------------------------- what is searched


def _legs(search: Search) -> frozenset[Leg]:
    found = _URI.fullmatch(search.feature_uri)
    if not found:
        raise InvalidRequest(
            f"{search.feature_uri[:80]!r} is no feature URI.", hint="Write mixpeek://text_extractor@v1/baai_bge_m3_v1."
        )
    return frozenset(Leg) if found["output"] is None else frozenset({_leg(found["output"])})


def _leg(output: str) -> Leg:
    return next((leg for leg in (Leg.SPARSE, Leg.COLBERT) if output.endswith(f"_{leg}")), Leg.DENSE)


def _by_text(search: FeatureSearch) -> dict[str, list[Search]]:
    texts: dict[str, list[Search]] = {}
    for one in search.searches:
        texts.setdefault(one.query.value.strip(), []).append(one)
    return texts


def _queries(search: FeatureSearch) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Texts, and a weight for each where there are several."""
    texts = _by_text(search)
    asked = {frozenset((one.feature_uri, one.top_k) for one in found) for found in texts.values()}
    if len(texts) == 1:
        return tuple(texts), ()
    if len(asked) > 1 or any(len(found) > 1 for found in texts.values()) or search.fusion != "rrf":
        raise InvalidRequest(
            "The searches of feature_search look for different texts in different features.",
            hint="Search one feature for every text, with fusion rrf, or every feature for one text.",
        )
    return tuple(texts), tuple(found[0].weight for found in texts.values())


def _same_query(rerank: Rerank | MaxsimRerank | None, queries: tuple[str, ...]) -> None:
    if rerank and rerank.query and rerank.query.value.strip() not in queries:
        raise InvalidRequest(
            "The rerank stage has another query than feature_search.",
            hint="Leave its query out: it takes the search's.",
        )


def _fusion(search: FeatureSearch) -> Fusion:
    (first, *more) = next(iter(_by_text(search).values()))
    weights: dict[Leg, float] = {}
    for one in (first, *more):
        legs = _legs(one)
        if (len(legs) > 1 and more) or legs & weights.keys():
            raise InvalidRequest("Two searches of feature_search are for the same feature.", hint="Name each leg once.")
        if len(legs) > 1:
            return Fusion()
        weights[next(iter(legs))] = one.weight
    if len(weights) == 1:
        return Fusion(weights=dict.fromkeys(weights, 1.0), normalization="none")
    return Fusion(method=search.fusion, weights=weights)


def _request(
    search: FeatureSearch, rerank: Rerank | MaxsimRerank | None, filters: Filters, page: Mapping[str, Any]
) -> SearchRequest:
    fusion, group = _fusion(search), search.group_by
    if not (fusion.weight(Leg.DENSE) or fusion.weight(Leg.SPARSE)):
        raise InvalidRequest(
            "feature_search has no search that brings in candidates.", hint="Search dense or sparse beside colbert."
        )
    incoming = group.limit if group else search.final_top_k
    given: dict[str, Any] = {
        "candidates": max(one.top_k for one in search.searches),
        "fusion": fusion,
        "filters": filters,
        "min_leg_scores": _thresholds(search),
        "rerank": bool(fusion.weight(Leg.COLBERT)),
        "rerank_candidates": min(max(one.top_k for one in search.searches), 1000),
        "top_k": incoming if page["limit"] is None else page["limit"],
        "offset": page["offset"],
        "return_vectors": page["return_vectors"],
    }
    if len(search.searches) == 1:
        # It finds no more than that, however large a page is asked for.
        given["top_k"] = min(given["top_k"], search.searches[0].top_k)
    if group:
        given["group_size"] = 1 if group.output_mode == "first" else group.max_per_group
    if rerank:
        # Groups are made of what was reranked: as many documents as there are groups would be too few.
        incoming = given["rerank_candidates"] if group else incoming
        given |= _reranked(rerank, incoming, given["min_leg_scores"], page["limit"])
    try:
        return SearchRequest(**given)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"The pipeline cannot be run: {message}.") from None


def _thresholds(search: FeatureSearch) -> dict[Leg, float]:
    found = [one for one in search.searches if one.min_score is not None]
    if not found:
        return {}
    if len({one.feature_uri for one in search.searches}) > 1 or len(_legs(found[0])) > 1:
        raise InvalidRequest(
            "min_score stands in a feature_search over several features.",
            hint="Search one feature with it: a threshold on one of several would let through what another has found.",
        )
    if len({one.min_score for one in search.searches}) > 1:
        raise InvalidRequest("The searches of one feature have different min_score.")
    return {next(iter(_legs(found[0]))): found[0].min_score or 0.0}


def _reranked(
    rerank: Rerank | MaxsimRerank, incoming: int, least: Mapping[Leg, float], limit: int | None
) -> dict[str, Any]:
    """What a rerank stage changes of a request for the first `incoming` documents of a search."""
    if isinstance(rerank, Rerank):
        if rerank.inference_name or (rerank.feature_uri and not rerank.feature_uri.endswith("_colbert")):
            raise InvalidRequest(
                f"There is no reranker {rerank.inference_name or rerank.feature_uri!r}; rerank is MaxSim here.",
                hint="Leave inference_name and feature_uri out, or use the stage maxsim_rerank.",
            )
        most, fusion, top_k = rerank.max_candidates, Fusion(), rerank.top_k
    else:
        if not rerank.feature_uri.endswith("_colbert"):
            raise InvalidRequest(
                f"maxsim_rerank needs a ColBERT feature, and {rerank.feature_uri[:80]!r} is none.",
                hint="Write mixpeek://text_extractor@v1/baai_bge_m3_v1_colbert.",
            )
        most, fusion, top_k = rerank.top_n, _MAXSIM, None
    changed: dict[str, Any] = {"rerank": True, "rerank_fusion": fusion}
    changed["rerank_candidates"] = min(incoming, most or incoming)
    if top_k is not None and limit is None:
        changed["top_k"] = top_k
    if isinstance(rerank, MaxsimRerank) and rerank.missing == "drop":
        # Any score is one: only what has none falls below.
        changed["min_leg_scores"] = {**least, Leg.COLBERT: -2.0}
    return changed


def _tree(stage: AttributeFilter) -> Mapping[str, Any]:
    if stage.conditions is not None:
        return stage.conditions
    if not stage.field:
        raise InvalidRequest("attribute_filter has no field and no conditions.")
    return {"field": stage.field, "operator": stage.operator, "value": stage.value}

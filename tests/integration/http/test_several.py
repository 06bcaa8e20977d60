"""Searches through the served API: over several collections, and as the Python clients send them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace

import numpy as np
import pytest

from tests.integration.http.test_flows import BREAD, LIGHTHOUSE, ended
from tests.support.api import Api
from trivet import AsyncTrivet, Trivet
from trivet.errors import InvalidRequest, UnknownCollection
from trivet.remote.client import HttpTrivet
from trivet.remote.found import RemoteFound
from trivet.retrieval import Filters, Fusion, Leg, SearchRequest
from trivet.settings import Settings


@pytest.fixture(scope="session")
def filled(api: Api, workers: None) -> tuple[str, ...]:
    """Two collections of 7 and 4 objects with one or two chunks each, and one whose model is not here."""
    names = ("paged-a", "paged-b")
    for name, count in zip(names, (7, 4), strict=True):
        api.made("/v1/collections", {"collection_name": name})
        sources = [{"text": f"{LIGHTHOUSE} Number {n}.", "object_id": f"{name}-{n}"} for n in range(count)]
        ended(api, api.made(f"/v1/collections/{name}/ingest", {"sources": sources})["task_id"])
    return names


class TestASearchOverSeveralCollections:
    def pages(self, api: Api, names: tuple[str, ...], size: int, **more: object) -> list[dict[str, object]]:
        found, page = [], 1
        while True:
            body = {
                "stages": [{"type": "feature_search", "query": "lighthouse lantern", "limit": 100}],
                "collection_identifiers": list(names),
                "pagination": {"page_number": page, "page_size": size},
                **more,
            }
            answer = api.made("/v1/retrievers/execute", body)
            found.append(answer)
            assert page < 20, "it has no end"
            if not answer["pagination"]["has_next"]:
                return found
            page += 1

    @pytest.mark.parametrize("size", [1, 4, 5, 11, 50])
    def test_has_every_document_once_in_an_order_that_its_scores_have(
        self, running: Api, filled: tuple[str, ...], size: int
    ) -> None:
        for names in (filled, filled[:1]):
            pages = self.pages(running, names, size)
            documents = [one for page in pages for one in page["documents"]]  # type: ignore[attr-defined]  # an answer's JSON
            total = 11 if names == filled else 7
            assert len({one["document_id"] for one in documents}) == len(documents) == total
            assert len(pages) == -(-total // size)
            assert {page["pagination"]["total"] for page in pages} == {total}  # type: ignore[index]  # an answer's JSON
            scores = [one["score"] for one in documents]
            assert scores == sorted(scores, reverse=True)

    def test_that_groups_keeps_groups_whole_and_counts_them(self, running: Api, filled: tuple[str, ...]) -> None:
        search = {
            "feature_uri": "mixpeek://text_extractor@v1",
            "query": {"input_mode": "text", "value": "lighthouse"},
        }
        group = {"field": "object_id", "max_per_group": 3, "limit": 50}
        stage = {"type": "feature_search", "searches": [search], "group_by": group}
        for names, total in ((filled, 11), (filled[1:], 4)):
            pages = self.pages(running, names, 3, stages=[stage])
            shown = [[one["object_id"] for one in page["documents"]] for page in pages]  # type: ignore[attr-defined]  # an answer's JSON
            assert [len(set(each)) for each in shown] == [3] * (total // 3) + ([total % 3] if total % 3 else [])
            assert len({one for each in shown for one in each}) == total

    def test_leaves_out_one_whose_model_is_not_here_where_none_is_named(
        self, running: Api, filled: tuple[str, ...]
    ) -> None:
        made = running.made("/v1/namespaces", {"namespace_name": "modelless"})
        place = {"X-Namespace": str(made["namespace_id"])}
        running.made("/v1/collections", {"collection_name": "here"}, headers=place)
        body = {"source": {"text": BREAD}}
        ended(running, running.made("/v1/collections/here/ingest", body, headers=place)["task_id"], place)
        nowhere = {"collection_name": "nowhere", "feature_extractor": {"params": {"model_id": "no/such"}}}
        running.made("/v1/collections", nowhere, headers=place)
        search = {"stages": [{"type": "feature_search", "query": "bread", "limit": 2}]}
        answer = running.made("/v1/retrievers/execute", search, headers=place)
        assert [one["text"] for one in answer["documents"]] == [BREAD]
        assert [note for note in answer["warnings"] if "'no/such' of collection 'nowhere'" in note]
        refused = running.post(
            "/v1/retrievers/execute", {**search, "collection_identifiers": ["nowhere"]}, headers=place
        )
        assert refused.status_code == 422
        assert "models" not in refused.text.replace("trivet doctor", "")
        assert running.get("/v1/collections", headers=place).status_code == 200


REQUESTS = [
    SearchRequest(),
    SearchRequest(top_k=3, offset=2, neighbours=2, section_tokens=100),
    SearchRequest(group_size=2, fusion=Fusion(method="rrf", weights={Leg.DENSE: 1, Leg.SPARSE: 2})),
    SearchRequest(filters=Filters(object_ids=("paged-a-1", "paged-a-2")), min_leg_scores={Leg.DENSE: -1.0}),
    SearchRequest(return_vectors=True, top_k=2),
]


def over_http(api: Api) -> HttpTrivet:
    client = Trivet(api.url)
    assert isinstance(client, HttpTrivet)
    return client


@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
@pytest.mark.parametrize("queries", ["lighthouse", ["lantern fog", "Number 2"]], ids=["one", "several"])
def test_a_client_over_http_finds_what_one_over_redis_does(
    running: Api, live: Settings, filled: tuple[str, ...], request_: SearchRequest, queries: str | list[str]
) -> None:
    weights = () if isinstance(queries, str) else (1.0, 0.5)

    async def asynchronous() -> RemoteFound:
        async with AsyncTrivet(running.url) as client:
            return await client.search("paged-a", queries, request_, weights, explain=True)

    with Trivet(settings=live) as local, over_http(running) as remote:
        here = local.search("paged-a", queries, request_, weights)
        there = remote.search("paged-a", queries, request_, weights, explain=True)
        whys = [asdict(why) for why in local.searcher().explain(here)]
    assert here.hits
    assert [replace(hit, vectors=None) for hit in there.hits] == [replace(hit, vectors=None) for hit in here.hits]
    assert (there.model, there.notes, there.result.ranked) == (here.model.name, here.notes, here.result.ranked)
    assert there.result.stats.rows == here.result.stats.rows
    assert [why["terms"] and why["terms"][0]["term"] for why in there.explanations] == [
        why["terms"] and why["terms"][0]["term"] for why in whys
    ]
    assert [why["highlights"] for why in there.explanations] == [
        [{**mark, "sentence": mark["sentence"]} if "sentence" in mark else mark for mark in why["highlights"]]
        for why in whys
    ]
    for one, other in zip(there.hits, here.hits, strict=True):
        assert (one.vectors is None) == (other.vectors is None)
        if one.vectors and other.vectors:
            assert one.vectors.dense is not None
            assert other.vectors.dense is not None
            np.testing.assert_array_equal(one.vectors.dense, other.vectors.dense)
    assert asyncio.run(asynchronous()).hits == there.hits if not request_.return_vectors else True


def test_a_client_over_http_is_told_what_cannot_be_searched_for(running: Api, filled: tuple[str, ...]) -> None:
    with over_http(running) as client:
        with pytest.raises(UnknownCollection, match="not-there"):
            client.search("not-there", "bees")
        with pytest.raises(InvalidRequest, match="query is empty"):
            client.search("paged-a", " ")
        with pytest.raises(InvalidRequest, match="one per query"):
            client.search("paged-a", "bees", weights=(1.0, 2.0))
    answer = running.post("/v1/collections/paged-a/search", {"queries": ["x"], "offset": 5000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "validation")
    assert "beyond the 64 candidates" in answer.text
    for more in ({"explain": True, "top_k": 101}, {"return_vectors": True, "top_k": 60, "group_size": 2}):
        refused = running.post("/v1/collections/paged-a/search", {"queries": ["x"], **more})
        assert (refused.status_code, "100 at most" in refused.text) == (422, True)
    stages = {"stages": [{"type": "feature_search", "query": "x", "limit": 3}], "return_vectors": True}
    several = {**stages, "collection_identifiers": ["paged-a", "paged-b"]}
    assert running.made("/v1/retrievers/execute", {**several, "limit": 3})["documents"][0]["dense"]
    deep = {**several, "pagination": {"page_number": 60, "page_size": 3}}
    assert running.post("/v1/retrievers/execute", deep).status_code == 400

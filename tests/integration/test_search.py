"""Exact search over a real S3."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.retrieval.world import World, random_legs, random_query
from trivet.errors import StoreUnavailable
from trivet.retrieval import SearchRequest, open_retriever, rows
from trivet.settings import Settings
from trivet.stores import ObjectStore


@pytest.mark.parametrize("whole", [True, False])
def test_search_on_s3_equals_brute_force(settings: Settings, store: ObjectStore, whole: bool) -> None:
    rng = np.random.default_rng(11)
    world = World(store=store, prefix=settings.s3_prefix)
    for i in range(5):
        world.commit(f"o{i}", random_legs(rng, 60), parts=2, row_group_bytes=3_000)
    world.commit("o1", random_legs(rng, 30), generation=2)
    world.commit("o2", random_legs(rng, 0), generation=2, tombstone=True)
    query = random_query(rng)
    request = SearchRequest(top_k=20, candidates=40, rerank_candidates=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "WHOLE_BYTES", (1 << 20) if whole else 0)
        found = open_retriever(settings).search("default", "docs", query, request)
    expected = world.memory.search("default", "docs", query, request)
    assert [hit.chunk_id for hit in found.hits] == [hit.chunk_id for hit in expected.hits]
    assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in expected.hits], abs=1e-4)
    assert [hit.text for hit in found.hits] == [hit.text for hit in expected.hits]
    assert (found.stats.objects, found.stats.rows) == (4, 210)


def test_a_part_lost_from_s3_is_an_error(settings: Settings, store: ObjectStore) -> None:
    rng = np.random.default_rng(12)
    world = World(store=store, prefix=settings.s3_prefix)
    store.delete(world.commit("a", random_legs(rng, 5)).parts[0].key)
    with pytest.raises(StoreUnavailable, match="is not in the store"):
        open_retriever(settings).search("default", "docs", random_query(rng), SearchRequest())

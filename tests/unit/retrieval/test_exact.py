"""Exact search: equal to brute force however the rows are stored, in bounded memory, and never silently partial."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.parts import OPTIONS
from tests.unit.retrieval.world import World, model, random_legs, random_query
from trivet.clock import ManualClock
from trivet.encoder import Legs
from trivet.errors import StoreDamaged, StoreUnavailable
from trivet.retrieval import Fusion, Hit, SearchRequest, SearchResult, rows
from trivet.retrieval.exact import ExactRetriever
from trivet.retrieval.fusion import METHODS
from trivet.stores.memory import MemoryStore
from trivet.values import Outputs


def search(world: World, query: Any, threads: int = 4, **options: Any) -> SearchResult:
    retriever = ExactRetriever(world.store, world.prefix, threads=threads)
    return retriever.search(world.namespace, world.collection, query, SearchRequest(**options))


def close(hits: tuple[Hit, ...]) -> list[Any]:
    """What must agree with brute force: order, and all scores up to rounding of matrix products."""
    legs = [[(found.score, found.rank) for found in (h.dense, h.sparse, h.colbert) if found] for h in hits]
    return [
        [hit.chunk_id for hit in hits],
        pytest.approx([hit.score for hit in hits], abs=1e-4),
        [[rank for _, rank in row] for row in legs],
        [pytest.approx([score for score, _ in row], abs=1e-5) for row in legs],
    ]


def plain(hits: tuple[Hit, ...]) -> list[Any]:
    legs = [[(found.score, found.rank) for found in (h.dense, h.sparse, h.colbert) if found] for h in hits]
    return [
        [hit.chunk_id for hit in hits],
        [hit.score for hit in hits],
        [[rank for _, rank in row] for row in legs],
        [[score for score, _ in row] for row in legs],
    ]


objects = st.lists(
    st.tuples(st.integers(1, 40), st.integers(1, 5), st.sampled_from([200, 2_000, 64 << 20])), min_size=1, max_size=4
)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=objects,
    top_k=st.integers(1, 12),
    candidates=st.integers(1, 40),
    depth=st.integers(1, 20),
    rerank=st.booleans(),
    method=st.sampled_from(sorted(METHODS)),
    whole=st.booleans(),
    outputs=st.sampled_from(list(OPTIONS.values())),
)
def test_exact_search_equals_brute_force_over_any_parts_and_row_groups(
    seed: int,
    shapes: list[tuple[int, int, int]],
    top_k: int,
    candidates: int,
    depth: int,
    rerank: bool,
    method: str,
    whole: bool,
    outputs: dict[str, Any],
) -> None:
    rng = np.random.default_rng(seed)
    world = World(outputs=Outputs(**outputs))
    for i, (n, parts, row_group_bytes) in enumerate(shapes):
        world.commit(f"o{i}", random_legs(rng, n), parts=parts, row_group_bytes=row_group_bytes)
    query = random_query(rng)
    request: dict[str, Any] = {
        "top_k": top_k,
        "candidates": candidates,
        "rerank": rerank,
        "rerank_candidates": depth,
        "fusion": Fusion(method=method),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "WHOLE_BYTES", (1 << 20) if whole else 0)
        patch.setattr(rows, "READ_BYTES", 512)
        found = search(world, query, **request)
    expected = world.memory.search("default", "docs", query, SearchRequest(**request))
    assert plain(found.hits) == close(expected.hits)
    assert found.stats.rows == expected.stats.rows == sum(n for n, _, _ in shapes)
    assert found.stats.rows_reranked == expected.stats.rows_reranked


narrowed = st.fixed_dictionaries(
    {},
    optional={
        "object_ids": st.lists(st.sampled_from(["o0", "o1", "o2", "o9"]), max_size=3),
        "languages": st.lists(st.sampled_from(["en", "de", "fr"]), max_size=2),
        "pages": st.sampled_from([{"first": 2}, {"last": 3}, {"first": 2, "last": 5}, {"first": 99}]),
        "heading": st.sampled_from([["Book"], ["Book", "Chapter"], ["Chapter"]]),
        "metadata": st.lists(
            st.sampled_from(
                [
                    {"key": "n", "op": "gte", "value": 1},
                    {"key": "n", "op": "in", "value": [0, 2]},
                    {"op": "none", "of": [{"key": "n", "value": 1}]},
                    {"key": "tags", "op": "contains", "value": "even"},
                ]
            ),
            max_size=2,
        ),
    },
)
parts_of_a_ranking = st.fixed_dictionaries(
    {"top_k": st.integers(1, 8), "offset": st.integers(0, 12)},
    optional={
        "group_size": st.integers(1, 3),
        "neighbours": st.integers(0, 3),
        "section_tokens": st.integers(1, 60),
        "min_leg_scores": st.dictionaries(st.sampled_from(["dense", "sparse", "colbert"]), st.just(0.1234)),
        "rerank_fusion": st.just({"weights": {"colbert": 1}, "normalization": "none"}),
    },
)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shapes=objects, filters=narrowed, part=parts_of_a_ranking)
def test_exact_search_filters_pages_and_groups_as_brute_force_does(
    seed: int, shapes: list[tuple[int, int, int]], filters: dict[str, Any], part: dict[str, Any]
) -> None:
    rng = np.random.default_rng(seed)
    world = World()
    for i, (n, parts, row_group_bytes) in enumerate(shapes):
        metadata = {"n": i, "tags": ["even"] if i % 2 == 0 else []}
        world.commit(f"o{i}", random_legs(rng, n), parts=parts, row_group_bytes=row_group_bytes, metadata=metadata)
    query = random_query(rng)
    request = SearchRequest.model_validate({"filters": filters, "rerank_candidates": 20} | part)
    found = ExactRetriever(world.store, world.prefix, threads=4).search("default", "docs", query, request)
    expected = world.memory.search("default", "docs", query, request)
    assert plain(found.hits) == close(expected.hits)
    assert [(hit.before, hit.after, hit.section) for hit in found.hits] == [
        (hit.before, hit.after, hit.section) for hit in expected.hits
    ]
    assert (found.ranked, found.stats.rows) == (expected.ranked, expected.stats.rows)
    assert found.stats.rows_filtered == expected.stats.rows_filtered


def test_maxsim_reads_the_row_groups_of_candidates_alone() -> None:
    rng = np.random.default_rng(1)
    world = World()
    identity = model().model_copy(update={"dimensions": 64, "colbert_dimensions": 64})
    world.commit("a", random_legs(rng, 200, tokens=200, d=64), identity=identity, row_group_bytes=200_000)
    query = random_query(rng, d=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "WHOLE_BYTES", 0)
        without = search(world, query, top_k=2, rerank=False).stats
        reranked = search(world, query, top_k=2, rerank_candidates=2).stats
    size = sum(stored.size for stored in world.store.list("") if stored.key.endswith(".parquet"))
    assert without.row_groups > 10
    assert (reranked.rows, reranked.rows_reranked) == (200, 2)
    assert without.bytes_read < size / 2
    assert without.bytes_read < reranked.bytes_read < without.bytes_read + 3 * 200_000 + (64 << 10) * 3


def test_parts_that_are_older_than_the_column_of_scales_are_searched_as_before() -> None:
    rng = np.random.default_rng(3)
    world = World()
    world.commit("a", random_legs(rng, 20), parts=2)
    query = random_query(rng)
    before = search(world, query).hits
    for stored in list(world.store.list("")):
        if stored.key.endswith(".parquet"):
            sink = pa.BufferOutputStream()
            whole = pq.read_table(pa.BufferReader(world.store.get(stored.key)[0]))
            pq.write_table(whole.drop_columns(["colbert_scale"]), sink)
            world.store.put(stored.key, sink.getvalue().to_pybytes())
    assert all(hit.colbert is not None for hit in before)
    assert search(world, query).hits == before


def test_the_number_of_threads_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    world = World()
    for i in range(12):
        world.commit(f"o{i}", random_legs(rng, 7), parts=3)
    query = random_query(rng)
    assert search(world, query, threads=1).hits == search(world, query, threads=9).hits


class _Sparse(MemoryStore):
    """A part that lies outside Python's heap, so that only what a search itself holds is counted."""

    def __init__(self, big: dict[str, np.memmap[Any, Any]]) -> None:
        super().__init__()
        self.big = big

    def open(self, key: str) -> BinaryIO:
        return io.BufferedReader(_Mapped(self.big[key]), 1 << 16) if key in self.big else super().open(key)


class _Mapped(io.RawIOBase):
    def __init__(self, data: np.memmap[Any, Any]) -> None:
        self.data, self.at = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + {0: 0, 1: self.at, 2: len(self.data)}[whence]
        return self.at

    def readinto(self, buffer: Any) -> int:
        body = self.data[self.at : self.at + len(buffer)]
        buffer[: len(body)] = body.tobytes()
        self.at += len(body)
        return len(body)


def test_a_part_of_50_mb_is_searched_without_holding_it(tmp_path: Any) -> None:
    import pyarrow as pa

    rng = np.random.default_rng(3)
    n, tokens, d = 500, 200, 256
    vectors = rng.standard_normal((n * tokens, d)).astype(np.float16)
    few = random_legs(rng, n, d=d)
    legs = Legs(
        dense=few.dense,
        sparse_ids=few.sparse_ids,
        sparse_weights=few.sparse_weights,
        sparse_offsets=few.sparse_offsets,
        colbert=vectors,
        colbert_offsets=np.arange(n + 1, dtype=np.int64) * tokens,
    )
    big: dict[str, Any] = {}
    world = World(store=_Sparse(big))
    identity = model().model_copy(update={"dimensions": d, "colbert_dimensions": d})
    manifest = world.commit("a", legs, identity=identity, row_group_bytes=64 << 20)
    (part,) = manifest.parts
    assert part.bytes > 50_000_000
    (tmp_path / "part").write_bytes(world.store.get(part.key)[0])
    big[part.key] = np.memmap(tmp_path / "part", dtype=np.uint8, mode="r")
    world.store.delete(part.key)
    query = random_query(rng)
    query = type(query)(query.encoder_key, few.dense[7], query.sparse_ids, query.sparse_weights, vectors[:8] * 1.0)
    del legs, vectors
    pool = pa.default_memory_pool()
    arrow_before = pool.bytes_allocated()
    tracemalloc.start()
    try:
        result = search(world, query, threads=2, top_k=5)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.stats.rows == 500
    assert result.stats.rows_reranked == 64
    # One read ahead and one batch of 16 chunks, per thread, with copies in float32; far from the whole.
    assert held < 40_000_000
    assert pool.max_memory() - arrow_before < 200_000_000
    assert pool.bytes_allocated() - arrow_before < 1_000_000


def test_a_part_that_is_gone_is_an_error_and_not_a_shorter_list() -> None:
    rng = np.random.default_rng(4)
    world = World()
    world.commit("a", random_legs(rng, 3))
    world.store.delete(world.commit("b", random_legs(rng, 3)).parts[0].key)
    with pytest.raises(StoreUnavailable, match=r"b/g/1/part-0.*is not in the store"):
        search(world, random_query(rng))


@pytest.mark.parametrize("body", [b"", b"PAR1", b"no parquet at all" * 40])
@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_part_is_named(body: bytes, whole: bool) -> None:
    rng = np.random.default_rng(5)
    world = World()
    world.store.put(world.commit("a", random_legs(rng, 3)).parts[0].key, body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "WHOLE_BYTES", (1 << 20) if whole else 0)
        with pytest.raises(StoreDamaged, match=r"part-0-[0-9a-f]+\.parquet"):
            search(world, random_query(rng))


def test_a_truncated_part_is_named_wherever_it_is_cut() -> None:
    rng = np.random.default_rng(6)
    world = World()
    key = world.commit("a", random_legs(rng, 9)).parts[0].key
    body = world.store.get(key)[0]
    for cut in range(1, len(body) - 1, len(body) // 25):
        world.store.put(key, body[cut:])
        with pytest.raises(StoreDamaged, match="part-0"):
            search(world, random_query(rng))


class _Failing(MemoryStore):
    """S3 goes away while a part is read."""

    def open(self, key: str) -> BinaryIO:
        file = super().open(key)

        class Broken(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() < 100:
                    raise StoreUnavailable("S3 does not answer.")
                return super().read(size)

        return Broken(file.read())


def test_a_store_that_fails_in_mid_read_is_reported_as_such() -> None:
    rng = np.random.default_rng(8)
    world = World(store=_Failing())
    world.commit("a", random_legs(rng, 9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "WHOLE_BYTES", 0)
        with pytest.raises(StoreUnavailable, match="S3 does not answer"):
            search(world, random_query(rng))


def test_stats_say_what_was_read_and_how_long_each_step_took() -> None:
    rng = np.random.default_rng(9)
    world = World()
    manifest = world.commit("a", random_legs(rng, 20), parts=4)
    retriever = ExactRetriever(world.store, world.prefix, clock=ManualClock())
    stats = retriever.search("default", "docs", random_query(rng), SearchRequest()).stats
    assert (stats.objects, stats.objects_searched, stats.parts, stats.row_groups, stats.rows) == (1, 1, 4, 4, 20)
    assert stats.bytes_read > sum(part.rows for part in manifest.parts) * 8 * 4
    assert dict(stats.seconds) == {"list": 0, "scan": 0, "rerank": 0, "load": 0}


def test_notes_name_the_legs_that_are_not_stored() -> None:
    rng = np.random.default_rng(10)
    world = World()
    world.commit("a", random_legs(rng, 4), outputs=Outputs(sparse=False, colbert="off"))
    notes = search(world, random_query(rng)).stats.notes
    assert any("sparse leg is not stored" in note for note in notes)
    assert any("not reranked by MaxSim" in note for note in notes)

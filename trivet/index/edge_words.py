"""Qdrant Edge's words: shards, points, queries and conditions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

from trivet.index import SCANNED_NUMBERS, Point, QueryVector, Space, Where
from trivet.index.fields import INDEXED, INDEXED_MARKS, heading_key

#: Points that are carried from one shard to another at once: ColBERT vectors come as lists of numbers, 20 MiB of them
#: for 512 tokens of bge-m3.
_CARRIED = 4
_SCHEMAS: dict[str, qe.PayloadSchemaType | qe.IntegerIndexParams] = {
    "keyword": qe.PayloadSchemaType.Keyword,
    # Without this a graph of its own is built for each value that most points have, as `live` is.
    "integer": qe.IntegerIndexParams(lookup=True, range=True, enable_hnsw=False),
}


def create(path: Path, space: Space) -> None:
    """In another folder, then moved: a shard that was half made must not be taken for one."""
    fresh = path.with_name(f".new-{path.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    shard = qe.EdgeShard.create(str(fresh), _config(space))
    for name, kind in (INDEXED if space.encoder_key else INDEXED_MARKS).items():
        shard.update(qe.UpdateOperation.create_field_index(name, _SCHEMAS[kind]))
    shard.flush()
    shard.close()
    fresh.rename(path)


def _config(space: Space) -> qe.EdgeConfig:
    named = {}
    if space.dense:
        kilobytes = SCANNED_NUMBERS * 4 // 1024
        named["dense"] = qe.EdgeVectorParams(
            size=space.dense,
            distance=qe.Distance.Dot,
            hnsw_config=qe.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=kilobytes),
        )
    if space.colbert:
        named["colbert"] = qe.EdgeVectorParams(
            size=space.colbert,
            distance=qe.Distance.Dot,
            datatype=qe.VectorStorageDatatype.Float16,
            multivector_config=qe.MultiVectorConfig(qe.MultiVectorComparator.MaxSim),
            # No graph: only candidates of the two other legs are ever scored.
            hnsw_config=qe.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=1),
        )
    return qe.EdgeConfig(
        vectors=named or None,
        # A space needs some kind of vector; marks have this one, and leave it empty.
        sparse_vectors={"sparse": qe.EdgeSparseVectorParams()},
        optimizers=qe.EdgeOptimizersConfig(indexing_threshold=SCANNED_NUMBERS * 4 // 1024),
        wal_enabled=True,
    )


def vectors(point: Point) -> dict[str, Any]:
    """A point's vectors by name."""
    named: dict[str, Any] = {}
    if point.dense is not None:
        named["dense"] = point.dense
    if point.sparse is not None:
        named["sparse"] = _sparse(point.sparse)
    if point.colbert is not None:
        named["colbert"] = point.colbert.astype(np.float32, copy=False)
    return named


def query_vector(query: QueryVector) -> Any:
    """What is searched for."""
    if query.terms is not None:
        return _sparse(query.terms)
    # The library takes lists of numbers twice as fast as arrays.
    return None if query.numbers is None else query.numbers.tolist()


def _sparse(terms: tuple[Any, Any]) -> qe.SparseVector:
    return qe.SparseVector(indices=terms[0].tolist(), values=terms[1].tolist())


def condition(where: Where) -> qe.Filter:
    """The same in Qdrant's words."""
    must: list[Any] = []
    must_not: list[Any] = []

    def equal(key: str, value: Any) -> Any:
        return qe.FieldCondition(key, match=qe.MatchValue(value))

    if where.objects is not None:
        must.append(qe.FieldCondition("object_id", match=qe.MatchAny(sorted(where.objects))))
    if where.not_objects:
        must_not.append(qe.FieldCondition("object_id", match=qe.MatchAny(sorted(where.not_objects))))
    if where.generation is not None:
        must.append(equal("generation", where.generation))
    if where.not_generation is not None:
        must_not.append(equal("generation", where.not_generation))
    if where.live is not None:
        must.append(equal("live", int(where.live)))
    if where.languages:
        must.append(qe.FieldCondition("language", match=qe.MatchAny(list(where.languages))))
    if where.pages is not None:
        first, last = where.pages
        must.append(qe.FieldCondition("page_end", range=qe.RangeFloat(gte=first or 1)))
        if last is not None:
            must.append(qe.FieldCondition("page_start", range=qe.RangeFloat(lte=last)))
    if where.heading:
        must.append(equal("headings", heading_key(where.heading)))
    if where.ids is not None:
        must.append(qe.HasIdCondition(set(where.ids)))
    return qe.Filter(must=must or None, must_not=must_not or None)


def carry(shard: qe.EdgeShard, fresh: qe.EdgeShard, objects: set[str]) -> None:
    """Make another shard hold the same of some objects."""
    for name in sorted(objects):
        of = condition(Where(objects=(name,)))
        fresh.update(qe.UpdateOperation.delete_points_by_filter(of))
        after = None
        while True:
            request = qe.ScrollRequest(offset=after, limit=_CARRIED, filter=of, with_payload=True, with_vector=True)
            records, after = shard.scroll(request)
            points = [qe.Point(record.id, record.vector or {}, record.payload) for record in records]
            fresh.update(qe.UpdateOperation.upsert_points(points))
            if after is None:
                break

"""What a search found as JSON: of `trivet search --json`, and of the API; `trivet.remote.found` reads it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from trivet.retrieval.results import Hit, StoredVectors

if TYPE_CHECKING:
    from trivet.retrieval.explaining import Explanation
    from trivet.retrieval.searching import Found


def found_json(found: Found, whys: Sequence[Explanation] | None = None) -> dict[str, Any]:
    """Hits, best first, each with its `explanation` where there are any, and what was looked at."""
    stats = found.result.stats
    return {
        "model": found.model.name,
        "hits": hits_json(found.hits, whys),
        "ranked": found.result.ranked,
        "stats": asdict(stats) | {"seconds": dict(stats.seconds)},
        "notes": list(found.notes),
    }


def hits_json(hits: Sequence[Hit], whys: Sequence[Explanation] | None = None) -> list[dict[str, Any]]:
    """Fields are those of `Hit`; vectors are lists, and only there where they were asked for."""
    made = [asdict(replace(hit, vectors=None)) | _vectors_json(hit.vectors) for hit in hits]
    return made if whys is None else [hit | {"explanation": asdict(why)} for hit, why in zip(made, whys, strict=True)]


def _vectors_json(vectors: StoredVectors | None) -> dict[str, Any]:
    if vectors is None:
        return {}
    sparse, dense, colbert = vectors.sparse, vectors.dense, vectors.colbert
    return {
        "vectors": {
            "dense": None if dense is None else dense.tolist(),
            "sparse": None if sparse is None else {"ids": sparse[0].tolist(), "weights": sparse[1].tolist()},
            "colbert": None if colbert is None else colbert.tolist(),
            "colbert_pooling": vectors.colbert_pooling,
        }
    }

"""What a search found as JSON: of `trivet search --json`, and of the API; `trivet.remote.found` reads it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from trivet.retrieval.results import Hit, StoredVectors

if TYPE_CHECKING:
    from trivet.retrieval.explaining import Explanation
    from trivet.retrieval.searching import Found


def found_json(found: Found, whys: Sequence[Explanation] | None = None, *, colbert: bool = True) -> dict[str, Any]:
    """Hits, best first, each with its `explanation` where there are any, and what was looked at.

    Without `colbert` vectors of that leg, which are some megabytes of text for each hit, are left out.
    """
    stats = found.result.stats
    return {
        "model": found.model.name,
        "hits": _hits_json(found.hits, whys, colbert),
        "ranked": found.result.ranked,
        "stats": asdict(stats) | {"seconds": dict(stats.seconds)},
        "notes": list(found.notes),
    }


def _hits_json(hits: Sequence[Hit], whys: Sequence[Explanation] | None, colbert: bool) -> list[dict[str, Any]]:
    """Fields are those of `Hit`; vectors are lists, and only there where they were asked for."""
    made = [asdict(replace(hit, vectors=None)) | _vectors_json(hit.vectors, colbert) for hit in hits]
    return made if whys is None else [hit | {"explanation": asdict(why)} for hit, why in zip(made, whys, strict=True)]


def _vectors_json(vectors: StoredVectors | None, with_colbert: bool) -> dict[str, Any]:
    if vectors is None:
        return {}
    sparse, dense, colbert = vectors.sparse, vectors.dense, vectors.colbert
    return {
        "vectors": {
            "dense": None if dense is None else dense.tolist(),
            "sparse": None if sparse is None else {"ids": sparse[0].tolist(), "weights": sparse[1].tolist()},
            "colbert": None if colbert is None or not with_colbert else colbert.tolist(),
            "colbert_pooling": vectors.colbert_pooling,
        }
    }

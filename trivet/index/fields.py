"""Payloads: what the index keeps of a chunk beside its vectors, and the ids of points."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from trivet.index import Found
from trivet.values import Manifest

#: Fields that filters look at, with their types. `live` is 0 or 1: the embedded Qdrant takes a condition on true for 1.
INDEXED: Final[Mapping[str, str]] = {
    "object_id": "keyword",
    "generation": "integer",
    "live": "integer",
    "language": "keyword",
    "page_start": "integer",
    "page_end": "integer",
    "headings": "keyword",
}
#: Of these, what the marks have.
INDEXED_MARKS: Final[Mapping[str, str]] = {"object_id": "keyword"}
#: What a search needs to know of every candidate.
IDENTITY: Final = ("chunk_id", "object_id", "generation", "parts_only")
#: Columns of a part that become fields of the same name.
COLUMNS: Final = (
    "chunk_id",
    "ordinal",
    "text",
    "context",
    "heading_path",
    "page_start",
    "page_end",
    "char_start",
    "char_end",
    "language",
    "token_count",
)

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://trivet.dev/index")


def point_id(object_id: str, generation: int, chunk_id: str) -> str:
    """uuid5 over object, generation and chunk: the same whenever the generation is written again."""
    return str(uuid.uuid5(_NAMESPACE, f"{object_id}/{generation}/{chunk_id}"))


def mark_id(object_id: str) -> str:
    """uuid5 of an object's mark."""
    return str(uuid.uuid5(_NAMESPACE, object_id))


def payload(row: Mapping[str, Any], manifest: Manifest, *, parts_only: bool) -> dict[str, Any]:
    """The payload of a row of a part (with `COLUMNS`) of a generation, not live yet.

    `parts_only` says that its ColBERT vectors are too many for the index.
    """
    found = {name: row[name] for name in COLUMNS if row[name] is not None}
    return found | {
        "object_id": manifest.object_id,
        "generation": manifest.generation,
        "live": 0,
        "headings": list(_prefixes(row["heading_path"])),
        "source_url": manifest.source_url,
        "committed_at": manifest.created_at,
        "metadata": metadata_text(manifest.metadata),
        **({"parts_only": True} if parts_only else {}),
    }


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Metadata as JSON text, which Qdrant keeps as it is.

    As a value of its own an integer beyond 64 bits would come back as another number, and one object nested more than
    128 deep would make every read of its shard fail.
    """
    return json.dumps(metadata)


def metadata_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata in a payload, also in one that was written when they were a value of their own."""
    found = payload["metadata"]
    metadata: dict[str, Any] = json.loads(found) if isinstance(found, str) else found
    return metadata


def newest(points: Iterable[Found]) -> list[Found]:
    """Without points of generations below the highest of their object: while one replaces another, both are live."""
    points = list(points)
    highest: dict[str, int] = {}
    for point in points:
        name, generation = point.payload["object_id"], point.payload["generation"]
        highest[name] = max(highest.get(name, 0), generation)
    return [point for point in points if point.payload["generation"] == highest[point.payload["object_id"]]]


def heading_key(path: Sequence[str]) -> str:
    """What `headings` has for every chunk under these headings."""
    return json.dumps(list(path), ensure_ascii=False)


def _prefixes(path: Sequence[str]) -> Iterator[str]:
    return (heading_key(path[:size]) for size in range(1, len(path) + 1))

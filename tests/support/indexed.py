"""An index beside a world of committed generations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient

from tests.unit.retrieval.world import World
from trivet.index import Index
from trivet.index.edge import EdgeIndex
from trivet.index.marks import Marks
from trivet.index.qdrant import QdrantIndex
from trivet.index.sync import Sync
from trivet.index.writing import Writer
from trivet.retrieval import QueryLegs, SearchRequest, SearchResult
from trivet.retrieval.indexed import IndexRetriever
from trivet.settings import Settings


@dataclass
class Indexed:
    """An open index over a world's store; a `Retriever` that is brought level before each search."""

    world: World
    index: Index

    def __post_init__(self) -> None:
        world = self.world
        self.marks = Marks(self.index)
        self.writer = Writer(self.index, self.marks, world.store)
        settings = Settings(s3_prefix=world.prefix, io_threads=2)
        self.sync = Sync(settings, self.index, self.marks, self.writer, world.store)
        self.retriever = IndexRetriever(self.index, self.marks, world.store, world.prefix)

    def search(self, namespace: str, collection: str, query: QueryLegs, request: SearchRequest) -> SearchResult:
        assert not self.sync.fill().damaged
        return self.retriever.search(namespace, collection, query, request)

    def vectors(self, *arguments: Any) -> Any:
        return self.retriever.vectors(*arguments)

    def passages(self, *arguments: Any) -> Any:
        return self.retriever.passages(*arguments)


@contextmanager
def indexed(world: World, folder: Path | None = None) -> Iterator[Indexed]:
    """An embedded index in a folder; without one a Qdrant in memory."""
    index: Index = EdgeIndex(folder, ef=64) if folder else QdrantIndex(QdrantClient(":memory:"), prefix="trivet")
    try:
        yield Indexed(world, index)
    finally:
        index.close()

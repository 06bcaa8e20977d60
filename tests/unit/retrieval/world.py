"""Collections for retrieval tests: the same random generations in a store and in the in-memory twin."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trivet.commit import publish
from trivet.encoder import Legs
from trivet.parts.outputs import shaped
from trivet.parts.plan import input_hash, parts_hash
from trivet.parts.writer import part_bytes
from trivet.retrieval import QueryLegs
from trivet.retrieval.memory import MemoryRetriever
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.stores.memory import MemoryStore
from trivet.values import Chunk, Manifest, ModelIdentity, Outputs, Part, Passport, Pipeline, Spec, dump

D = 8
VOCABULARY = 40


def model(key: str = "0" * 16, name: str = "test-model") -> ModelIdentity:
    return ModelIdentity(
        requested=name,
        name=name,
        revision="1",
        encoder_key=key,
        dimensions=D,
        colbert_dimensions=D,
        max_tokens=512,
        pooling="cls",
    )


def unit(rng: np.random.Generator, *shape: int) -> Any:
    values = rng.standard_normal(shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def random_query(
    rng: np.random.Generator, *, key: str = "0" * 16, terms: int = 6, tokens: int = 5, d: int = D
) -> QueryLegs:
    ids = np.sort(rng.choice(VOCABULARY, terms, replace=False)).astype(np.uint32)
    weights = rng.uniform(0.1, 2, terms).astype(np.float32)
    return QueryLegs(key, unit(rng, d), ids, weights, unit(rng, tokens, d))


def random_legs(rng: np.random.Generator, n: int, *, tokens: int = 6, d: int = D) -> Legs:
    counts = rng.integers(0, 9, n)
    ids = [np.sort(rng.choice(VOCABULARY, count, replace=False)) for count in counts]
    lengths = rng.integers(1, tokens + 1, n)
    return Legs(
        dense=unit(rng, n, d),
        sparse_ids=np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.uint32),
        sparse_weights=rng.uniform(0.1, 2, int(counts.sum())).astype(np.float32),
        sparse_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        colbert=unit(rng, int(lengths.sum()), d).astype(np.float16),
        colbert_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def chunk(object_id: str, ordinal: int, generation: int = 1) -> Chunk:
    text = f"{object_id} says {ordinal} in generation {generation} – ü 日本"
    return Chunk(
        chunk_id="doc_" + hashlib.sha256(text.encode()).hexdigest()[:24],
        ordinal=ordinal,
        text=text,
        context="Book > Chapter",
        heading_path=("Book", "Chapter"),
        page_start=ordinal // 2 + 1,
        page_end=ordinal // 2 + 1 + ordinal % 2,
        char_start=ordinal * 100,
        char_end=ordinal * 100 + len(text),
        language=["en", "de", None][ordinal % 3],
        token_ids=(0, *range(5, 5 + ordinal % 7), 2),
    )


def some(legs: Legs, first: int, last: int) -> Legs:
    """Rows `[first, last)`."""
    terms, tokens = legs.sparse_offsets, legs.colbert_offsets
    return Legs(
        dense=legs.dense[first:last],
        sparse_ids=legs.sparse_ids[terms[first] : terms[last]],
        sparse_weights=legs.sparse_weights[terms[first] : terms[last]],
        sparse_offsets=terms[first : last + 1] - terms[first],
        colbert=legs.colbert[tokens[first] : tokens[last]],
        colbert_offsets=tokens[first : last + 1] - tokens[first],
    )


@dataclass
class World:
    """What is committed goes into both."""

    store: ObjectStore = field(default_factory=MemoryStore)
    memory: MemoryRetriever = field(default_factory=MemoryRetriever)
    prefix: str = "v1"
    namespace: str = "default"
    collection: str = "docs"
    #: Of all that is committed without its own.
    outputs: Outputs = field(default_factory=Outputs)

    @property
    def layout(self) -> Layout:
        return Layout(self.prefix, self.namespace, self.collection)

    def commit(
        self,
        object_id: str,
        legs: Legs,
        *,
        generation: int = 1,
        parts: int = 1,
        row_group_bytes: int = 64 << 20,
        outputs: Outputs | None = None,
        identity: ModelIdentity | None = None,
        metadata: dict[str, Any] | None = None,
        tombstone: bool = False,
        passport: bool = True,
        chunks: Sequence[Chunk] | None = None,
    ) -> Manifest:
        outputs, identity, metadata = outputs or self.outputs, identity or model(), metadata or {}
        spec = Spec(pipeline=Pipeline(outputs=outputs), model=identity)
        self.store.put(self.layout.spec(spec.hash), dump(spec).encode())
        chunks = chunks or [chunk(object_id, i, generation) for i in range(len(legs))]
        listed = []
        for shard in range(0 if tombstone else parts):
            first, last = shard * len(chunks) // parts, (shard + 1) * len(chunks) // parts
            if first == last:
                continue
            rows = chunks[first:last]
            stored = shaped(some(legs, first, last), outputs)
            body = part_bytes(rows, stored, spec, object_id, metadata, row_group_bytes=row_group_bytes)
            digest = input_hash(rows, spec)
            key = self.layout.part(object_id, generation, shard, digest)
            sha256 = hashlib.sha256(body).hexdigest()
            self.store.put(key, body, sha256=sha256)
            tokens = sum(row.token_count for row in rows)
            listed.append(
                Part(
                    shard=shard,
                    key=key,
                    sha256=sha256,
                    bytes=len(body),
                    rows=len(rows),
                    tokens=tokens,
                    input_hash=digest,
                )
            )
        manifest = Manifest(
            namespace=self.namespace,
            collection=self.collection,
            object_id=object_id,
            generation=generation,
            task_id=f"task_{object_id}_{generation}",
            run=1,
            source_url=f"https://example.org/{object_id}?…",
            source_sha256="0" * 64,
            spec_hash=spec.hash,
            input_hash=parts_hash(spec.hash, "0" * 64, listed, metadata),
            created_at="2025-01-01T00:00:00Z",
            tombstone=tombstone,
            parts=tuple(listed),
            passports=(
                Passport(
                    requested_model=identity.requested,
                    model=identity.name,
                    revision=identity.revision,
                    encoder_key=identity.encoder_key,
                    dtype="fp32",
                    device="cpu",
                    backend="test",
                ),
            )
            if passport
            else (),
            metadata=metadata,
        )
        publish(self.store, self.layout, manifest)
        self.memory.add(manifest, identity.encoder_key, chunks, legs, outputs)
        return manifest

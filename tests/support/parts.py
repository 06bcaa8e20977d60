"""Specs, chunks and legs for tests, and strategies that draw them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from trivet.encoder import Legs
from trivet.ids import chunk_id
from trivet.values import Chunk, ModelIdentity, Outputs, Pipeline, Spec

#: Any Unicode text without lone surrogates, NUL and astral planes included.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)

#: Name → `Outputs` of every way to store vectors, for models of 4 ColBERT and 8 dense dimensions or more.
OPTIONS: dict[str, dict[str, Any]] = {
    "float16": {},
    "int8": {"colbert": "int8"},
    "list": {"colbert_layout": "list"},
    "pooled": {"colbert_pooling": 2},
    "cut": {"colbert_dimensions": 3, "dense_dimensions": 5},
    "all but list": {"colbert": "int8", "colbert_pooling": 3, "colbert_dimensions": 3, "dense_dimensions": 5},
    "all but int8": {"colbert_layout": "list", "colbert_pooling": 2, "colbert_dimensions": 3},
}


def spec(dimensions: int = 8, colbert: int = 4, /, **outputs: Any) -> Spec:
    """A spec with small vectors."""
    return Spec(
        pipeline=Pipeline(outputs=Outputs(**outputs)),
        model=ModelIdentity(
            requested="BAAI/bge-m3",
            name="tests/small",
            revision="r1",
            encoder_key="ab" * 8,
            dimensions=dimensions,
            colbert_dimensions=colbert,
            max_tokens=512,
            pooling="cls",
        ),
    )


def chunk(ordinal: int = 0, text: str = "text", tokens: int = 4, **fields: Any) -> Chunk:
    """A chunk with `tokens` token ids."""
    known: dict[str, Any] = {
        "chunk_id": chunk_id("obj_1", ordinal, text, ""),
        "ordinal": ordinal,
        "text": text,
        "context": "",
        "heading_path": (),
        "page_start": None,
        "page_end": None,
        "char_start": 0,
        "char_end": len(text),
        "language": None,
        "token_ids": tuple(range(tokens)),
    }
    return Chunk(**(known | fields))


@st.composite
def chunks(draw: st.DrawFn, *, max_size: int = 6) -> list[Chunk]:
    """Chunks of one object with anything that their types allow."""
    page = st.none() | st.integers(1, 2**31 - 1)
    return [
        chunk(
            ordinal,
            draw(texts),
            context=draw(texts),
            heading_path=tuple(draw(st.lists(texts, max_size=3))),
            page_start=draw(page),
            page_end=draw(page),
            char_start=draw(st.integers(0, 2**63 - 1)),
            char_end=draw(st.integers(0, 2**63 - 1)),
            language=draw(st.none() | st.sampled_from(["en", "ja", "zh-Hant"])),
            token_ids=tuple(draw(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=9))),
        )
        for ordinal in range(draw(st.integers(0, max_size)))
    ]


def legs(lengths: list[int], dimensions: int = 8, colbert: int = 4, *, seed: int = 0, terms: int = 5) -> Legs:
    """Random legs for texts of `lengths` tokens; ids ascend, weights are positive, numbers are what they are."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, terms + 1, len(lengths))
    ids = [np.sort(rng.choice(250_000, count, replace=False)) for count in counts]
    rows = [max(0, length - 1) for length in lengths]
    return Legs(
        dense=rng.standard_normal((len(lengths), dimensions), dtype=np.float32),
        sparse_ids=np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.uint32),
        sparse_weights=(rng.random(int(counts.sum()), dtype=np.float32) + np.float32(0.01)),
        sparse_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        colbert=rng.standard_normal((sum(rows), colbert), dtype=np.float32).astype(np.float16),
        colbert_offsets=np.concatenate([[0], np.cumsum(rows)]).astype(np.int64),
    )


def same(one: Legs, two: Legs) -> bool:
    """Whether all arrays are equal, bit for bit."""
    return all(
        np.array_equal(getattr(one, name), getattr(two, name)) and getattr(one, name).dtype == getattr(two, name).dtype
        for name in ("dense", "sparse_ids", "sparse_weights", "sparse_offsets", "colbert", "colbert_offsets")
    )

"""What fewer dense dimensions and smaller ColBERT cost in quality and save in bytes, on the same sets.

Legs are shaped as a worker shapes them (`trivet.parts.outputs`), int8 is quantised and brought back as a reader does.
Bytes are those of the numbers that a part stores, without Parquet's own few.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from infra.eval.sets import TestSet
from infra.eval.tables import table
from trivet.encoder import Legs
from trivet.evaluation.encoding import Block, TextEncoder
from trivet.evaluation.evaluate import values
from trivet.evaluation.lists import Lists, Scorer, fused, query_legs, ranked_by
from trivet.parts.outputs import dequantise, quantise, shaped
from trivet.retrieval import Fusion, Leg
from trivet.values import Outputs

NDCG = "nDCG@10"
#: A set, and per query what the legs know of it, nothing shaped.
Known: TypeAlias = tuple[TestSet, Mapping[str, Lists]]


def widths(full: int) -> list[int]:
    """The model's own width and the usual smaller ones down to 128."""
    return [full, *(width for width in (768, 512, 256, 192, 128) if width < full)]


def storage_tables(
    sets: Sequence[Known], encoder: TextEncoder, chosen: Mapping[str, Fusion], say: Callable[[str], None]
) -> str:
    """Both tables; figures are means over the sets."""
    full = encoder.identity.dimensions
    dense, colbert = [], []
    for width in widths(full):
        outputs = Outputs(colbert="off", dense_dimensions=None if width == full else width)
        dense.append([str(width), f"{4 * width:,}", *_quality(sets, encoder, chosen, outputs)[1]])
        say(" | ".join(dense[-1]))
    for kind, pooling in itertools.product(("float16", "int8"), (1, 2, 4)):
        outputs = Outputs.model_validate({"colbert": kind, "colbert_pooling": pooling})
        size, figures = _quality(sets, encoder, chosen, outputs)
        colbert.append([kind, str(pooling), f"{size:,.0f}", *figures])
        say(" | ".join(colbert[-1]))
    return (
        "### Fewer dense dimensions\n\n"
        f"{table(('dimensions', 'bytes per chunk', 'dense', 'tuned fusion'), dense)}\n"
        "### Smaller ColBERT\n\n"
        f"{table(('numbers', 'pooling', 'bytes per chunk', 'ColBERT', 'tuned fusion'), colbert)}"
    )


def _quality(
    sets: Sequence[Known], encoder: TextEncoder, chosen: Mapping[str, Fusion], outputs: Outputs
) -> tuple[float, list[str]]:
    """Bytes of ColBERT per chunk, and nDCG@10 of the leg that is shaped and of the fusion."""
    alone, together, sizes = [], [], []
    leg = Leg.DENSE if outputs.colbert == "off" else Leg.COLBERT
    corpora: dict[tuple[str, ...], list[Block]] = {}
    for one, known in sets:
        data = one.data
        blocks = corpora.setdefault(data.documents, [])
        blocks += [] if blocks else _stored(encoder, data.documents, outputs)
        sizes.append(sum(_bytes(block.legs, outputs) for block in blocks) / len(data.documents))
        scorer = Scorer(query_legs(encoder, data.queries), data.document_ids)
        scorer.scan(blocks)
        # The leg that is not shaped is as it was.
        lists = {
            query: {**known[query], leg: found[leg]}
            for query, found in zip(data.query_ids, scorer.lists(), strict=True)
        }
        alone.append(values(data, {query: ranked_by(leg, of) for query, of in lists.items()})[NDCG].mean())
        together.append(
            values(data, {query: fused(of, chosen[one.manual]) for query, of in lists.items()})[NDCG].mean()
        )
    return float(np.mean(sizes)), [f"{np.mean(found):.3f}" for found in (alone, together)]


def _stored(encoder: TextEncoder, documents: Sequence[str], outputs: Outputs) -> Iterator[Block]:
    for block in encoder.blocks(documents, "passage"):
        legs = shaped(block.legs, outputs)
        if outputs.colbert == "off":
            legs = replace(legs, colbert=legs.colbert[:0, :0], colbert_offsets=legs.colbert_offsets * 0)
        elif outputs.colbert == "int8":
            legs = replace(legs, colbert=dequantise(*quantise(legs.colbert)))
        else:
            legs = replace(legs, colbert=legs.colbert.astype(np.float16))
        yield replace(block, legs=legs)


def _bytes(legs: Legs, outputs: Outputs) -> int:
    """float16 takes two bytes a number, int8 one, and four a vector for its scale."""
    vectors, width = legs.colbert.shape
    return int(vectors * (2 * width if outputs.colbert == "float16" else width + 4))

"""What each way to store ColBERT, and a truncated dense vector, costs in bytes and changes in scores.

    python -m infra.eval.colbert --model embedded --data .trivet/eval [--write]

Sections of Debian Reference in four languages (`apt-get download`), asked by their titles, by titles in another
language and by keywords, each query against all sections. Vectors go through a real part and the reader; what they
are held against is MaxSim, or the dot product, over the encoder's own float32.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.eval.corpora import LANGUAGES, Corpus, debian_reference
from infra.eval.deviation import HEADINGS, Scores, cells
from trivet.encoder import Encoder, Legs, load_encoder
from trivet.encoder.batching import pack
from trivet.encoder.models import resolve
from trivet.encoder.tokenizer import Kind, Tokenizer
from trivet.ids import chunk_id
from trivet.parts.outputs import shaped, truncate
from trivet.parts.reader import row_groups
from trivet.parts.writer import gather, part_bytes
from trivet.retrieval.scores import colbert_scores, dense_scores
from trivet.settings import Settings
from trivet.stores.memory import MemoryStore
from trivet.values import Chunk, Outputs, Part, Pipeline, Spec

PAGE = Path(__file__).parent.parent.parent / "docs" / "colbert-options.md"
_MARKS = ("<!-- measured: begin -->\n", "<!-- measured: end -->\n")


@dataclass(frozen=True)
class Texts:
    """Chunks with the legs that the encoder gave, and queries with the chunk that each was made from."""

    chunks: list[Chunk]
    legs: Legs
    queries: list[Legs]
    answers: NDArray[np.int64]

    def token_vectors(self) -> int:
        """ColBERT vectors before any pooling."""
        return int(self.legs.colbert_offsets[-1])

    def errors(self, found: Scores, true: Scores) -> list[str]:
        """See `infra.eval.deviation.cells`; the right chunk is looked for in its own language."""
        return cells(found, true, self.answers, len(LANGUAGES))


class Embedder:
    """Texts to token ids to float32 legs."""

    def __init__(self, settings: Settings, model_id: str, tokens: int) -> None:
        model = resolve(settings, model_id)
        self.identity = model.identity
        self._tokens = min(tokens, model.identity.max_tokens)
        self._tokenizer = Tokenizer.load(model)
        self._encoder: Encoder = load_encoder(settings, model_id, dtype="fp32")

    def ids(self, texts: Sequence[str], kind: Kind) -> list[list[int]]:
        """Token ids, cut at the limit."""
        rows = self._tokenizer.encode(texts, kind)
        return [row if len(row) <= self._tokens else [*row[: self._tokens - 1], row[-1]] for row in rows]

    def legs(self, ids: Sequence[Sequence[int]]) -> Legs:
        """All rows, in order, ColBERT in float32."""
        rows: dict[int, tuple[Legs, int]] = {}
        for batch in pack([len(row) for row in ids], 2048):
            legs = self._encoder.encode([ids[i] for i in batch], colbert_fp32=True)
            rows |= {i: (legs, place) for place, i in enumerate(batch)}
        return gather([rows[i] for i in range(len(ids))])


def embedded(corpus: Corpus, embed: Embedder) -> Texts:
    """All sections of all languages as chunks of one object, and every query of `infra.eval.fusion`."""
    sections = len(corpus.texts["en"])
    texts = [text for language in LANGUAGES for text in corpus.texts[language]]
    ids = embed.ids(texts, "passage")
    chunks = [_chunk(i, text, row) for i, (text, row) in enumerate(zip(texts, ids, strict=True))]
    asked: list[str] = []
    answers: list[int] = []
    for place, language in enumerate(LANGUAGES):
        sets = [(corpus.titles[language], place)]
        if language != "ja":  # keywords are cut at spaces
            sets.append((corpus.keywords(language), place))
        if language != "en":
            sets.append((corpus.titles[language], LANGUAGES.index("en")))
        for found, where in sets:
            asked += found
            answers += range(where * sections, (where + 1) * sections)
    queries = embed.legs(embed.ids(asked, "query"))
    return Texts(chunks, embed.legs(ids), list(_rows(queries)), np.array(answers))


def _chunk(ordinal: int, text: str, ids: Sequence[int]) -> Chunk:
    return Chunk(
        chunk_id=chunk_id("obj_1", ordinal, text, ""),
        ordinal=ordinal,
        text=text,
        context="",
        heading_path=(),
        page_start=None,
        page_end=None,
        char_start=0,
        char_end=len(text),
        language=None,
        token_ids=tuple(ids),
    )


def _rows(legs: Legs) -> Iterator[Legs]:
    return (gather([(legs, i)]) for i in range(len(legs)))


# ---------------------------------------------------------------- one option


@dataclass(frozen=True)
class Stored:
    """What a reader gets back, and what it took."""

    legs: Legs
    #: Bytes of the leg's columns in the part.
    bytes: int
    #: Seconds of processor time for shaping and writing, the best of three.
    seconds: float


def store(texts: Texts, embed: Embedder, outputs: Outputs, leg: str) -> Stored:
    """Through a real part and the reader."""
    spec = Spec.freeze(Pipeline(outputs=outputs), embed.identity)
    # As a worker has it: ColBERT in float16.
    given = gather([(texts.legs, i) for i in range(len(texts.chunks))])
    given = _as_float16(given)
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        body = part_bytes(texts.chunks, shaped(given, outputs), spec, "obj_1", {})
        seconds.append(time.process_time() - begin)
    file = pq.ParquetFile(pa.BufferReader(body)).metadata
    columns = [file.row_group(g).column(c) for g in range(file.num_row_groups) for c in range(file.num_columns)]
    size = sum(column.total_compressed_size for column in columns if column.path_in_schema.startswith(leg))
    memory = MemoryStore()
    memory.put("part", body)
    part = Part(shard=0, key="part", sha256="", bytes=len(body), rows=len(texts.chunks), tokens=0, input_hash="")
    groups = [group.legs() for group in row_groups(memory, "obj_1", part)]
    return Stored(gather([(legs, i) for legs in groups for i in range(len(legs))]), size, min(seconds))


def _as_float16(legs: Legs) -> Legs:
    return Legs(
        dense=legs.dense,
        sparse_ids=legs.sparse_ids,
        sparse_weights=legs.sparse_weights,
        sparse_offsets=legs.sparse_offsets,
        colbert=legs.colbert.astype(np.float16),
        colbert_offsets=legs.colbert_offsets,
    )


def maxsim(texts: Texts, legs: Legs) -> Scores:
    """[queries, chunks]"""
    tokens = legs.colbert.astype(np.float32)
    queries = (query.colbert.astype(np.float32, copy=False) for query in texts.queries)
    return np.stack([colbert_scores(query, tokens, legs.colbert_offsets) for query in queries])


def dots(texts: Texts, legs: Legs) -> Scores:
    """[queries, chunks]"""
    return np.stack(
        [dense_scores(truncate(query.dense[0], legs.dense.shape[1]), legs.dense) for query in texts.queries]
    )


# ---------------------------------------------------------------- all options


def colbert_options(width: int) -> dict[str, Outputs]:
    """What is measured, for a model of this width."""
    half, quarter = width // 2, width // 4
    options = [
        Outputs(),
        Outputs(colbert_layout="list"),
        Outputs(colbert="int8"),
        *(Outputs(colbert_dimensions=count) for count in (3 * quarter, half, quarter)),
        *(Outputs(colbert_pooling=factor) for factor in (2, 3, 4, 6)),
        *(Outputs(colbert="int8", colbert_pooling=factor) for factor in (2, 3, 4)),
        Outputs(colbert="int8", colbert_pooling=2, colbert_dimensions=half),
    ]
    return {_label(outputs): outputs for outputs in options}


def _label(outputs: Outputs) -> str:
    words: list[str] = [outputs.colbert]
    words += ["list"] if outputs.colbert_layout == "list" else []
    words += [f"{outputs.colbert_dimensions} dimensions"] if outputs.colbert_dimensions else []
    words += [f"pooling {outputs.colbert_pooling}"] if outputs.colbert_pooling > 1 else []
    return ", ".join(words)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def colbert_table(texts: Texts, embed: Embedder, say: Callable[[str], None]) -> str:
    """One row per way to store ColBERT, float32 first."""
    true = maxsim(texts, texts.legs)
    width, count = embed.identity.colbert_dimensions, len(texts.chunks)
    plain = f"{4 * width * texts.token_vectors() / count:,.0f}"
    rows = [["float32 (not stored)", plain, "–", "–", *texts.errors(true, true)]]
    whole = 0
    for name, outputs in colbert_options(width).items():
        found = store(texts, embed, outputs, "colbert")
        whole = whole or found.bytes
        speed = texts.token_vectors() / found.seconds
        errors = texts.errors(maxsim(texts, found.legs), true)
        rows.append([name, f"{found.bytes / count:,.0f}", f"{found.bytes / whole:.3f}", f"{speed:,.0f}", *errors])
        say(" | ".join(rows[-1]))
    return _table(("ColBERT", "bytes per chunk", "of float16", "tokens/s to shape and write", *HEADINGS), rows)


def dense_table(texts: Texts, embed: Embedder) -> str:
    """One row per width of the dense vector, all of it first."""
    true = dots(texts, texts.legs)
    width = embed.identity.dimensions
    rows = []
    for count in (width, 3 * width // 4, width // 2, width // 4, width // 8):
        outputs = Outputs(colbert="off", dense_dimensions=count if count < width else None)
        found = store(texts, embed, outputs, "dense")
        errors = texts.errors(dots(texts, found.legs), true)
        rows.append([str(count), f"{found.bytes / len(texts.chunks):,.0f}", *errors])
    return _table(("dense dimensions", "bytes per chunk", *HEADINGS), rows)


def main() -> None:
    """Measure, print, and write the page if that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path, default=Path(".trivet/eval"))
    parser.add_argument("--sections", type=int, default=15, help="sections per language")
    parser.add_argument("--tokens", type=int, default=512, help="a section is cut here")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/colbert-options.md")
    options = parser.parse_args()
    corpus = debian_reference(options.data, options.sections)
    embed = Embedder(Settings.load(), options.model, options.tokens)
    texts = embedded(corpus, embed)
    model, vectors = embed.identity, texts.token_vectors()
    text = (
        f"Model: {model.name}, revision `{model.revision[:12]}`, fp32, {model.colbert_dimensions} ColBERT and "
        f"{model.dimensions} dense dimensions. Texts: {corpus.name}, {len(texts.chunks)} chunks of "
        f"{vectors / len(texts.chunks):.0f} token vectors on average, {len(texts.queries)} queries. "
        f"Machine: {os.cpu_count()} cores, {platform.machine()}.\n\n"
        f"{colbert_table(texts, embed, print)}\n{dense_table(texts, embed)}"
    )
    print(text)  # noqa: T201 - a command's output
    if options.write:
        before, rest = PAGE.read_text("utf-8").split(_MARKS[0])
        PAGE.write_text(f"{before}{_MARKS[0]}\n{text}\n{_MARKS[1]}{rest.split(_MARKS[1])[1]}", "utf-8")


if __name__ == "__main__":
    main()

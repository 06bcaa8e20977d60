"""Datasets on disk: BEIR's format, and the layouts of MIRACL and MLDR as their authors publish them.

    beir     corpus.jsonl {_id, title, text}, queries.jsonl {_id, text}, qrels/SPLIT.tsv with the header
             query-id, corpus-id, score (Thakur et al. 2021)
    miracl   topics/*-SPLIT.tsv (id, text), qrels/*-SPLIT.tsv (query id, Q0, document id, grade) and, at any depth,
             docs-*.jsonl.gz {docid, title, text} (Zhang et al. 2023)
    mldr     SPLIT.jsonl {query_id, query, positive_passages, negative_passages} of {docid, text}, and corpus.jsonl
             {docid, text} (Chen et al. 2024)

Every .jsonl may be a .jsonl.gz. Queries without a judgement are left out, as BEIR does. What is wrong raises
`InvalidRequest`: one sentence with file and line.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from trivet.errors import InvalidRequest
from trivet.evaluation import Dataset

Texts = dict[str, str]
Judgements = dict[str, dict[str, int]]
#: What is taken where no split is named, in this order.
SPLITS = ("test", "dev", "validation", "train")
_FORMATS = "See trivet/evaluation/datasets.py for the three layouts: BEIR, MIRACL and MLDR."


class Line(NamedTuple):
    """One line of a file, numbered from 1."""

    path: Path
    number: int
    text: str

    def wrong(self, what: str) -> InvalidRequest:
        """The error that names this line."""
        return InvalidRequest(f"{self.path}, line {self.number}: {what}.")


def read_dataset(folder: Path, split: str = "") -> Dataset:
    """The dataset in this folder; without `split` its test split, else dev, validation or train.

    Raises `InvalidRequest` for a folder of no known layout, a split that is not there, and every line that is wrong.
    """
    if not folder.is_dir():
        raise InvalidRequest(f"There is no folder {str(folder)!r}.")
    if (folder / "topics").is_dir() and (folder / "qrels").is_dir():
        return _miracl(folder, split)
    if (folder / "qrels").is_dir():
        return _beir(folder, split)
    if _found(folder, "corpus") and any(_found(folder, name) for name in (split, *SPLITS) if name):
        return _mldr(folder, split)
    raise InvalidRequest(f"{str(folder)!r} has no dataset in a known layout.", hint=_FORMATS)


def _beir(folder: Path, split: str) -> Dataset:
    qrels = _chosen({path.stem: path for path in (folder / "qrels").glob("*.tsv")}, split, folder / "qrels")
    judgements: Judgements = {}
    for line in _lines(qrels[1]):
        fields = line.text.split("\t")
        if line.number == 1 and fields[-1] == "score":
            continue
        if len(fields) != 3:
            raise line.wrong("expected query id, document id and grade with tabs between them")
        _judge(judgements, line, *fields)
    queries = dict(_jsonl(_needed(folder, "queries"), "_id"))
    return _dataset("beir", folder, qrels[0], _jsonl(_needed(folder, "corpus"), "_id"), queries, judgements, qrels[1])


def _miracl(folder: Path, split: str) -> Dataset:
    files = {path.stem.rsplit("-", 1)[-1]: path for path in (folder / "qrels").glob("*.tsv")}
    name, qrels = _chosen(files, split, folder / "qrels")
    topics = [path for path in (folder / "topics").glob("*.tsv") if path.stem.rsplit("-", 1)[-1] == name]
    if len(topics) != 1:
        raise InvalidRequest(f"{folder / 'topics'} has {len(topics)} files *-{name}.tsv; one is needed.")
    judgements: Judgements = {}
    for line in _lines(qrels):
        fields = line.text.split()
        if len(fields) != 4:
            raise line.wrong("expected query id, Q0, document id and grade")
        _judge(judgements, line, fields[0], fields[2], fields[3])
    queries: Texts = {}
    for line in _lines(topics[0]):
        key, tab, text = line.text.partition("\t")
        if not tab:
            raise line.wrong("expected query id and text with a tab between them")
        _add(queries, line, key, text)
    files_of_corpus = sorted([*folder.rglob("docs*.jsonl.gz"), *folder.rglob("docs*.jsonl")])
    if not files_of_corpus:
        raise InvalidRequest(f"{str(folder)!r} has no docs-*.jsonl.gz: MIRACL's corpus is published by itself.")
    corpus = (row for path in files_of_corpus for row in _jsonl(path, "docid"))
    return _dataset("miracl", folder, name, corpus, queries, judgements, qrels)


def _mldr(folder: Path, split: str) -> Dataset:
    files = {name: path for name in (split, *SPLITS) if name and (path := _found(folder, name))}
    name, path = _chosen(files, split, folder)
    queries: Texts = {}
    judgements: Judgements = {}
    for line in _lines(path):
        row = _object(line)
        key = _text(line, row, "query_id")
        _add(queries, line, key, _text(line, row, "query"))
        for passages, grade in (("negative_passages", "0"), ("positive_passages", "1")):
            listed = row.get(passages, [])
            if not isinstance(listed, list) or not all(isinstance(passage, dict) for passage in listed):
                raise line.wrong(f"{passages} is not a list of passages")
            for passage in listed:
                _judge(judgements, line, key, _text(line, passage, "docid"), grade)
    corpus = _jsonl(_needed(folder, "corpus"), "docid")
    return _dataset("mldr", folder, name, corpus, queries, judgements, path)


# ---------------------------------------------------------------- what the layouts share


def _dataset(
    layout: Literal["beir", "miracl", "mldr"],
    folder: Path,
    split: str,
    corpus: Iterable[tuple[str, str]],
    queries: Texts,
    judgements: Judgements,
    judged_in: Path,
) -> Dataset:
    if not judgements:
        raise InvalidRequest(f"{judged_in} has no judgement.")
    if unknown := next((key for key in judgements if key not in queries), None):
        raise InvalidRequest(f"{judged_in} judges query {unknown!r}, which the queries do not have.")
    documents = dict(corpus)
    if not documents:
        raise InvalidRequest(f"{str(folder)!r} has no documents.")
    asked = [key for key in queries if key in judgements]
    return Dataset(
        name=folder.resolve().name,
        layout=layout,
        split=split,
        document_ids=tuple(documents),
        documents=tuple(documents.values()),
        query_ids=tuple(asked),
        queries=tuple(queries[key] for key in asked),
        judgements=judgements,
    )


def _chosen(files: dict[str, Path], split: str, folder: Path) -> tuple[str, Path]:
    names = (split,) if split else (*SPLITS, *sorted(files))
    for name in names:
        if name in files:
            return name, files[name]
    there = ", ".join(sorted(files)) or "none"
    wanted = f"split {split!r}" if split else "split at all"
    raise InvalidRequest(f"{str(folder)!r} has no {wanted}.", hint=f"There is: {there}.")


def _found(folder: Path, name: str) -> Path | None:
    return next((path for tail in (".jsonl", ".jsonl.gz") if (path := folder / f"{name}{tail}").is_file()), None)


def _needed(folder: Path, name: str) -> Path:
    found = _found(folder, name)
    if found is None:
        raise InvalidRequest(f"{str(folder)!r} has no {name}.jsonl, and no {name}.jsonl.gz.")
    return found


def _lines(path: Path) -> Iterator[Line]:
    """Lines that are not empty."""
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield Line(path, number, text.rstrip("\r\n"))
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path}, after line {number}: the text is not UTF-8.") from None
    except (EOFError, OSError, zlib.error) as error:
        raise InvalidRequest(f"{path}, after line {number}: the file cannot be read ({error}).") from None


def _jsonl(path: Path, key: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for line in _lines(path):
        row = _object(line)
        identity, title = _text(line, row, key), row.get("title") or ""
        if identity in seen:
            raise line.wrong(f"id {identity!r} is there twice")
        if not isinstance(title, str):
            raise line.wrong("title is not a text")
        seen.add(identity)
        yield identity, f"{title} {_text(line, row, 'text')}".strip()


def _object(line: Line) -> dict[str, Any]:
    try:
        row = json.loads(line.text)
    except ValueError:
        raise line.wrong("this is not JSON") from None
    if not isinstance(row, dict):
        raise line.wrong("this is not a JSON object")
    return row


def _text(line: Line, row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool) and field != "text":
        return str(value)
    if not isinstance(value, str):
        raise line.wrong(f"{field} is {'missing' if field not in row else 'not a text'}")
    return value


def _add(queries: Texts, line: Line, key: str, text: str) -> None:
    if key in queries:
        raise line.wrong(f"query {key!r} is there twice")
    queries[key] = text


def _judge(judgements: Judgements, line: Line, query: str, document: str, grade: str) -> None:
    try:
        value = int(float(grade))
    except (ValueError, OverflowError):
        raise line.wrong(f"the grade {grade[:20]!r} is not a number") from None
    judgements.setdefault(query, {})[document] = value

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from trivet.errors import InvalidRequest
from trivet.evaluation.datasets import read_dataset


def jsonl(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), "utf-8")


def beir(folder: Path, tail: str = "") -> Path:
    jsonl(folder / f"corpus.jsonl{tail}", {"_id": "a", "title": "Red", "text": "apple"}, {"_id": "b", "text": "boat"})
    jsonl(folder / f"queries.jsonl{tail}", {"_id": "1", "text": "fruit"}, {"_id": "2", "text": "not judged"})
    lines(folder / "qrels/test.tsv", "query-id\tcorpus-id\tscore", "1\ta\t2", "1\tb\t0")
    return folder


def miracl(folder: Path) -> Path:
    lines(folder / "topics/topics.miracl-v1.0-de-dev.tsv", "1\tWas ist\tes?")
    lines(folder / "qrels/qrels.miracl-v1.0-de-dev.tsv", "1\tQ0\t7#0\t1", "1\tQ0\t7#1\t0")
    corpus = folder / "miracl-corpus-v1.0-de"
    jsonl(corpus / "docs-0.jsonl.gz", {"docid": "7#0", "title": "Apfel", "text": "Obst"})
    jsonl(corpus / "docs-1.jsonl.gz", {"docid": "7#1", "title": "", "text": "Boot"})
    return folder


def mldr(folder: Path) -> Path:
    passages = {
        "positive_passages": [{"docid": "d1", "text": "x"}],
        "negative_passages": [{"docid": "d2", "text": "y"}],
    }
    jsonl(folder / "test.jsonl.gz", {"query_id": "q1", "query": "what?"} | passages)
    jsonl(folder / "corpus.jsonl.gz", {"docid": "d1", "text": "x"}, {"docid": "d2", "text": "y"})
    return folder


@pytest.mark.parametrize("tail", ["", ".gz"])
def test_beir_is_read_and_queries_without_a_judgement_are_left_out(tmp_path: Path, tail: str) -> None:
    found = read_dataset(beir(tmp_path / "set", tail))
    assert (found.name, found.layout, found.split) == ("set", "beir", "test")
    assert dict(zip(found.document_ids, found.documents, strict=True)) == {"a": "Red apple", "b": "boat"}
    assert (found.query_ids, found.queries) == (("1",), ("fruit",))
    assert found.judgements == {"1": {"a": 2, "b": 0}}


def test_miracl_is_read_from_topics_qrels_and_all_files_of_its_corpus(tmp_path: Path) -> None:
    found = read_dataset(miracl(tmp_path))
    assert (found.layout, found.split, found.queries) == ("miracl", "dev", ("Was ist\tes?",))
    assert dict(zip(found.document_ids, found.documents, strict=True)) == {"7#0": "Apfel Obst", "7#1": "Boot"}
    assert found.judgements == {"1": {"7#0": 1, "7#1": 0}}


def test_mldr_is_read_with_its_positive_passages_as_the_relevant_ones(tmp_path: Path) -> None:
    found = read_dataset(mldr(tmp_path))
    assert (found.layout, found.split, found.query_ids, found.queries) == ("mldr", "test", ("q1",), ("what?",))
    assert found.document_ids == ("d1", "d2")
    assert found.judgements == {"q1": {"d1": 1, "d2": 0}}


def test_a_split_that_is_named_is_taken_and_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    lines(beir(tmp_path) / "qrels/dev.tsv", "1\tb\t1")
    assert read_dataset(tmp_path).split == "test"
    assert read_dataset(tmp_path, "dev").judgements == {"1": {"b": 1}}
    with pytest.raises(InvalidRequest, match=r"no split 'train'.*dev, test"):
        read_dataset(tmp_path, "train")


@pytest.mark.parametrize(
    ("file", "body", "told"),
    [
        ("corpus.jsonl", b'{"_id": "a", "text": "x"}\nnot json\n', "corpus.jsonl, line 2: this is not JSON"),
        ("corpus.jsonl", b"[]\n", "line 1: this is not a JSON object"),
        ("corpus.jsonl", b'{"_id": "a"}\n', "line 1: text is missing"),
        ("corpus.jsonl", b'{"text": "x"}\n', "line 1: _id is missing"),
        ("corpus.jsonl", b'{"_id": "a", "text": 5}\n', "line 1: text is not a text"),
        ("corpus.jsonl", b'{"_id": "a", "text": "x"}\n\n{"_id": "a", "text": "y"}\n', "line 3: id 'a' is there twice"),
        ("corpus.jsonl", b'{"_id": "a", "text": "x"}\n\xff\n', "corpus.jsonl, after line [01]: the text is not UTF-8"),
        ("corpus.jsonl", b"", "has no documents"),
        ("qrels/test.tsv", b"1\ta\n", "test.tsv, line 1: expected query id, document id and grade"),
        ("qrels/test.tsv", b"1\ta\tgood\n", "line 1: the grade 'good' is not a number"),
        ("qrels/test.tsv", b"9\ta\t1\n", "judges query '9', which the queries do not have"),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\n", "has no judgement"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path: Path, file: str, body: bytes, told: str) -> None:
    (beir(tmp_path) / file).write_bytes(body)
    with pytest.raises(InvalidRequest, match=told):
        read_dataset(tmp_path)


def test_a_gzip_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    path = mldr(tmp_path) / "corpus.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InvalidRequest, match=r"corpus\.jsonl\.gz, after line \d+: the file cannot be read"):
        read_dataset(tmp_path)


def test_a_folder_without_a_dataset_and_a_corpus_that_is_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no dataset in a known layout"):
        read_dataset(tmp_path)
    with pytest.raises(InvalidRequest, match="There is no folder"):
        read_dataset(tmp_path / "nowhere")
    (beir(tmp_path) / "corpus.jsonl").unlink()
    with pytest.raises(InvalidRequest, match=r"no corpus\.jsonl"):
        read_dataset(tmp_path)

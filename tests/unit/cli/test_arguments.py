"""What users type becomes what the client takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.cli.ingest import parse_metadata, source_url
from trivet.cli.search import parse_weights
from trivet.errors import InvalidRequest


@pytest.mark.parametrize("url", ["https://example.com/a?b=c", "s3://bucket/key", "data:text/plain,hello", "file:///a"])
def test_a_url_stays_as_it_is(url: str) -> None:
    assert source_url(url) == url


def test_a_file_that_exists_becomes_its_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a report #1.txt").write_text("text", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert source_url("a report #1.txt") == (tmp_path / "a report #1.txt").as_uri()
    assert "%23" in source_url("a report #1.txt")


def test_a_file_whose_name_looks_like_a_url_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes:today").write_text("text", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert source_url("notes:today").startswith("file:")


@pytest.mark.parametrize("source", ["no-such-file.pdf", "./no/such", ""])
def test_what_is_neither_is_refused(source: str) -> None:
    with pytest.raises(InvalidRequest):
        source_url(source)


def test_a_folder_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="folder"):
        source_url(str(tmp_path))


_KEYS = st.text(st.characters(exclude_characters="=:", exclude_categories=["Cs"]), min_size=1)


@given(st.dictionaries(_KEYS, st.text()))
def test_text_metadata_comes_through_unchanged(metadata: dict[str, str]) -> None:
    assert parse_metadata([f"{key}={value}" for key, value in metadata.items()]) == metadata


@given(st.dictionaries(_KEYS, st.one_of(st.integers(), st.booleans(), st.none(), st.lists(st.text()))))
def test_json_metadata_keeps_its_type(metadata: dict[str, object]) -> None:
    assert parse_metadata([f"{key}:={json.dumps(value)}" for key, value in metadata.items()]) == metadata


@pytest.mark.parametrize("pair", ["", "key", "=value", ":=1", "key:={"])
def test_metadata_that_cannot_be_read_is_refused(pair: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_metadata([pair])


@given(st.dictionaries(st.sampled_from(["dense", "sparse", "colbert"]), st.floats(0, 100), min_size=1))
def test_weights_come_through(weights: dict[str, float]) -> None:
    assert parse_weights(", ".join(f"{leg}={weight!r}" for leg, weight in weights.items())) == weights


@pytest.mark.parametrize("text", ["dense", "dense=", "lexical=1", "dense=1;sparse=2", ",", "dense=1,"])
def test_weights_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_weights(text)

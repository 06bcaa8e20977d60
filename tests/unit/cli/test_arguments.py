"""What users type becomes what the client takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.cli.ingest import parse_metadata, source_url
from trivet.cli.search_options import filters_of, fusion_of, parse_condition, parse_weights
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


@pytest.mark.parametrize(
    ("text", "key", "op", "value"),
    [
        ("kind=book", "kind", "eq", "book"),
        ("kind != a book", "kind", "ne", "a book"),
        ("year>=2001", "year", "gte", 2001),
        ('year="2001"', "year", "eq", "2001"),
        ("draft=true", "draft", "eq", True),
        ("price<9.5", "price", "lt", 9.5),
        ("kind in book, paper", "kind", "in", ["book", "paper"]),
        ('kind in ["book", 3]', "kind", "in", ["book", 3]),
        ("tags contains law", "tags", "contains", "law"),
        ("author.name=Ada", "author.name", "eq", "Ada"),
        ("author exists", "author", "exists", True),
        ("author exists false", "author", "exists", False),
        ("q=a>b", "q", "eq", "a>b"),
    ],
)
def test_a_condition_is_read(text: str, key: str, op: str, value: object) -> None:
    found = parse_condition(text)
    assert (found.key, found.op, found.value) == (key, op, value)


@pytest.mark.parametrize("text", ["", "kind", "=book", "kind=", "kind like book", "year>true", "kind exists maybe"])
def test_a_condition_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_condition(text)


@pytest.mark.parametrize(("text", "pages"), [("3", (3, 3)), ("2-5", (2, 5)), ("7-", (7, None)), ("-4", (None, 4))])
def test_pages_are_read(text: str, pages: tuple[int | None, int | None]) -> None:
    found = filters_of(None, None, None, text, "", "", "").pages
    assert found is not None
    assert (found.first, found.last) == pages


@pytest.mark.parametrize("text", ["-", "x", "3-2", "0", "1 2", "1-2-3"])
def test_pages_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        filters_of(None, None, None, text, "", "", "")


def test_headings_and_times_are_read() -> None:
    found = filters_of(None, None, None, "", "2025-01-31T00:00:00Z", "", "Guide > Install")
    assert found.heading == ("Guide", "Install")
    assert found.committed_from is not None
    with pytest.raises(InvalidRequest):
        filters_of(None, None, None, "", "yesterday", "", "")
    with pytest.raises(InvalidRequest, match="timezone"):
        filters_of(None, None, None, "", "2025-01-31T00:00:00", "", "")


def test_a_leg_is_left_out_by_name() -> None:
    assert fusion_of("rrf", "", "zscore", ["sparse"]).weights == {"dense": 1.0, "sparse": 0.0, "colbert": 4.0}
    with pytest.raises(InvalidRequest, match="No leg is called 'bm25'"):
        fusion_of("rrf", "", "zscore", ["bm25"])

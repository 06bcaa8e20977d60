"""Queries are encoded once, cut only with a note, and never shared wrongly."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from trivet.encoder.fake import FakeEncoder
from trivet.encoder.models import ResolvedModel, resolve
from trivet.encoder.tokenizer import Tokenizer
from trivet.errors import InvalidRequest
from trivet.retrieval.query import QueryEncoder
from trivet.settings import Settings


class _Counting(FakeEncoder):
    def __init__(self, model: ResolvedModel) -> None:
        super().__init__(model)
        self.calls = 0
        self.inside = 0

    def encode(self, token_ids: Sequence[Sequence[int]], **options: Any) -> Any:
        self.calls += 1
        self.inside += 1
        assert self.inside == 1
        legs = super().encode(token_ids, **options)
        self.inside -= 1
        return legs


@pytest.fixture
def counting() -> _Counting:
    return _Counting(resolve(Settings(), "fake"))


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.load(resolve(Settings(), "fake"))


def test_all_three_legs_come_from_one_pass(counting: _Counting, tokenizer: Tokenizer) -> None:
    query = QueryEncoder(counting, tokenizer).encode("  hello world ")
    assert counting.calls == 1
    assert query.legs.encoder_key == counting.identity.encoder_key
    assert query.legs.dense.shape == (counting.identity.dimensions,)
    assert query.legs.colbert.dtype == np.float32
    assert len(query.legs.colbert) == query.tokens - 1
    assert len(query.legs.sparse_ids) == len(query.legs.sparse_weights) > 0
    assert (query.text, query.tokens_cut, query.notes) == ("hello world", 0, ())


def test_an_over_long_query_is_cut_with_a_note_and_keeps_its_closing_token(
    counting: _Counting, tokenizer: Tokenizer
) -> None:
    longest = counting.identity.max_tokens
    query = QueryEncoder(counting, tokenizer).encode("x1 " * longest)
    assert query.tokens == longest
    assert query.tokens_cut > 0
    assert query.notes == (
        f"The query was cut to {longest} tokens, the most its model takes; {query.tokens_cut} were left out.",
    )


def test_equal_queries_are_encoded_once_and_the_oldest_are_forgotten(counting: _Counting, tokenizer: Tokenizer) -> None:
    encoder = QueryEncoder(counting, tokenizer, cache_size=2)
    for text in ("a", "b", "a", " a "):
        encoder.encode(text)
    assert counting.calls == 2
    encoder.encode("c")  # b goes
    encoder.encode("a")
    assert counting.calls == 3
    encoder.encode("b")
    assert counting.calls == 4


def test_a_cache_of_size_zero_remembers_nothing(counting: _Counting, tokenizer: Tokenizer) -> None:
    encoder = QueryEncoder(counting, tokenizer, cache_size=0)
    assert encoder.encode("a").text == encoder.encode("a").text
    assert counting.calls == 2


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_an_empty_query_is_refused(counting: _Counting, tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        QueryEncoder(counting, tokenizer).encode(text)


def test_threads_share_an_encoder_one_at_a_time(counting: _Counting, tokenizer: Tokenizer) -> None:
    encoder = QueryEncoder(counting, tokenizer)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda i: encoder.encode(f"query {i % 5}"), range(20)))
    assert [query.text for query in found] == [f"query {i % 5}" for i in range(20)]
    assert counting.calls == 5


def test_the_encoder_of_a_collection_is_loaded_by_its_model_id() -> None:
    encoder = QueryEncoder.load(Settings(), "fake", backend="fake")
    assert encoder.encode("hello").legs.encoder_key == encoder.identity.encoder_key


def test_what_is_remembered_fits_into_its_bytes(counting: _Counting, tokenizer: Tokenizer) -> None:
    long = "word " * 50
    size = sum(
        found.nbytes
        for legs in [QueryEncoder(counting, tokenizer).encode(long).legs]
        for found in (legs.dense, legs.sparse_ids, legs.sparse_weights, legs.colbert)
    )
    encoder = QueryEncoder(counting, tokenizer, cache_bytes=2 * size)
    counting.calls = 0
    for text in (long, "short", long):
        encoder.encode(text)
    assert counting.calls == 2
    small = QueryEncoder(counting, tokenizer, cache_bytes=size - 1)
    counting.calls = 0
    assert small.encode(long).text == small.encode(long).text
    assert counting.calls == 2


def test_a_known_query_waits_for_no_other_that_is_encoded(counting: _Counting, tokenizer: Tokenizer) -> None:
    encoder = QueryEncoder(counting, tokenizer)
    encoder.encode("known")
    begun, go_on, encode = threading.Event(), threading.Event(), counting.encode

    def slow(token_ids: Sequence[Sequence[int]], **options: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return encode(token_ids, **options)

    counting.encode = slow  # this one waits
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(encoder.encode, "other")
        assert begun.wait(30)
        assert encoder.encode("known").text == "known"
        assert not other.done()
        go_on.set()
        assert other.result().text == "other"

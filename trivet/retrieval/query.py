"""A query is encoded once per text and model, for all three legs, and remembered for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from trivet.encoder import Encoder, load_resolved
from trivet.errors import InvalidRequest
from trivet.retrieval import QueryLegs
from trivet.settings import Settings
from trivet.values import ModelIdentity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trivet.encoder.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query's legs, and what was done to get them."""

    text: str
    legs: QueryLegs
    #: Tokens that were encoded, prompt and special tokens counted.
    tokens: int
    #: Tokens that were cut off because the model takes no more.
    tokens_cut: int
    #: Sentences for the user.
    notes: tuple[str, ...] = ()


class QueryEncoder:
    """Encodes queries with one model; safe to share between threads."""

    def __init__(
        self, encoder: Encoder, tokenizer: Tokenizer, *, cache_size: int = 256, cache_bytes: int = 64 << 20
    ) -> None:
        """The last `cache_size` queries are remembered, as far as their vectors fit into `cache_bytes`."""
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._cache: OrderedDict[str, EncodedQuery] = OrderedDict()
        self._cache_size, self._cache_bytes, self._cached_bytes = cache_size, cache_bytes, 0
        self._lock = threading.Lock()  # an encoder takes one thread at a time
        self._cache_lock = threading.Lock()  # what is remembered waits for no encoder

    @classmethod
    def load(cls, settings: Settings, model_id: str, *, revision: str = "", backend: str = "auto") -> Self:
        """Load the model that embedded a collection (`Pipeline.model_id`, `Pipeline.revision`).

        Raises `ModelUnavailable`, `ModelInvalid` and `MissingDependency`.
        """
        from trivet.encoder.models import resolve
        from trivet.encoder.tokenizer import Tokenizer

        model = resolve(settings, model_id, revision)
        return cls(load_resolved(settings, model, backend=backend), Tokenizer.load(model))

    @property
    def identity(self) -> ModelIdentity:
        """The model that runs."""
        return self._encoder.identity

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own, which `trivet.retrieval.explaining` needs."""
        return self._tokenizer

    def encode(self, text: str) -> EncodedQuery:
        """All three legs of one query. An over-long one is cut at its end, and a note says so.

        Raises `InvalidRequest` for a query without text.
        """
        text = text.strip()
        if not text:
            raise InvalidRequest("The query is empty.", hint="Say what to search for.")
        if known := self._remembered(text):
            return known
        with self._lock:
            # Another thread may have encoded it while this one waited.
            if known := self._remembered(text):
                return known
            encoded = self._encode(text)
            self._remember(text, encoded)
            return encoded

    def _remembered(self, text: str) -> EncodedQuery | None:
        with self._cache_lock:
            if text in self._cache:
                self._cache.move_to_end(text)
            return self._cache.get(text)

    def _remember(self, text: str, query: EncodedQuery) -> None:
        with self._cache_lock:
            self._cache[text] = query
            self._cached_bytes += _bytes(query.legs)
            while len(self._cache) > self._cache_size or self._cached_bytes > self._cache_bytes:
                _, forgotten = self._cache.popitem(last=False)
                self._cached_bytes -= _bytes(forgotten.legs)

    def _encode(self, text: str) -> EncodedQuery:
        (ids,) = self._tokenizer.encode([text], "query")
        longest = self._encoder.identity.max_tokens
        cut = max(len(ids) - longest, 0)
        legs = self._encoder.encode([cut_to(ids, longest)], colbert=True, colbert_fp32=True)
        query = QueryLegs(
            encoder_key=self._encoder.identity.encoder_key,
            dense=legs.dense[0],
            sparse_ids=legs.sparse_ids,
            sparse_weights=legs.sparse_weights,
            colbert=_float32(legs.colbert),
        )
        note = f"The query was cut to {longest} tokens, the most its model takes; {cut} were left out."
        return EncodedQuery(text, query, len(ids) - cut, cut, (note,) if cut else ())


def _bytes(legs: QueryLegs) -> int:
    return sum(found.nbytes for found in (legs.dense, legs.sparse_ids, legs.sparse_weights, legs.colbert))


def cut_to(tokens: Sequence[T], longest: int) -> Sequence[T]:
    """The first tokens of a query, at most `longest`: the closing special token stays."""
    return tokens if len(tokens) <= longest else [*tokens[: longest - 1], tokens[-1]]


def _float32(values: NDArray[np.float16] | NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    return values.astype(np.float32, copy=False)

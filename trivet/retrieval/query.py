"""A query is encoded once, for all three legs, and remembered for a while."""

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

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer, *, cache_size: int = 256) -> None:
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._cache: OrderedDict[str, EncodedQuery] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()  # an encoder takes one thread at a time

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
        with self._lock:
            known = self._cache.get(text)
            if known is None:
                known = self._encode(text)
                self._cache[text] = known
                while len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
            elif self._cache_size:
                self._cache.move_to_end(text)
            return known

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


def cut_to(tokens: Sequence[T], longest: int) -> Sequence[T]:
    """The first tokens of a query, at most `longest`: the closing special token stays."""
    return tokens if len(tokens) <= longest else [*tokens[: longest - 1], tokens[-1]]


def _float32(values: NDArray[np.float16] | NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    return values.astype(np.float32, copy=False)

"""`trivet model verify`: hold an encoder against the reference on the same weights, and against published scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Protocol

import numpy as np

from trivet.encoder import Encoder, Legs, load_resolved
from trivet.encoder.canary import canary_rows, canary_texts
from trivet.encoder.compare import differences, largest, pair_scores, row, terms
from trivet.encoder.models import FAKE, ResolvedModel, resolve
from trivet.encoder.numerics import TOLERANCES, numerics
from trivet.encoder.reference import FlagReference, has_flag_embedding
from trivet.encoder.tokenizer import Tokenizer
from trivet.errors import InvalidRequest, ModelUnavailable
from trivet.settings import Settings
from trivet.values import Frozen, ModelIdentity, Numerics

#: Largest absolute difference to the reference in fp32 that counts as equal.
TOLERANCE = 1e-5
#: The published scores were computed in fp16 and are printed as such.
GOLDEN_TOLERANCE = 5e-3

#: Lengths in tokens, besides the canary texts as they are.
_LENGTHS = (256, 512, 2048)
#: Texts up to so many tokens are compared in one batch.
_SHORT = 200
_LEGS = ("dense", "sparse", "colbert")


class Compared(Frozen):
    """One input, and the largest absolute difference of each leg."""

    name: str
    tokens: int
    #: Both tokenisers gave the same ids.
    same_ids: bool
    dense: float
    sparse: float
    colbert: float


class Chosen(Frozen):
    """What the encoder that runs by default loses against its own fp32, over all inputs."""

    dtype: str
    dense: float
    sparse: float
    colbert: float
    #: Smallest cosine between its dense vector and that of fp32.
    dense_cosine_min: float
    #: Over the canary texts alone, ten scripts.
    numerics: Numerics
    #: What of that is outside of the dtype's tolerance, a sentence each.
    missed: tuple[str, ...] = ()
    #: Whether an encoder outside of this tolerance refuses to start.
    strict: bool = False


class Golden(Frozen):
    """One published score and ours."""

    name: str
    published: float
    ours: float


class VerifyReport(Frozen):
    """What `verify` measured.

    `passed` holds for fp32, for the tolerance of the chosen dtype where that is strict, and for the golden scores where
    they were asked for.
    """

    model: ModelIdentity
    backend: str
    device: str
    #: What it was held against, with its version.
    reference: str
    tolerance: float = TOLERANCE
    inputs: tuple[Compared, ...]
    chosen: Chosen
    golden: tuple[Golden, ...] = ()
    passed: bool


class _Reference(Protocol):
    name: str

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]: ...

    def encode(self, texts: Sequence[str]) -> Legs: ...


def verify(settings: Settings, model_id: str, golden: bool = False, *, revision: str = "") -> VerifyReport:
    """Compare the backend and device of `settings` with FlagEmbedding, else with transformers, on the same weights.

    The comparison is in fp32, without prompts, with the model's own pooling and longest input; then the dtype of
    `settings` is held against that. `golden` adds the scores of bge-m3's model card, and raises `ModelUnavailable`
    where another model would run. A model of bge-m3's size takes some minutes on a CPU.
    """
    model = resolve(settings, model_id, revision)
    if model.identity.name == FAKE:
        raise InvalidRequest("The fake encoder has no reference to be held against.")
    if golden and model.identity.name.split("/")[-1] != "bge-m3":
        raise ModelUnavailable(
            f"The golden scores are those of BAAI/bge-m3, and {model.identity.name!r} would run.",
            hint="Make its weights available, and remove the alias.",
        )
    tokenizer = Tokenizer.load(model)
    texts = input_texts(tokenizer)
    # One that would not start is reported like any other.
    default = load_resolved(settings.model_copy(update={"force_dtype": True}), model)
    exact = load_resolved(settings, model, dtype="fp32")
    reference = _reference(settings, model, tokenizer)
    compared: list[Compared] = []
    gaps: dict[str, float] = dict.fromkeys(_LEGS, 0.0)
    cosine = 1.0
    for names in _groups(texts, tokenizer):
        rows = [
            cut(ids, model.identity.max_tokens) for ids in tokenizer.encode([texts[name] for name in names], "plain")
        ]
        ours = exact.encode(rows, colbert_fp32=True)
        compared += _compare(names, rows, ours, reference, [texts[name] for name in names])
        theirs = default.encode(rows, colbert_fp32=True)
        gaps = {leg: largest((gaps[leg], gap)) for leg, gap in differences(ours, theirs).items()}
        cosine = float(np.minimum(cosine, (ours.dense * theirs.dense).sum(axis=1).min()))
    chosen = _chosen(default, exact, tokenizer, gaps, cosine)
    published = tuple(_golden(exact, tokenizer)) if golden else ()
    equal = all(largest((row.dense, row.sparse, row.colbert)) <= TOLERANCE for row in compared)
    return VerifyReport(
        model=model.identity,
        backend=exact.passport.backend,
        device=exact.passport.device,
        reference=reference.name,
        inputs=tuple(compared),
        chosen=chosen,
        golden=published,
        passed=equal
        and not (chosen.strict and chosen.missed)
        and all(abs(row.published - row.ours) <= GOLDEN_TOLERANCE for row in published),
    )


def input_texts(tokenizer: Tokenizer) -> dict[str, str]:
    """Name → text: empty, one word, special tokens spelled out, ten scripts, and up to the model's longest input."""
    limit = tokenizer.identity.max_tokens
    texts = {
        "empty": "",
        "word": "encoder",
        "white space": " \n\t ",
        "special": "a <unk> b </s> <pad> c <s> d <mask> e",
    }
    texts |= canary_texts()
    mixed = " ".join(canary_texts().values()) + " "
    long = mixed * (1 + (limit + 2) // len(tokenizer.offsets([mixed])[0]))
    spans = tokenizer.offsets([long])[0]
    # One longer than the model takes is cut by both sides.
    lengths = [length for length in _LENGTHS if length < limit] + [limit + 2]
    return texts | {f"{min(length, limit)} tokens": long[: spans[length - 3][1]] for length in lengths}


def _groups(texts: Mapping[str, str], tokenizer: Tokenizer) -> list[list[str]]:
    """Names of texts that share a batch: the short ones all, every long one alone, since the reference pads."""
    lengths = dict(zip(texts, map(len, tokenizer.encode(list(texts.values()), "plain")), strict=True))
    short = [name for name in texts if lengths[name] <= _SHORT]
    return [short, *([name] for name in texts if lengths[name] > _SHORT)]


def _compare(
    names: Sequence[str], rows: Sequence[Sequence[int]], ours: Legs, reference: _Reference, texts: Sequence[str]
) -> list[Compared]:
    theirs, ids = reference.encode(texts), reference.token_ids(texts)
    compared = []
    for at, name in enumerate(names):
        same = list(ids[at]) == list(rows[at])
        # Vectors of different tokens have nothing to compare.
        gaps = differences(row(ours, at), row(theirs, at)) if same else dict.fromkeys(_LEGS, float("inf"))
        compared.append(Compared(name=name, tokens=len(rows[at]), same_ids=same, **gaps))
    return compared


def cut(ids: Sequence[int], limit: int) -> list[int]:
    """Ids cut to `limit` as the reference does it: from the end, keeping `</s>`."""
    return list(ids) if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def _chosen(default: Encoder, exact: Encoder, tokenizer: Tokenizer, gaps: Mapping[str, float], cosine: float) -> Chosen:
    rows = canary_rows(tokenizer)
    found = numerics(*(encoder.encode(rows, colbert_fp32=True) for encoder in (default, exact)))
    dtype = default.passport.dtype
    tolerance = TOLERANCES.get(dtype)
    return Chosen(
        dtype=dtype,
        **gaps,
        dense_cosine_min=cosine,
        numerics=found,
        missed=tuple(tolerance.missed_by(found)) if tolerance else (),
        strict=bool(tolerance and tolerance.strict),
    )


def _reference(settings: Settings, model: ResolvedModel, tokenizer: Tokenizer) -> _Reference:
    if has_flag_embedding():
        return FlagReference(model.folder, model.identity.pooling, model.identity.max_tokens)
    plain = settings.model_copy(update={"device": "cpu"})
    encoder = load_resolved(plain, model, backend="transformers", dtype="fp32")
    return _TransformersReference(encoder, tokenizer)


class _TransformersReference:
    """Where FlagEmbedding is not installed: plain transformers in fp32 on the CPU, with our heads and tokeniser."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer) -> None:
        self.name = f"transformers {version('transformers')}"
        self._encoder, self._tokenizer = encoder, tokenizer

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        limit = self._encoder.identity.max_tokens
        return [cut(ids, limit) for ids in self._tokenizer.encode(texts, "plain")]

    def encode(self, texts: Sequence[str]) -> Legs:
        return self._encoder.encode(self.token_ids(texts), colbert_fp32=True)


def _golden(encoder: Encoder, tokenizer: Tokenizer) -> list[Golden]:
    """The model card's scores of two queries with two passages, and the term weights of the first query."""
    card = json.loads((files("trivet.encoder") / "data/bge_m3_golden.json").read_text(encoding="utf-8"))
    texts = [*card["queries"], *card["passages"]]
    legs = encoder.encode(tokenizer.encode(texts, "plain"), colbert_fp32=True)
    rows = []
    for at, (query, passage) in enumerate((q, p) for q in (0, 1) for p in (2, 3)):
        ours = _scores(legs, query, passage, card["weights_for_different_modes"])
        rows += [Golden(name=f"{leg} q{query}p{passage - 2}", published=card[leg][at], ours=ours[leg]) for leg in ours]
    weights = {str(tokenizer.backend.id_to_token(term)).lstrip("▁"): weight for term, weight in terms(legs, 0).items()}
    published: Mapping[str, float] = card["lexical_weights_query_0"]
    rows += [
        Golden(name=f"term {word!r}", published=value, ours=weights.get(word, 0.0)) for word, value in published.items()
    ]
    return rows


def _scores(legs: Legs, query: int, passage: int, weights: Sequence[float]) -> dict[str, float]:
    """The score of each leg, and FlagEmbedding's two weighted means of them (dense, sparse, ColBERT)."""
    scores = pair_scores(legs, query, passage)
    a, b, c = weights
    both = a * scores["dense"] + b * scores["sparse"]
    return scores | {
        "sparse+dense": both / (a + b),
        "colbert+sparse+dense": (both + c * scores["colbert"]) / (a + b + c),
    }

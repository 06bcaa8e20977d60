"""The language of a chunk, offline (py3langid), or None where it cannot be told."""

from __future__ import annotations

from functools import cache
from typing import Any

import regex

from trivet.errors import MissingDependency

#: Characters that are looked at.
_SAMPLE = 500
_LETTERS = regex.compile(r"\p{L}")
_DENSE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
#: Letters below which any answer is a guess; a letter of a dense script says as much as three others.
_MIN_LETTERS = 24
_DENSE_WORTH = 3
_MIN_PROBABILITY = 0.5


def language_of(text: str) -> str | None:
    """ISO 639-1 code. None for short text, code, tables of numbers: whatever no language is probable for."""
    sample = text[:_SAMPLE]
    dense = len(_DENSE.findall(sample))
    letters = len(_LETTERS.findall(sample)) - dense
    if letters + dense * _DENSE_WORTH < _MIN_LETTERS:
        return None
    language, probability = _identifier().classify(sample)
    return str(language) if probability >= _MIN_PROBABILITY else None


@cache
def _identifier() -> Any:
    try:
        from py3langid import langid
    except ImportError:
        raise MissingDependency(
            "Telling languages needs the package py3langid, which is not installed.",
            hint="Run: pip install 'trivet[prepare]'.",
        ) from None
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)

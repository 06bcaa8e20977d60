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
#: The languages of XLM-RoBERTa (Conneau et al. 2020, appendix A), which bge-m3 was made from. A language that the model
#: never saw is more likely a mistake about one that it did: dialects and pidgins draw text with much code in it.
_LANGUAGES = (
    "af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr hu hy id is it"
    " ja jv ka kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my nb ne nl no om or pa pl ps pt ro ru sa sd si sk sl so"
    " sq sr su sv sw ta te th tl tr ug uk ur uz vi xh yi zh"
)


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
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    known = set(_LANGUAGES.split())
    identifier.set_languages([language for language in identifier.nb_classes if language in known])
    return identifier


def load() -> None:
    """Load the model now (about a second), so that a process that forks does it once."""
    _identifier()

"""Extractors that work alongside the embedding: each says something of every chunk. The seam, and its registry.

What they say goes into the column `metadata` of the parts, under `NAME.KEY`. An extractor is one file with a pure
function of a chunk, and one line here; docs/http-api.md has how a collection asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module

from trivet.errors import InvalidRequest
from trivet.values.documents import Chunk

#: Texts by key; a key that does not apply to the chunk is left out.
Extract = Callable[[Chunk], Mapping[str, str]]

#: Name → module:function, imported only when it is asked for. Renaming one breaks collections that ask for it.
EXTRACTORS = {
    "language_extractor": "trivet.extractors.language:extract",
    "statistics_extractor": "trivet.extractors.statistics:extract",
}


def check_extractors(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once. Raises `InvalidRequest` for one that there is not."""
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in EXTRACTORS:
            raise InvalidRequest(f"No extractor is called {name[:80]!r}.", hint=f"Use {', '.join(EXTRACTORS)}.")
    return found


def extracted(names: Iterable[str], chunk: Chunk) -> list[tuple[str, str]]:
    """(`NAME.KEY`, text) of all that the extractors say of a chunk, in their order."""
    pairs = []
    for name in names:
        module, function = EXTRACTORS[name].split(":")
        extract: Extract = getattr(import_module(module), function)
        pairs += [(f"{name}.{key}", text) for key, text in extract(chunk).items()]
    return pairs


def by_extractor(metadata: Iterable[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """What extractors said, by name, out of a row's metadata."""
    found: dict[str, dict[str, str]] = {}
    for key, text in metadata:
        name, dot, rest = key.partition(".")
        if dot and name in EXTRACTORS:
            found.setdefault(name, {})[rest] = text
    return found

"""From a payload of any form to sources, by JSONPath (RFC 9535).

Whoever may create hooks writes the paths, and whoever may sign writes the payload; neither is to get more of the
server's time than the payload's size is worth. So a path has no functions (regular expressions among them), at most one
`..` and one filter, and no look at the whole payload from within a filter: then it visits each value once per level at
most.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import islice
from typing import Any

from jsonpath import JSONPathEnvironment
from jsonpath.exceptions import JSONPathError
from jsonpath.path import JSONPath
from pydantic import Field, field_validator

from trivet.errors import InvalidRequest, TrivetError
from trivet.hooks.values import Action, Delete, Hook, Ingest
from trivet.ids import check_object_id
from trivet.values import Frozen

_LONGEST = 200
_MOST_ITEMS = 20_000


class _Environment(JSONPathEnvironment):
    """RFC 9535 to the letter, without functions."""

    def setup_function_extensions(self) -> None:
        """None."""


_ENVIRONMENT = _Environment(strict=True, filter_caching=False)


@lru_cache(maxsize=1024)
def _compiled(path: str) -> JSONPath:
    found = _ENVIRONMENT.compile(path)
    if not isinstance(found, JSONPath):
        raise ValueError("it is more than one path")
    return found


def check_path(path: str) -> str:
    """The path as it is, or `ValueError`."""
    if len(path) > _LONGEST:
        raise ValueError(f"a path has at most {_LONGEST} characters")
    for token, most in (("..", 1), ("?", 1), ("$", 1)):
        if path.count(token) > most:
            raise ValueError(f"a path has {token!r} {most} time at most")
    try:
        _compiled(path)
    except (JSONPathError, RecursionError) as error:
        raise ValueError(f"{path!r} is no JSONPath: {str(error).splitlines()[0]}") from None
    return path


class Mapping(Frozen):
    """Where in a payload the sources are. Empty paths are not looked for."""

    #: In the payload: each match is one item.
    items: str = "$"
    #: In an item: the source's URL.
    url: str = "$.url"
    #: In an item: your own id of the object; where there is none, the URL names it.
    object_id: str = ""
    #: In an item: the URL that a renamed source had before.
    old_url: str = ""
    #: In an item: its media type.
    media_type: str = ""
    #: Name → path in an item: copied to every chunk.
    metadata: dict[str, str] = Field(default_factory=dict, max_length=50)
    #: In an item, or else in the payload: what has happened.
    event: str = ""
    #: What means that the source came or changed, with `*` for any characters; of others only `deletes` counts.
    ingests: tuple[str, ...] = Field(("*",), max_length=50)
    #: What means that the source went; looked at before `ingests`.
    deletes: tuple[str, ...] = Field(("*delete*", "*remove*"), max_length=50)

    @field_validator("items", "url", "object_id", "old_url", "media_type", "event")
    @classmethod
    def _paths(cls, path: str) -> str:
        return check_path(path) if path else path

    @field_validator("metadata")
    @classmethod
    def _named_paths(cls, paths: dict[str, str]) -> dict[str, str]:
        return {name: check_path(path) for name, path in paths.items()}

    def actions(self, hook: Hook, payload: Any) -> tuple[tuple[Action, ...], tuple[str, ...]]:
        """Actions, and sentences about what leads to none."""
        actions: list[Action] = []
        ignored: list[str] = []
        items = list(islice(self._found(self.items, payload), _MOST_ITEMS + 1))
        if len(items) > _MOST_ITEMS:
            raise InvalidRequest(f"The path {self.items!r} finds more than {_MOST_ITEMS:,} items.")
        if not items:
            ignored.append(f"Nothing is at {self.items}.")
        for number, item in enumerate(items):
            try:
                actions += self._of_item(hook, item, payload)
            except TrivetError as error:
                ignored.append(f"Item {number}: {error.message}")
        return tuple(actions), tuple(ignored)

    def _of_item(self, hook: Hook, item: Any, payload: Any) -> list[Action]:
        url, object_id = self._text(self.url, item), self._text(self.object_id, item)
        event = self._text(self.event, item) or self._text(self.event, payload)
        if not url and not object_id:
            raise InvalidRequest(f"Nothing is at {self.url}.")
        named = check_object_id(object_id) if object_id else hook.object_id(url)
        if self._means(event, self.deletes):
            return [Delete(named, url)]
        if event and not self._means(event, self.ingests):
            raise InvalidRequest(f"The event {event[:80]!r} means nothing to this hook.")
        if not url:
            raise InvalidRequest(f"Nothing is at {self.url}.")
        metadata = {name: value for name, path in self.metadata.items() for value in islice(self._found(path, item), 1)}
        made: list[Action] = [Ingest(url, named, metadata, self._text(self.media_type, item))]
        old = self._text(self.old_url, item)
        if old and hook.object_id(old) != named:
            made.insert(0, Delete(hook.object_id(old), old))
        return made

    @staticmethod
    def _found(path: str, value: Any) -> Iterator[Any]:
        # A path finds nothing in a bare value, but the value itself.
        if not isinstance(value, (dict, list)):
            return iter([value] if path == "$" else [])
        return (match.obj for match in _compiled(path).finditer(value))

    def _text(self, path: str, value: Any) -> str:
        found = next(self._found(path, value), None) if path else None
        return found if isinstance(found, str) else ""

    @staticmethod
    def _means(event: str, patterns: tuple[str, ...]) -> bool:
        return bool(event) and any(fnmatchcase(event.lower(), pattern.lower()) for pattern in patterns)

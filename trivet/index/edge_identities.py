"""What a search has to know of every candidate, kept in memory: to read it costs more than to find the candidate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from trivet.index import Space

#: Points that are remembered, about half a kilobyte each.
_MOST: Final = 65_536


class Identities:
    """Payloads of points with the fields `IDENTITY`, which never change while the point is there. Thread-safe."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._held: dict[Space, dict[str, Mapping[str, Any]]] = {}

    def of(self, space: Space) -> Mapping[str, Mapping[str, Any]]:
        """What is remembered of a space, by the ids of points."""
        return self._held.get(space, {})

    def keep(self, space: Space, payloads: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember these too; where that makes too many, these alone."""
        if sum(len(held) for held in self._held.values()) + len(payloads) > self._most:
            self._held = {}
        self._held.setdefault(space, {}).update(payloads)

    def forget(self, space: Space, ids: Collection[str]) -> None:
        """Points that are written anew."""
        held = self._held.get(space)
        for name in ids if held else ():
            held.pop(name, None)  # type: ignore[union-attr] # nothing is gone through where there is none

    def forget_all(self, space: Space) -> None:
        """A space that is dropped."""
        self._held.pop(space, None)

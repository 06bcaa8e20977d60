"""What was measured: one line of JSON each, written at once, so that a run that is broken off goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Records:
    """All records of a folder, oldest first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._all: list[Record] = []
        if path.is_file():
            self._all = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def add(self, kind: str, **fields: Any) -> None:
        """Keep one."""
        record = {"kind": kind, **fields}
        self._all.append(record)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def find(self, kind: str, **fields: Any) -> list[Record]:
        """All of this kind with these fields."""
        return [record for record in self._of(kind) if all(record.get(key) == fields[key] for key in fields)]

    def last(self, kind: str, **fields: Any) -> Record | None:
        """The newest of them."""
        found = self.find(kind, **fields)
        return found[-1] if found else None

    def forget(self, which: Callable[[Record], bool]) -> None:
        """Drop those that are to be measured again."""
        self._all = [record for record in self._all if not which(record)]
        draft = self._path.with_suffix(".tmp")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text("".join(json.dumps(record) + "\n" for record in self._all), encoding="utf-8")
        draft.replace(self._path)

    def write_results(self, path: Path) -> None:
        """All of them as one JSON document."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._all, indent=1) + "\n", encoding="utf-8")

    def _of(self, kind: str) -> Iterator[Record]:
        return (record for record in self._all if record["kind"] == kind)

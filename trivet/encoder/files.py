"""Facts about large files that are costly to compute, kept in the state folder so that start-up stays quick."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4


def sha256_cached(path: Path, state_dir: Path) -> str:
    """Hex SHA-256 of a file; read again only when its path, size or modification time has changed."""
    found = path.stat()
    key = f"{path.absolute()}|{found.st_mtime_ns}|{found.st_size}"
    notes = Notes(state_dir / "checksums.json")
    known = notes.get(key)
    if isinstance(known, str):
        return known
    with path.open("rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    notes.put(key, value)
    return value


def checksums(folder: Path, paths: Iterable[Path], state_dir: Path) -> dict[str, str]:
    """Path relative to `folder` → hex SHA-256, of those that exist."""
    return {
        path.relative_to(folder).as_posix(): sha256_cached(path, state_dir) for path in sorted(paths) if path.is_file()
    }


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A file to write that takes the place of `target` once it is whole, and is gone if it does not. Raises `OSError`.

    No other writer has its name, not even one with the same process id in another container over the same folder.
    """
    draft = target.with_suffix(f".{uuid4().hex}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield draft
        draft.replace(target)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


class Notes:
    """A small JSON object on disk. Of two writers at once one may lose its note, which is then computed again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> Any:
        """The value, or None: not noted, or the file cannot be read."""
        return self._read().get(key)

    def put(self, key: str, value: Any) -> None:
        """Note a value; a folder that cannot be written is no error, the note is just not kept."""
        with suppress(OSError), replacing(self._path) as draft:
            draft.write_text(json.dumps(self._read() | {key: value}, indent=0), encoding="utf-8")

    def _read(self) -> dict[str, Any]:
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

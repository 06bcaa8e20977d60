"""The folder of the embedded index: who holds it, and what a kill has left in it."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

from trivet.errors import IndexBusy


def hold(path: Path) -> Any:
    """The lock, until it is closed. Raises `IndexBusy` where another process has it."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise IndexBusy(
            f"The index in {path.parent} is open in another process{f' ({holder})' if holder else ''}."
        ) from None
    file.truncate(0)
    file.write(f"pid {os.getpid()}")
    file.flush()
    return file


def tidy(folder: Path) -> None:
    """What a kill has left half done; a shard that was about to be replaced comes back."""
    for old in folder.glob("*/*/.old-*"):
        path = old.with_name(old.name.removeprefix(".old-"))
        if not path.exists():
            old.rename(path)
    for kind in ("old", "copy", "new", "gone"):
        for left in folder.glob(f"*/*/.{kind}-*"):
            shutil.rmtree(left, ignore_errors=True)

"""Where the root folders (`workers/`, `tasks/`, `producers/`) lie: a wheel holds the library alone."""

from __future__ import annotations

from pathlib import Path

import trivet
from trivet.errors import MissingDependency


def find_root(start: Path | None = None) -> Path:
    """The folder that holds `workers/main.py`: beside the library, or else `start` (the working folder) or above it.

    Raises `MissingDependency` where there is none.
    """
    here = (start or Path.cwd()).absolute()
    for folder in (Path(trivet.__file__).absolute().parent.parent, here, *here.parents):
        if (folder / "workers" / "main.py").is_file() and (folder / "tasks").is_dir():
            return folder
    raise MissingDependency(
        "The installed package holds the library alone, and the workers are in the repository's folder workers/.",
        hint="Run this in a checkout of the repository, or use the container image.",
    )

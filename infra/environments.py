"""Virtual environments of programs that Trivet is tried with, and nothing of Trivet in them."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from trivet.cli.console import say
from trivet.errors import StartFailed


def python_with(home: Path, packages: Sequence[str]) -> Path:
    """The Python that has these; it is made where it is not there. Raises `StartFailed` where they cannot be had."""
    python, mark = home / "bin" / "python", home / ".made"
    if mark.is_file() and mark.read_text() == "\n".join(packages):
        return python
    say(f"Installing {', '.join(packages)} into {home}")
    venv.create(home, with_pip=True, clear=True)
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StartFailed(
            f"{', '.join(packages)} cannot be installed: {done.stderr.strip()[-500:]}", hint=f"Python: {sys.version}"
        )
    mark.write_text("\n".join(packages))
    return python

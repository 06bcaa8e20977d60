"""A virtual environment that holds the published clients, and nothing of Trivet."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from trivet.cli.console import say
from trivet.errors import StartFailed

PACKAGES = ("mixpeek==1.3.783", "langchain-mixpeek==0.4.3", "mixpeek-mcp==0.1.1")


def python_of(folder: Path) -> Path:
    """Its Python; it is made where it is not there. Raises `StartFailed` where the packages cannot be had."""
    home = folder / "venv"
    python, mark = home / "bin" / "python", home / ".made"
    if mark.is_file() and mark.read_text() == "\n".join(PACKAGES):
        return python
    say(f"Installing {', '.join(PACKAGES)} into {home}")
    venv.create(home, with_pip=True, clear=True)
    # The MCP server's own requirement on an SDK is met by the stand-in that it brings; nothing else is installed.
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StartFailed(
            f"The clients cannot be installed: {done.stderr.strip()[-500:]}", hint=f"Python: {sys.version}"
        )
    mark.write_text("\n".join(PACKAGES))
    return python

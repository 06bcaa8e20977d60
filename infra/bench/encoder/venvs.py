"""A Python environment of its own for every peer whose packages would change ours.

Each reads our `.venv` behind its own packages, so that torch is there once; what a peer pins otherwise is installed
in front of it. `peers/NAME.txt` pins what is installed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

_PEERS = Path(__file__).parent / "peers"
#: The environment that this process runs in.
OURS = ""


class NotInstalled(Exception):
    """A peer's packages cannot be had; the message is pip's last word."""


def python_of(venv: str, root: Path) -> Path:
    """The interpreter of environment `venv`, made and filled first where it is not. Raises `NotInstalled`."""
    if venv == OURS:
        return Path(sys.executable)
    folder = root / venv
    python, mark = folder / "bin" / "python", folder / ".installed"
    wanted = pins(venv)
    if mark.is_file() and mark.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)  # noqa: S603 - our own words
    ours = sysconfig.get_path("purelib")
    theirs = folder / Path(ours).relative_to(sys.prefix)
    (theirs / "shared.pth").write_text(f"{ours}\n")
    options = ["--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-compile"]
    done = subprocess.run(  # noqa: S603 - our own list of packages
        [python, "-m", "pip", *options, "--requirement", _PEERS / f"{venv}.txt"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise NotInstalled(errors[-1].removeprefix("ERROR: "))
    mark.write_text(wanted)
    return python


def pins(venv: str) -> str:
    """What `peers/NAME.txt` says and a digest of what lies behind it."""
    if venv == OURS:
        return ""
    text = (_PEERS / f"{venv}.txt").read_text(encoding="utf-8")
    shared = (_PEERS.parents[3] / "constraints.txt").read_bytes()
    return f"{text}# {hashlib.sha256(shared).hexdigest()[:16]}\n"

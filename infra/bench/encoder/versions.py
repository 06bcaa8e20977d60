"""What a figure is a figure of: change it, and the figure is measured anew."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from infra.bench.encoder.engines import Spec
from infra.bench.encoder.venvs import pins

_ROOT = Path(__file__).parents[3]
#: Compiles or computes what the packed backend runs.
_ENCODER = _ROOT / "trivet" / "encoder"


@cache
def version_of(spec: Spec) -> str:
    """Digest of an engine's own module, the packages that it runs in, and for Trivet the encoder's source."""
    parts = [Path(__file__).parent / "engines" / f"{spec.module}.py", _ROOT / "constraints.txt"]
    if spec.module == "packed":
        parts += sorted(path for path in _ENCODER.rglob("*") if path.suffix in (".py", ".c", ".cpp", ".h"))
    found = hashlib.sha256(f"{spec.variant} {pins(spec.venv)}".encode())
    for path in parts:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]

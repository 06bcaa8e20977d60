"""The published clients of others go through their flows; `make compat` runs the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_published_clients_of_others_run_with_nothing_changed_but_their_base_url() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.compat"],
        cwd=ROOT,
        env={**os.environ, "TRIVET_MODEL_ALIASES": '{"BAAI/bge-m3": "embedded"}'},
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""What the children of a prefork worker share with it."""

from __future__ import annotations

import subprocess
import sys

from tests.support.fleet import ROOT

_FORK = """
import gc, os, sys, psutil
from celery.signals import worker_before_create_process
from workers.main import _follow_process_life

loaded = [[number] for number in range(400_000)]
_follow_process_life(solo=False)
if sys.argv[1] == "told":
    worker_before_create_process.send(sender=None)
if os.fork() == 0:
    before = psutil.Process().memory_full_info().uss
    gc.collect()
    print(psutil.Process().memory_full_info().uss - before, flush=True)
    os._exit(0)
os.wait()
"""


def copied(told: str) -> int:
    """Bytes that a forked child no longer shares after its first full collection."""
    argv = [sys.executable, "-c", _FORK, told]
    return int(subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout)


def test_a_collection_in_a_child_copies_nothing_of_what_was_loaded_before_the_fork() -> None:
    assert copied("told") < copied("untold") / 5

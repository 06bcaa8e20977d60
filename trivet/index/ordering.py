"""Builds the graphs of a shard's copy, in a process of its own: `python -m trivet.index.ordering FOLDER`.

Qdrant Edge does so while it holds the interpreter's lock, minutes long for 100,000 chunks; in the process that owns the
index no search would be answered meanwhile. It ends with the process that has started it.
"""

from __future__ import annotations

import ctypes
import signal
import sys

import qdrant_edge as qe

#: prctl(2).
_PR_SET_PDEATHSIG = 1


def main(folder: str) -> None:
    """Order the shard in a folder that nobody else has open."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    shard = qe.EdgeShard.load(folder)
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    main(sys.argv[1])

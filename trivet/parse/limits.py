"""What the operating system can do to hold a process down. Linux has all of it; elsewhere it is best effort."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def isolate() -> bool:
    """Give up the network, all capabilities and the right to gain any, for this process and its children.

    True if the process has no network left. Where the kernel forbids unprivileged namespaces, the rest still holds.
    """
    libc = _libc()
    if libc is None:
        return False
    uid, gid = os.geteuid(), os.getegid()
    alone: bool = libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
    if alone:
        # Keep our own name inside, so that files stay ours.
        with contextlib.suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny", "ascii")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", "ascii")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", "ascii")
    else:
        alone = libc.unshare(_CLONE_NEWNET) == 0
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return alone


def confine(memory_bytes: int, cpu_seconds: int, file_bytes: int) -> None:
    """Limit this process from now on: memory beyond what it has, CPU time, file size, no new processes or threads."""
    if (libc := _libc()) is not None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _limit(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)
    _limit(resource.RLIMIT_FSIZE, file_bytes, file_bytes)
    _limit(resource.RLIMIT_CORE, 0, 0)
    if (baseline := _address_space()) is not None:
        _limit(resource.RLIMIT_AS, baseline + memory_bytes, baseline + memory_bytes)
    _limit(resource.RLIMIT_NPROC, 0, 0)


def _limit(kind: int, soft: int, hard: int) -> None:
    """Set a limit as far as the present hard one allows."""
    _, present = resource.getrlimit(kind)
    if present != resource.RLIM_INFINITY:
        soft, hard = min(soft, present), min(hard, present)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (soft, hard))


def _address_space() -> int | None:
    """Bytes of address space that this process uses, or None where that cannot be read."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except (OSError, ValueError):
        return None
    return pages * resource.getpagesize()

"""Memory of a process as the kernel counts it."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterable
from pathlib import Path

_PAGE = mmap.PAGESIZE


def private_mib(pid: int) -> int:
    """Anonymous resident memory (`RssAnon`): what mapped files, which processes share, are no part of."""
    return _status(pid, "RssAnon")


def peak_mib(pid: int) -> int:
    """Highest resident memory so far (`VmHWM`), mapped files included."""
    return _status(pid, "VmHWM")


def available_mib() -> int:
    """What new processes can have (`MemAvailable`)."""
    return _field(Path("/proc/meminfo"), "MemAvailable")


def _status(pid: int, name: str) -> int:
    return _field(Path(f"/proc/{pid}/status"), name)


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) >> 10
    return 0


class Watch:
    """Samples a process's private memory in a thread; a peak shorter than `seconds` may be missed."""

    def __init__(self, pid: int, seconds: float = 0.05) -> None:
        self.peak = 0
        self._pid, self._seconds = pid, seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._end.wait(self._seconds):
            try:
                self.peak = max(self.peak, private_mib(self._pid))
            except OSError:
                return  # it has ended

    def close(self) -> None:
        """Stop sampling."""
        self._end.set()
        self._thread.join()


def drop_from_cache(paths: Iterable[Path]) -> float:
    """Ask the kernel to forget these files' pages; returns the share of them that is still in memory (0 is cold)."""
    pages = held = 0
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        found = _resident(path)
        pages, held = pages + found[0], held + found[1]
    return held / pages if pages else 0.0


def _resident(path: Path) -> tuple[int, int]:
    """Pages of a file, and those in the page cache."""
    size = path.stat().st_size
    if not size:
        return 0, 0
    count = -(-size // _PAGE)
    seen = (ctypes.c_ubyte * count)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    with path.open("rb") as file:
        at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    try:
        if libc.mincore(at, size, seen):
            raise OSError(ctypes.get_errno(), f"mincore of {path}")
    finally:
        libc.munmap(at, size)
    return count, sum(byte & 1 for byte in bytes(seen))

"""What of this machine a process may use: cores and memory, within the limits of its container. Loads nothing heavy."""

from __future__ import annotations

import ctypes
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")
#: cgroup v1 says "none" with the largest page count; nothing has an exbibyte.
_NO_LIMIT = 1 << 60


def cores(root: Path = _ROOT) -> int:
    """Cores that this process may keep busy: those it is bound to, and not more than its container's CPU quota.

    A quota of half a core is one. `root` is where /proc and /sys are.
    """
    bound = len(os.sched_getaffinity(0))
    return max(1, min([bound, *(math.ceil(quota) for quota in _quotas(root))]))


def free_memory(root: Path = _ROOT) -> int:
    """Bytes that new processes can have: what the machine has left, and not more than the container's limit leaves."""
    lines = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines())
    return max(0, min([int(lines["MemAvailable"].split()[0]) * 1024, *_memory_left(root)]))


def gpus(root: Path = _ROOT, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Read from there, or else from /dev, where one that is reached in another way than /dev/nvidia0 and so on, as under
    WSL, is not found.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name for part in visible.split(",") if (name := part.strip()) and name != "-1")
    numbers = (path.name.removeprefix("nvidia") for path in root.glob("dev/nvidia[0-9]*"))
    return tuple(map(str, sorted(int(number) for number in numbers if number.isdigit())))


def return_free_memory() -> None:
    """Give the system back what this process has freed, which glibc keeps: after what takes much and comes seldom, as
    the 260 MB of a tokenizer that is loaded. Elsewhere nothing.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def processor(root: Path = _ROOT) -> str:
    """The processor by its name and numbers, or the architecture where the system tells nothing else."""
    wanted = ("model name", "cpu family", "model", "stepping")
    found: dict[str, str] = {}
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in wanted:
            found.setdefault(name.strip(), value.strip())
    if "model name" not in found:
        return platform.machine()
    return f"{found['model name']} ({'/'.join(found.get(name, '') for name in wanted[1:])})"


def _quotas(root: Path) -> Iterator[float]:
    """Cores, of every group that this process is in."""
    for group in _groups(root, ""):
        quota, period = [*_words(group / "cpu.max"), "", ""][:2]
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
    for group in _groups(root, "cpu"):
        period_us, quota_us = _number(group / "cpu.cfs_period_us"), _number(group / "cpu.cfs_quota_us")
        if period_us and quota_us:
            yield quota_us / period_us


def _memory_left(root: Path) -> Iterator[int]:
    """Bytes that each limit leaves. What files were read lately counts as used there, though it makes room for others:
    the mapped weights of a model would seem to fill a container.
    """
    names = (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for controller, limit_name, used_name, cached_name in names:
        for group in _groups(root, controller):
            limit = _number(group / limit_name)
            if limit and limit < _NO_LIMIT:
                cached = dict(line.split(" ", 1) for line in _lines(group / "memory.stat")).get(cached_name, "0")
                yield limit - max(0, (_number(group / used_name) or 0) - int(cached))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folder of this process's group and of all above it; version 2 has the controller ''.

    In a container the path may be the host's, which is not there: then its own group is the topmost folder.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            top = root / "sys/fs/cgroup" / controller
            own = top / path.lstrip("/")
            yield from (group for group in (own, *own.parents) if group.is_relative_to(top) and group.is_dir())


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _number(path: Path) -> int | None:
    """None where nothing is said, or that there is no limit (-1, max)."""
    text = "".join(_words(path))
    return int(text) if text.isdigit() else None

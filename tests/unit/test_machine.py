"""What a process may use, within the limits of its container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trivet import machine

GIB = 1 << 30


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def root(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemFree: 1 kB\nMemAvailable:   16777216 kB\n", **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_without_groups_it_is_the_cores_that_the_process_is_bound_to_and_the_memory_that_is_left(
    tmp_path: Path,
) -> None:
    here = root(tmp_path, {})
    assert (machine.cores(here), machine.free_memory(here)) == (8, 16 * GIB)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("6400000 100000", 8)],
)
def test_a_quota_of_version_2_limits_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    here = root(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": quota + "\n"})
    assert machine.cores(here) == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000", 3), ("-1", 8)])
def test_a_quota_of_version_1_limits_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/docker/abc\n0::/\n",
        # The path is the host's; in the container its own group is on top.
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota,
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert machine.cores(root(tmp_path, files)) == cores


def test_the_smallest_limit_of_all_groups_above_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pods/one\n",
        "sys/fs/cgroup/pods/cpu.max": "300000 100000",
        "sys/fs/cgroup/pods/one/cpu.max": "max 100000",
        "sys/fs/cgroup/pods/memory.max": str(4 * GIB),
        "sys/fs/cgroup/pods/memory.current": str(GIB),
        "sys/fs/cgroup/pods/one/memory.max": "max",
    }
    here = root(tmp_path, files)
    assert (machine.cores(here), machine.free_memory(here)) == (3, 3 * GIB)


def test_a_limit_on_memory_of_version_1_counts_unless_it_is_none(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/a\n",
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": str(2 * GIB),
        "sys/fs/cgroup/memory/a/memory.usage_in_bytes": str(3 * GIB),
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    }
    assert machine.free_memory(root(tmp_path, files)) == 0


@pytest.mark.parametrize(
    ("group", "limit", "used", "cached"),
    [
        ("0::/a", "memory.max", "memory.current", "inactive_file"),
        ("4:memory:/a", "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_files_that_a_container_has_read_leave_room_for_others(
    tmp_path: Path, group: str, limit: str, used: str, cached: str
) -> None:
    files = {
        limit: str(4 * GIB),
        used: str(4 * GIB),
        f"{Path(limit).parent}/memory.stat": f"anon 1\n{cached} {3 * GIB}\n",
    }
    here = root(
        tmp_path, {"proc/self/cgroup": group, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}
    )
    assert machine.free_memory(here) == 3 * GIB


def test_the_processor_has_a_name(tmp_path: Path) -> None:
    text = "processor: 0\ncpu family : 25\nmodel\t: 17\nmodel name\t: EPYC\nstepping: 1\n\nmodel name: other\n"
    assert machine.processor(root(tmp_path, {"proc/cpuinfo": text})) == "EPYC (25/17/1)"
    assert machine.processor(tmp_path / "nowhere") == os.uname().machine


def test_this_machine_is_read() -> None:
    assert machine.cores() in range(1, 9)
    assert machine.free_memory() > 0


def test_gpus_are_those_of_the_environment_or_else_those_that_have_a_device(tmp_path: Path) -> None:
    here = root(tmp_path, {"dev/nvidia10": "", "dev/nvidia0": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""})
    assert machine.gpus(here, {}) == ("0", "10")
    assert machine.gpus(here, {"CUDA_VISIBLE_DEVICES": "1, GPU-8932f937"}) == ("1", "GPU-8932f937")
    assert machine.gpus(here, {"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert machine.gpus(here, {"CUDA_VISIBLE_DEVICES": "-1"}) == ()

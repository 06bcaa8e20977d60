"""A whole Trivet on one machine: servers and workers as processes, all of them or none.

    status = up(settings)               starts what is missing, returns when it works; runs on after this process
    with running(settings) as here:     the same, for the length of a block: nothing is left after it
    down(settings)                      ends it
    status(settings)                    what runs
    connected_settings(settings)        settings that point at what runs in the state folder

One supervisor process per state folder is the parent of all servers and workers. The kernel ends them when it
dies, however it dies; it ends itself when its caller dies before `up` has returned.
"""

from __future__ import annotations

from trivet.supervisor.control import down, running, up
from trivet.supervisor.endpoints import connected_settings
from trivet.supervisor.roots import find_root
from trivet.supervisor.state import Phase, ProcessStatus, Status, status
from trivet.supervisor.workers import WorkerSpec, worker_specs

__all__ = [
    "Phase",
    "ProcessStatus",
    "Status",
    "WorkerSpec",
    "connected_settings",
    "down",
    "find_root",
    "running",
    "status",
    "up",
    "worker_specs",
]

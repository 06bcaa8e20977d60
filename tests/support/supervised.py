"""A process that calls `up`, to be interrupted; and a look at what a state folder's system left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trivet.settings import Settings
from trivet.supervisor import WorkerSpec, up

ROOT = Path(__file__).parent.parent.parent


def shell(name: str, script: str, *, ready: bool = False) -> WorkerSpec:
    """A worker that is a shell script."""
    return WorkerSpec(name, ("/bin/sh", "-c", script), ready=ready)


def processes_of(folder: Path) -> dict[int, str]:
    """All processes that belong to a state folder: by working folder, arguments or environment."""
    needle = os.fsencode(folder)
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes()
            owned = (
                needle in arguments
                or needle in (entry / "environ").read_bytes()
                or (entry / "cwd").readlink().is_relative_to(folder)
            )
        except OSError:
            continue
        if owned and arguments:
            found[int(entry.name)] = arguments.replace(b"\0", b" ").decode()[:200]
    return found


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait for something that must come about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come about: {what}"
        time.sleep(0.02)


def wait_until_gone(folder: Path) -> None:
    """Nothing of the state folder's system runs, at once or as soon as the kernel has delivered its signals."""
    wait_until(lambda: not processes_of(folder), f"an end of {processes_of(folder)}", 20.0)


@contextmanager
def caller(
    env: dict[str, str], *, detach: bool, workers: tuple[WorkerSpec, ...], **settings: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process that calls `up` and prints each step, `up`, and at its end `left` with its phase."""
    told = json.dumps(
        {
            "detach": detach,
            "settings": settings,
            "workers": [{"name": w.name, "argv": w.argv, "ready": w.ready} for w in workers],
        }
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.supervised", told],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], line: str) -> None:
    """Read what a caller prints up to this line."""
    assert process.stdout is not None
    seen = []
    for said in process.stdout:
        seen.append(said)
        if said.strip() == line:
            return
    raise AssertionError(f"{line!r} was not said, but: {''.join(seen)}")


def main() -> None:
    told = json.loads(sys.argv[1])
    workers = [WorkerSpec(w["name"], tuple(w["argv"]), ready=w["ready"]) for w in told["workers"]]
    settings = Settings(**told["settings"])

    def progress(step: str) -> None:
        print(step, flush=True)

    try:
        left = up(settings, detach=told["detach"], workers=workers, progress=progress)
    except KeyboardInterrupt:
        sys.exit(130)
    print("left", left.phase, flush=True)


if __name__ == "__main__":
    main()

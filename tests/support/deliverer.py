"""`python -m tests.support.deliverer`: a process that delivers with the settings of its environment, faults and all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.delivery.loop import deliver_forever
from trivet.faults import arm_all
from trivet.settings import Settings
from trivet.supervisor.workers import environment

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def delivering(settings: Settings) -> Iterator[None]:
    """Deliver in a thread of this process until the block ends."""
    over = threading.Event()
    thread = threading.Thread(target=deliver_forever, args=(settings, over.is_set))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
        assert not thread.is_alive()


def start(settings: Settings, faults: str = "") -> subprocess.Popen[bytes]:
    """Deliver in a process of its own."""
    with (settings.state_dir / "deliverer.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.deliverer"],
            cwd=ROOT,
            env=environment(settings.model_copy(update={"faults": faults}), os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def main() -> None:
    """Until SIGTERM."""
    settings = Settings.load()
    arm_all(settings.faults)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    deliver_forever(settings, stopped.is_set)


if __name__ == "__main__":
    main()

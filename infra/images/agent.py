"""Inside a container: starts services, does what the trial on the host says, and tells what came of it.

Its source is handed to the image's own Python (`python -c SOURCE URL SERVICES /`), and needs nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from typing import Any

#: Where nobody may write: an image that holds its own code open to change is not read-only in anybody's sense.
FIXED = ("/", "/app", "/etc", "/opt/venv", "/usr", "/models", "/bin")


def main(url: str, services: list[list[str]], root: str) -> None:
    """Start the services, do what is asked until told to stop, and end them: also where nobody asks any more."""
    running = [subprocess.Popen(argv) for argv in services]
    try:
        told: dict[str, Any] = {
            "uid": os.getuid(),
            "writable": [place for place in FIXED if os.access(place, os.W_OK)],
            # Of whatever size, and not what an image is about.
            "bytes": size(root) - size(f"{root}/models"),
        }
        while (command := tell(url, told | {"ended": [process.poll() for process in running]})) != ["stop"]:
            told = {}
            if command:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                told = {"status": done.returncode, "out": done.stdout, "err": done.stderr}
            time.sleep(0.2)
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        ends = [process.wait() for process in running]
    tell(url, {"ends": ends})


def tell(url: str, told: dict[str, Any]) -> list[str]:
    """What the trial answers: a command, or nothing."""
    request = urllib.request.Request(url, json.dumps(told).encode())
    with urllib.request.urlopen(request, timeout=60) as response:
        command: list[str] = json.loads(response.read())
    return command


def size(root: str) -> int:
    """Bytes of all files of the file system that holds `root`, as a disk has them."""
    device, total = looked_at(root)[0], 0
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if looked_at(f"{folder}/{name}")[0] == device]
        total += sum(looked_at(f"{folder}/{name}")[1] for name in files)
    return total


def looked_at(path: str) -> tuple[int, int]:
    """Device and bytes of a path; -1 and 0 of one that is gone."""
    try:
        found = os.lstat(path)
    except OSError:
        return -1, 0
    return found.st_dev, 512 * found.st_blocks


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3])

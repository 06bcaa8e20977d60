"""A client in a process of its own: python -m infra.faults.feed PLACE FIRST TASKS ANSWERS

Gives documents FIRST to TASKS in, and writes a line `NUMBER TASK` to the file ANSWERS for each that was accepted.
"""

from __future__ import annotations

import sys
from pathlib import Path

from infra.faults.feeder import ingest
from infra.faults.site import Site
from trivet.client import Trivet
from trivet.settings import Settings


def main(place: str, first: int, tasks: int, answers: Path) -> None:
    """Until done or killed."""
    client, site = Trivet(settings=Settings.load()), Site(place)
    with answers.open("a", buffering=1) as file:
        for number in range(first, tasks):
            file.write(f"{number} {ingest(client, site, number)}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

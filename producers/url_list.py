"""Enqueue every URL of a list: one per line, from a file or standard input; `#` begins a comment.

    python -m producers.url_list FILE --collection C [--lane bulk] [--run NAME]

With `--run` a repeated call with the same list and name enqueues nothing twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trivet import Trivet
from trivet.errors import InvalidRequest, TrivetError
from trivet.ids import digest
from trivet.names import Lane


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of one line: a task id, or why there is none."""

    line: int
    task_id: str = ""
    error: str = ""


def urls(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """(line number, URL) of each line that has one."""
    for number, line in enumerate(lines, 1):
        url = line.strip()
        if url and not url.startswith("#"):
            yield number, url


def enqueue(
    client: Trivet, lines: Iterable[str], collection: str, *, lane: Lane = Lane.BULK, run: str = ""
) -> Iterator[Enqueued]:
    """Enqueue the URLs of the lines in order. A line that is no URL is reported, and the others go on.

    Raises what concerns all of them: `UnknownCollection`, `LedgerUnavailable`.
    """
    for number, url in urls(lines):
        key = f"{run}:{digest(url, 32)}" if run else None
        try:
            task = client.ingest(url, collection=collection, lane=lane, idempotency_key=key)
        except InvalidRequest as error:
            yield Enqueued(number, error=str(error))
        else:
            yield Enqueued(number, task_id=task.task_id)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a task id per line; exit status 1 if any line was refused, 3 if something needed is not there."""
    parser = argparse.ArgumentParser(prog="producers.url_list", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "file", type=argparse.FileType(encoding="utf-8"), help="a file of URLs, or - for standard input"
    )
    parser.add_argument("--collection", required=True)
    parser.add_argument("--namespace", default=None)
    parser.add_argument("--lane", type=Lane, choices=list(Lane), default=Lane.BULK)
    parser.add_argument("--run", default="", help="name under which a URL is enqueued once in 24 hours")
    options = parser.parse_args(arguments)
    refused = 0
    try:
        client = Trivet(namespace=options.namespace)
        with options.file as lines:
            for done in enqueue(client, lines, options.collection, lane=options.lane, run=options.run):
                refused += bool(done.error)
                if done.error:
                    print(f"line {done.line}: {done.error}", file=sys.stderr)  # noqa: T201 - a command's output
                else:
                    print(done.task_id)  # noqa: T201 - a command's output
    except TrivetError as error:
        print(f"url_list: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 3 if error.transient else 2
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())

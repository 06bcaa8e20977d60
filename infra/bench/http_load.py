"""`python -m infra.bench.http_load URL PATH KEY CONNECTIONS SECONDS [SOURCES]`: ingest requests, as many as will go.

A client that costs as little as it can, since it shares the cores with what it measures: bytes made beforehand, one
connection per line of work, answers read by their length. Says as JSON on the standard output what came of it. A
connection that breaks is opened again: the server may be killed meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_TASK = re.compile(rb'"task_id":"(task_[0-9a-f]+)"')
_PATIENCE = 60.0


@dataclass
class Load:
    """What came of the requests so far."""

    seconds: list[float] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    #: Answers that were no 202.
    refused: int = 0
    #: Requests without an answer: their client asks again, with the same idempotency key if it is wise.
    cut_off: int = 0


async def run(url: str, path: str, key: str, connections: int, seconds: float, sources: int) -> dict[str, object]:
    """Requests on so many connections for so long."""
    load = Load()
    began = time.perf_counter()
    until = began + seconds
    place = urlsplit(url)
    assert place.hostname
    assert place.port
    lines = [_line(load, (place.hostname, place.port), path, key, until, sources) for _ in range(connections)]
    await asyncio.gather(*lines)
    return {
        "wall": time.perf_counter() - began,
        "seconds": load.seconds,
        "accepted": load.accepted,
        "refused": load.refused,
        "cut_off": load.cut_off,
    }


async def _line(load: Load, place: tuple[str, int], path: str, key: str, until: float, sources: int) -> None:
    while time.perf_counter() < until:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(*place)
            try:
                while time.perf_counter() < until:
                    await _ask(load, reader, writer, _request(place, path, key, sources))
            except (OSError, asyncio.IncompleteReadError):
                load.cut_off += 1
            finally:
                writer.close()
            continue
        # Nobody listens: the server is on its way.
        await asyncio.sleep(0.05)


async def _ask(load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    began = time.perf_counter()
    writer.write(request)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _PATIENCE)
    found = _LENGTH.search(head)
    body = await reader.readexactly(int(found[1]) if found else 0)
    load.seconds.append(time.perf_counter() - began)
    if head.startswith(b"HTTP/1.1 202"):
        load.accepted += [task.decode() for task in _TASK.findall(body)]
    else:
        load.refused += 1


def _request(place: tuple[str, int], path: str, key: str, sources: int) -> bytes:
    given = [{"url": f"https://example.com/{uuid.uuid4().hex}.pdf"} for _ in range(sources)]
    body = json.dumps({"source": given[0]} if sources == 1 else {"sources": given}).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {place[0]}:{place[1]}",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


if __name__ == "__main__":
    url, path, key, connections, seconds, *more = sys.argv[1:]
    found = asyncio.run(run(url, path, key, int(connections), float(seconds), int(more[0]) if more else 1))
    json.dump(found, sys.stdout)

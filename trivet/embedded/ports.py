"""Free ports on the loopback address, chosen once and remembered in the state folder."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

from trivet.errors import StartFailed

HOST = "127.0.0.1"
#: Below the range from which the kernel takes ports of outgoing connections, also with 10000 added (SeaweedFS's
#: gRPC port), so that a port chosen free is still free a moment later.
LOWEST, HIGHEST = 11000, 22000
GRPC_OFFSET = 10000


def is_free(port: int) -> bool:
    """Whether nothing listens on the port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose(count: int, rng: random.Random, *, pairs: bool = False) -> tuple[int, ...]:
    """`count` different free ports; with `pairs` each one's port + 10000 is free too."""
    chosen: list[int] = []
    for _ in range(1000):
        port = rng.randrange(LOWEST, HIGHEST)
        if port not in chosen and is_free(port) and (not pairs or is_free(port + GRPC_OFFSET)):
            chosen.append(port)
            if len(chosen) == count:
                return tuple(chosen)
    raise StartFailed(f"No {count} free ports between {LOWEST} and {HIGHEST} on {HOST}.")


def remembered(path: Path, count: int, rng: random.Random, *, pairs: bool = False) -> tuple[int, ...]:
    """The ports in the file where they are still free, else new ones, which are then remembered."""
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        known = None
    if (
        isinstance(known, list)
        and len(known) == count
        and all(isinstance(port, int) and 0 < port < 65536 - GRPC_OFFSET for port in known)
        and all(is_free(port) and (not pairs or is_free(port + GRPC_OFFSET)) for port in known)
    ):
        return tuple(known)
    ports = choose(count, rng, pairs=pairs)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ports), "utf-8")
    return ports

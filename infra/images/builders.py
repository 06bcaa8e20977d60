"""What builds an image, and runs a command in it on this machine's network."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trivet.errors import MissingDependency, StartFailed

#: How the containers are named and tagged while they are tried.
_TAG = "trivet-image-test"


class Builder(Protocol):
    """A way to images."""

    def start(self, target: str, env: Mapping[str, str], argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Build the target and run a command in it; its output, and the build's, go to the log."""
        ...

    def remove(self) -> None:
        """Leave none of the images behind."""
        ...


@dataclass(frozen=True)
class Engine:
    """docker or podman: read-only, without capabilities, as docker-compose.yml runs the images."""

    name: str
    dockerfile: Path
    flags: tuple[str, ...]

    def start(self, target: str, env: Mapping[str, str], argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        image = f"{_TAG}-{target}"
        _run(log, [self.name, "build", *self.flags, "-f", str(self.dockerfile), "--target", target, "-t", image, "."])
        options = ["--rm", "--init", "--network", "host", "--read-only", "--cap-drop", "ALL"]
        options += ["--security-opt", "no-new-privileges", "--tmpfs", "/tmp:mode=1777"]  # noqa: S108 - in the container
        options += ["--volume", "/var/lib/trivet"]
        told = [f"--env={name}={value}" for name, value in env.items()]
        return _popen(log, [self.name, "run", *options, *told, image, *argv])

    def remove(self) -> None:
        listed = _output([self.name, "images", "--format", "{{.Repository}}"]).split()
        for image in {name for name in listed if name.rpartition("/")[2].startswith(_TAG)}:
            _output([self.name, "rmi", "--force", image])


@dataclass(frozen=True)
class Buildah:
    """buildah without any daemon, in chroot isolation: the image's own user, but a writable root."""

    dockerfile: Path
    flags: tuple[str, ...]

    def start(self, target: str, env: Mapping[str, str], argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        image = f"localhost/{_TAG}-{target}"
        build = ["buildah", "bud", "--isolation", "chroot", "--network", "host", *self.flags]
        _run(log, [*build, "-f", str(self.dockerfile), "--target", target, "-t", image, "."])
        _run(log, ["buildah", "from", "--name", f"{_TAG}-{target}", image])
        told = [f"--env={name}={value}" for name, value in env.items()]
        run = ["buildah", "run", "--isolation", "chroot", "--network", "host", *told]
        return _popen(log, [*run, f"{_TAG}-{target}", "--", *argv])

    def remove(self) -> None:
        for container in _output(["buildah", "containers", "--format", "{{.ContainerName}}"]).split():
            if container.startswith(_TAG):
                _output(["buildah", "rm", container])
        for image in _output(["buildah", "images", "--format", "{{.Name}}"]).split():
            if image.startswith(f"localhost/{_TAG}"):
                _output(["buildah", "rmi", image])


@dataclass(frozen=True)
class Program:
    """Any program that takes `DOCKERFILE --target STAGE --run 'COMMAND'`."""

    words: tuple[str, ...]
    dockerfile: Path

    def start(self, target: str, env: Mapping[str, str], argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        command = shlex.join(["env", *(f"{name}={value}" for name, value in env.items()), *argv])
        return _popen(log, [*self.words, str(self.dockerfile), "--target", target, "--run", f"exec {command}"])

    def remove(self) -> None:
        """What it leaves is its own affair."""


def builder_of(named: str, dockerfile: Path, flags: tuple[str, ...]) -> Builder:
    """The builder of a name, or the first that works here. Raises `MissingDependency` where none does."""
    makers: dict[str, Callable[[], Builder]] = {
        "docker": lambda: Engine("docker", dockerfile, flags),
        "podman": lambda: Engine("podman", dockerfile, flags),
        "buildah": lambda: Buildah(dockerfile, flags),
    }
    if named and named not in makers:
        words = tuple(shlex.split(named))
        if shutil.which(words[0]) is None:
            raise MissingDependency(f"There is no program {words[0]}.", hint="Name docker, podman, buildah or a path.")
        return Program(words, dockerfile)
    for name in (named,) if named else tuple(makers):
        # A docker without its daemon is there, and builds nothing.
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return makers[name]()
    raise MissingDependency(
        f"{named or 'None of docker, podman and buildah'} works on this machine.",
        hint="Install one (Debian, Ubuntu: apt-get install buildah crun), or name a program: BUILDER=/path/to/it.",
    )


def _popen(log: Path, argv: Sequence[str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ)


def _run(log: Path, argv: Sequence[str]) -> None:
    if _popen(log, argv).wait():
        raise StartFailed(f"`{shlex.join(argv[:2])}` did not succeed.", hint=f"See the end of {log}.")


def _output(argv: Sequence[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

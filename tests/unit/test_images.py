"""How images are tried: by a builder that works here, and an agent inside that leaves nothing running."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from infra.images import agent
from infra.images.builders import Buildah, Engine, Program, builder_of
from infra.images.trial import Container, _Handler
from infra.local_web import LocalWeb
from trivet.errors import MissingDependency, StartFailed

FILE = Path("Dockerfile")
SERVICE = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_an_engine_that_does_not_work_is_passed_over(path: Path) -> None:
    program(path, "docker", "exit 1")
    program(path, "buildah", "exit 0")
    assert builder_of("", FILE, ()) == Buildah(FILE, ())
    program(path, "podman", "exit 0")
    assert builder_of("", FILE, ("--x",)) == Engine("podman", FILE, ("--x",))
    with pytest.raises(MissingDependency, match="docker works on this machine"):
        builder_of("docker", FILE, ())


def test_without_any_engine_it_is_said_what_to_install(path: Path) -> None:
    with pytest.raises(MissingDependency, match="None of docker, podman and buildah") as caught:
        builder_of("", FILE, ())
    assert "BUILDER=" in caught.value.hint


def test_a_program_gets_the_file_the_target_and_the_command_as_one_word(path: Path, tmp_path: Path) -> None:
    program(path, "mine", 'for each in "$@"; do echo "$each"; done')
    made = builder_of("mine --fast", FILE, ())
    assert made == Program(("mine", "--fast"), FILE)
    log = tmp_path / "log"
    assert made.start("api", {"A": "b c"}, ["run", "it's"], log).wait() == 0
    told = log.read_text().splitlines()
    assert told[:5] == ["--fast", "Dockerfile", "--target", "api", "--run"]
    assert told[5] == """exec env 'A=b c' run 'it'"'"'s'"""
    with pytest.raises(MissingDependency, match="no program nothing"):
        builder_of("nothing", FILE, ())


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container("api", tmp_path / "log")


@pytest.fixture
def web(container: Container) -> Iterator[LocalWeb]:
    with LocalWeb(partial(_Handler, {"api": container})) as made:
        yield made


def started(container: Container, web: LocalWeb, *services: list[str]) -> subprocess.Popen[bytes]:
    argv = [
        sys.executable,
        "-c",
        inspect.getsource(agent),
        f"http://{web.place}/api",
        json.dumps(services),
        "tests/unit",
    ]
    container.process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    return container.process


def test_the_agent_does_what_it_is_told_and_ends_its_services(
    container: Container, web: LocalWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = started(container, web, SERVICE)
    assert container.hear(60)["bytes"] > 0
    assert container.run("echo", "done")["out"] == "done\n"
    with pytest.raises(StartFailed, match=r"`sh -c echo no; exit 3` failed in api: no"):
        container.run("sh", "-c", "echo no; exit 3")
    container.stop()
    assert process.wait(30) == 0


def test_a_service_that_ends_by_itself_is_noticed(container: Container, web: LocalWeb) -> None:
    process = started(container, web, ["false"])
    assert container.hear(60)["uid"] >= 0
    with pytest.raises(StartFailed, match="did not start"):
        container.hear(60)
    container.asked.put(["stop"])
    process.wait(30)


def test_an_agent_that_nobody_listens_to_any_more_ends_its_services(container: Container) -> None:
    with LocalWeb(partial(_Handler, {"api": container})) as web:
        process = started(container, web, SERVICE)
        container.hear(60)
        below = psutil.Process(process.pid).children(recursive=True)
        assert below
    process.wait(60)
    deadline = time.monotonic() + 30
    while any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in below):
        assert time.monotonic() < deadline
        time.sleep(0.05)

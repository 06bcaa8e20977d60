"""docker-compose.yml and the Dockerfile say the same as `make up`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from trivet.embedded import valkey
from trivet.settings import Settings
from trivet.supervisor import worker_specs

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = (ROOT / "infra" / "docker" / "Dockerfile").read_text("utf-8")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return loaded


def test_the_workers_are_those_of_make_up(compose: dict[str, Any]) -> None:
    specs = worker_specs(Settings(embed_workers=1))
    assert set(compose["services"]) == {"valkey", "s3"} | {spec.name for spec in specs}
    for spec in specs:
        assert compose["services"][spec.name]["command"] == ["python", *spec.argv[1:]]
        for name, value in spec.env.items():
            assert re.search(rf"^ENV {name}={value}$", DOCKERFILE, re.MULTILINE)


def test_every_name_that_is_used_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(compose["volumes"])
        if build := service.get("build"):
            assert (ROOT / build["dockerfile"]).is_file()
            assert re.search(rf"^FROM \S+ AS {build['target']}$", DOCKERFILE, re.MULTILINE)


def test_every_variable_is_a_setting(compose: dict[str, Any]) -> None:
    names = set(re.findall(r"TRIVET_([A-Z0-9_]+)", (ROOT / "docker-compose.yml").read_text("utf-8") + DOCKERFILE))
    assert {name.lower() for name in names - {""}} <= set(Settings.model_fields)


def test_servers_are_reachable_from_this_machine_alone_and_keep_what_they_confirm(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    command = compose["services"]["valkey"]["command"]
    said = dict(zip(command[1::2], command[2::2], strict=True))
    for option in ("appendonly", "appendfsync", "maxmemory-policy", "save"):
        assert said[f"--{option}"] == valkey.FIXED[option]


def test_the_secret_key_has_no_default(compose: dict[str, Any]) -> None:
    assert compose["services"]["cpu"]["environment"]["TRIVET_S3_SECRET_KEY"].startswith("${TRIVET_S3_SECRET_KEY:?")


def test_images_copy_only_what_the_context_holds() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        assert set(line.split()) <= allowed
        assert all((ROOT / name).exists() for name in line.split())

"""docker-compose.yml, the Dockerfile, .env.example and `make up` say the same."""

from __future__ import annotations

import re
from typing import Any

import fastjsonschema
import pytest
import yaml

from tests.support.composed import COMPOSE, DOCKERFILE, SCHEMA, VARIABLE, composed, image_environments, seconds
from tests.support.fleet import ROOT
from trivet.embedded import valkey
from trivet.encoder.hub import PINNED
from trivet.settings import Settings
from trivet.supervisor import worker_specs

TEXT = COMPOSE.read_text("utf-8")
IMAGES = DOCKERFILE.read_text("utf-8")
WEIGHTS = (ROOT / "infra" / "docker" / "weights.yml").read_text("utf-8")
EXAMPLE = (ROOT / ".env.example").read_text("utf-8")
SERVERS = {"valkey", "s3", "qdrant"}
CATALOGUE = composed()["services"]
TRIVET = {name: service for name, service in CATALOGUE.items() if "build" in service}
WORKERS = {name: service for name, service in TRIVET.items() if name not in ("api", "embed-worker-gpu")}


@pytest.fixture(scope="module")
def validate() -> Any:
    return fastjsonschema.compile(SCHEMA)


def test_the_file_is_valid_by_the_compose_specification(validate: Any) -> None:
    validate(yaml.safe_load(TEXT))
    validate(composed())
    validate(yaml.safe_load(WEIGHTS))


def test_a_file_with_a_misspelt_key_is_not(validate: Any) -> None:
    wrong = composed()
    wrong["services"]["api"]["helthcheck"] = {}
    with pytest.raises(fastjsonschema.JsonSchemaValueException, match="helthcheck"):
        validate(wrong)


def test_the_workers_are_those_of_make_up() -> None:
    specs = worker_specs(Settings(embed_workers=1))
    assert sorted(service["command"] for service in WORKERS.values()) == sorted(
        ["python", *spec.argv[1:]] for spec in specs
    )
    environments = image_environments()
    for spec in specs:
        (service,) = (each for each in WORKERS.values() if each["command"] == ["python", *spec.argv[1:]])
        assert spec.env.items() <= environments[service["build"]["target"]].items()


def test_the_embed_worker_on_a_gpu_differs_by_its_device_alone() -> None:
    gpu, cpu = TRIVET["embed-worker-gpu"], TRIVET["embed-worker"]
    assert gpu["environment"] == cpu["environment"] | {"TRIVET_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": "0"}
    assert gpu["deploy"]["replicas"] == 1, "Compose gives every replica the same GPU"
    assert gpu["build"] == cpu["build"] | {"args": cpu["build"]["args"] | {"DEVICE": "cuda"}}
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert gpu["profiles"] == ["gpu"]
    own = {"profiles", "image", "build", "environment", "tmpfs", "deploy"}
    assert {key: value for key, value in gpu.items() if key not in own} == {
        key: value for key, value in cpu.items() if key not in own
    }
    # What Triton compiles must lie where it can be run from.
    cache = image_environments()["embed-worker"]["TRITON_CACHE_DIR"]
    assert any(cache.startswith(each.partition(":")[0]) and "exec" in each for each in gpu["tmpfs"])


def test_every_name_that_is_used_is_there() -> None:
    file = composed()
    for service in CATALOGUE.values():
        assert set(service.get("depends_on", {})) <= set(CATALOGUE)
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(file["volumes"])
        assert set(service.get("secrets", [])) <= set(file["secrets"])
        if build := service.get("build"):
            assert (ROOT / build["dockerfile"]).is_file()
            assert re.search(rf"^FROM \S+ AS {build['target']}$", IMAGES, re.MULTILINE)
            assert all(re.search(rf"^ARG {argument}=", IMAGES, re.MULTILINE) for argument in build["args"])


def test_a_service_without_a_command_of_its_own_does_what_its_image_does() -> None:
    for target in ("api", "cpu-worker", "embed-worker"):
        stage = re.split(rf"^FROM \S+ AS {target}$", IMAGES, flags=re.MULTILINE)[1].split("\nFROM ")[0]
        (command,) = re.findall(r"^CMD (\[.*\])$", stage, re.MULTILINE)
        assert yaml.safe_load(command) == TRIVET[target]["command"]
        assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)
        (check,) = re.findall(r"^HEALTHCHECK (?:.*\\\n\s*)?.*?CMD (\[.*\])$", stage, re.MULTILINE)
        assert ["CMD", *yaml.safe_load(check)] == TRIVET[target]["healthcheck"]["test"]


def test_every_variable_is_a_setting_or_one_of_the_file_s_own() -> None:
    names = set(re.findall(r"(?:^|[^A-Z_])TRIVET_([A-Z0-9_]+)", TEXT + IMAGES + EXAMPLE, re.MULTILINE))
    assert {name.lower() for name in names - {""}} <= set(Settings.model_fields)
    used = set(re.findall(r"\$\{(\w+)", TEXT + WEIGHTS))
    explained = set(re.findall(r"^#?([A-Z0-9_]+)=", EXAMPLE, re.MULTILINE))
    assert used <= explained
    assert {name for name in explained - used if not name.startswith("TRIVET_")} == set()


def test_the_defaults_that_the_example_names_are_those_of_the_file() -> None:
    told = dict(re.findall(r"^#([A-Z0-9_]+)=(.*)$", EXAMPLE, re.MULTILINE))
    for name, _, default in VARIABLE.findall(TEXT):
        # What `$$` and an example in place of a default leave.
        if name not in ("", "TRIVET_MODEL_ALIASES"):
            assert told[name] == default


def test_weights_of_this_machine_reach_whoever_runs_or_cuts_for_a_model() -> None:
    services = yaml.safe_load(WEIGHTS)["services"]
    assert services.keys() <= TRIVET.keys()
    assert {TRIVET[name]["build"]["target"] for name in services} == {"api", "cpu-worker", "embed-worker"}
    places = {volume for service in services.values() for volume in service["volumes"]}
    assert all(f":{image_environments()['runtime']['TRIVET_MODEL_DIR']}/BAAI/bge-m3:ro" in place for place in places)


def test_ports_are_open_to_this_machine_alone() -> None:
    for service in CATALOGUE.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_process_that_owns_the_index_and_the_api_that_asks_it_share_a_folder() -> None:
    for name in ("search", "api"):
        assert f"state:{image_environments()['runtime']['TRIVET_STATE_DIR']}" in TRIVET[name]["volumes"]
    assert CATALOGUE["qdrant"]["profiles"] == ["qdrant"]


def test_valkey_keeps_what_it_confirms() -> None:
    (script,) = CATALOGUE["valkey"]["command"]
    said = dict(re.findall(r"--(\S+) (\S+)", script.replace("''", '""')))
    for option in ("appendonly", "appendfsync", "maxmemory-policy", "hash-max-listpack-value"):
        assert said[option] == valkey.FIXED[option]
    assert said["save"] == '""'


def test_no_secret_is_in_the_file_in_the_environment_or_on_a_command_line() -> None:
    fields = {name for name, each in Settings.model_fields.items() if "SecretStr" in str(each.annotation)}
    for service in CATALOGUE.values():
        named = {name.removeprefix("TRIVET_").lower() for name in service.get("environment", {})}
        assert not named & (fields | {"redis_url"})
        assert "AWS_SECRET_ACCESS_KEY" not in service.get("environment", {})
    for secret in composed()["secrets"].values():
        assert list(secret) == ["file"]


def test_a_service_of_trivet_may_do_no_more_than_it_must() -> None:
    for service in TRIVET.values():
        assert service["user"] == "10001:10001"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_every_service_has_limits_a_health_check_and_a_bounded_log() -> None:
    for service in CATALOGUE.values():
        assert service["deploy"]["resources"]["limits"].keys() == {"memory", "pids"}
        assert service["healthcheck"]["test"]
        assert service["logging"]["options"]["max-size"]
        assert service["restart"] == "unless-stopped"


def test_services_of_trivet_start_when_the_servers_are_well() -> None:
    for name, service in TRIVET.items():
        needed = {server: {"condition": "service_healthy"} for server in ("valkey", "s3")}
        # The one that is not always there; nobody else looks into the index.
        maybe = {"qdrant": {"condition": "service_healthy", "required": False}} if name == "search" else {}
        assert service["depends_on"] == needed | maybe


def test_a_service_is_given_longer_than_it_takes_at_most() -> None:
    defaults = Settings()
    for name, service in TRIVET.items():
        # Beyond the documents' time a parent has ten seconds more (workers/main.py).
        most = defaults.stop_seconds if name == "api" else defaults.drain_seconds + 10
        assert seconds(service["stop_grace_period"]) > most


def test_images_are_pinned() -> None:
    used = [service["image"] for name, service in CATALOGUE.items() if name not in TRIVET]
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", IMAGES, re.MULTILINE))
    used += [each for each in re.findall(r"^FROM (\S+)", IMAGES, re.MULTILINE) if each not in stages]
    for image in used:
        assert re.search(r":v?\d+\.\d+(\.\d+)?", image), image
    assert f"ARG WEIGHTS_REVISION={PINNED['BAAI/bge-m3']}\n" in IMAGES
    for package, version in re.findall(r"\b([\w-]+)==(\d[\w.]*)", IMAGES):
        assert f"\n{package}=={version}\n" in (ROOT / "constraints.txt").read_text("utf-8")


def test_images_copy_only_what_the_context_holds() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", IMAGES, re.MULTILINE):
        assert set(line.split()) <= allowed
        assert all((ROOT / name).exists() for name in line.split())

"""The services of docker-compose.yml work, each with its own command, user and environment, and leave in time."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psutil
import pytest

from infra.prose import prose
from tests.conftest import S3
from tests.support.api import free_port
from tests.support.composed import Project
from tests.support.fleet import terminal_events, wait_for_all
from tests.support.web import Server, answer
from trivet.client import Trivet
from trivet.settings import Settings
from trivet.values import TaskState

_DOCUMENTS = 60


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    server = Server({f"/{n}": answer(prose(n, 400).encode(), Content_Type="text/plain") for n in range(_DOCUMENTS)})
    yield server
    server.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, valkey_url: str, s3: S3, source: Server) -> Iterator[Project]:
    made = Project(
        folder=tmp_path_factory.mktemp("compose"),
        variables={
            "TRIVET_REDIS_PREFIX": "compose:",
            "TRIVET_S3_ENDPOINT": s3.endpoint,
            "TRIVET_S3_ACCESS_KEY": s3.access_key,
            "TRIVET_S3_BUCKET": s3.bucket,
            "TRIVET_S3_PREFIX": "compose",
            "TRIVET_MODEL_ALIASES": '{"BAAI/bge-m3": "fake"}',
            "TRIVET_ALLOW_ADDRESSES": json.dumps([source.place]),
            # One charge fails a task, and no lease ends by itself: what a stopped worker held is handed back or lost.
            "TRIVET_MAX_ATTEMPTS": "1",
            "TRIVET_MAX_EXPIRIES": "1",
            "TRIVET_LEASE_SECONDS": "300",
        },
        secrets={
            "trivet_redis_url": valkey_url,
            "trivet_s3_secret_key": s3.secret_key,
            "trivet_key_pepper": "pepper",
            "trivet_index_api_key": "",
        },
        port=free_port(),
    )
    try:
        for name in made.services:
            # The same image arguments, command and settings as embed-worker, but for a device that is not here.
            if name != "embed-worker-gpu":
                made.start(name)
        for name in made.running:
            made.wait(name)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def client(project: Project) -> Iterator[Trivet]:
    key = json.loads(project.execute("api", "trivet", "keys", "create", "--name", "test", "--scope", "admin", "--json"))
    with Trivet(f"http://127.0.0.1:{project.port}", api_key=key["api_key"]) as made:
        made.create_collection("docs")
        yield made


@pytest.fixture
def ledger(project: Project, valkey_url: str) -> Trivet:
    return Trivet(settings=Settings(redis_url=valkey_url, redis_prefix="compose:", state_dir=project.folder / "none"))


@pytest.mark.slow
def test_a_source_goes_in_by_the_api_and_comes_out_embedded(client: Trivet, source: Server) -> None:
    view = client.ingest(source.url("/0"), collection="docs", object_id="whole").wait(timeout=60)
    assert view.state is TaskState.COMPLETED, view.error
    assert view.chunks


@pytest.mark.slow
def test_every_service_runs_as_the_user_that_it_names(project: Project) -> None:
    for name, process in project.running.items():
        told = int(project.services[name]["user"].partition(":")[0])
        mine = psutil.Process().uids().real
        assert psutil.Process(process.pid).uids().real == (told if mine == 0 else mine)


@pytest.mark.long
@pytest.mark.slow
def test_a_service_that_is_stopped_under_load_leaves_in_its_grace_period_and_nothing_is_charged_or_lost(
    project: Project, client: Trivet, ledger: Trivet, source: Server
) -> None:
    tasks = [
        client.ingest(source.url(f"/{n}"), collection="docs", object_id=f"load-{n}").task_id for n in range(_DOCUMENTS)
    ]
    for name in list(project.running):
        assert project.stop(name) == 0, project.log(name)
        project.start(name)
        project.wait(name)
    views = wait_for_all(ledger, tasks, 120)
    assert {view.state for view in views} == {TaskState.COMPLETED}, [view.error for view in views if view.error]
    events = terminal_events(ledger)
    assert [events[task] for task in tasks] == [["completed"]] * len(tasks)
    assert ledger.backlog()["leases"] == 0

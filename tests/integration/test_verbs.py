"""What operators do to running work, by command line, with real workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from infra.prose import prose
from tests.support.fleet import Fleet, fleet, terminal_events, wait_for_all
from tests.support.web import Server, answer
from trivet.cli import FAILED, INVALID, OK, main
from trivet.client import Trivet
from trivet.settings import Settings
from trivet.supervisor.workers import environment

Cli = Callable[..., "Result"]


@dataclass(frozen=True)
class Result:
    """Exit status, stdout, stderr."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    server = Server({f"/{n}": answer(prose(n, 300).encode(), Content_Type="text/plain") for n in range(6)})
    yield server
    server.close()


@pytest.fixture
def live(settings: Settings, source: Server) -> Settings:
    return settings.model_copy(
        update={
            "model_aliases": {"BAAI/bge-m3": "fake"},
            "allow_addresses": (source.place,),
            "retry_base_seconds": 0.05,
            "sweep_seconds": 0.1,
            "max_attempts": 2,
        }
    )


@pytest.fixture
def workers(live: Settings) -> Iterator[Fleet]:
    with fleet(live) as made:
        yield made


@pytest.fixture
def client(live: Settings) -> Trivet:
    made = Trivet(settings=live)
    made.create_collection("docs")
    made.create_collection("other")
    return made


@pytest.fixture
def cli(live: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str) -> Result:
        for name, value in environment(live, {}).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        status = main(arguments)
        return Result(status, *capsys.readouterr())

    return run


def test_a_task_says_why_it_waits_and_what_it_waits_for(cli: Cli, client: Trivet, source: Server) -> None:
    first = client.ingest(source.url("/0"), collection="docs", object_id="same")
    second = client.ingest(source.url("/1"), collection="docs", object_id="same")
    third = client.ingest(source.url("/2"), collection="docs")

    assert "none is running" in cli("why", first.task_id, "--json").json["reason"]
    assert first.task_id in cli("why", second.task_id, "--json").json["reason"]
    found = cli("why", third.task_id, "--json").json
    assert (found["first"][0]["stage"], found["first"][0]["ahead"]) == ("prepare", 1)
    assert "1 items of its lane and namespace stand before it" in found["next_step"]
    shown = cli("why", third.task_id)
    assert shown.status == OK
    assert "prepare" in shown.out
    assert cli("why", "task_none").status == INVALID


def test_a_paused_collection_waits_and_goes_on_where_it_stood(
    cli: Cli, client: Trivet, workers: Fleet, source: Server
) -> None:
    before = client.ingest(source.url("/0"), collection="docs")
    assert cli("pause", "docs", "--reason", "the source is being moved").status == OK
    after = client.ingest(source.url("/1"), collection="docs")
    other = client.ingest(source.url("/2"), collection="other")
    workers.start_all(concurrency=1)
    assert other.wait(60).state == "completed"

    assert {before.status().state, after.status().state} == {"queued"}
    why = cli("why", before.task_id, "--json").json
    assert "the source is being moved" in why["reason"]
    assert "trivet resume" in why["next_step"]
    assert cli("paused", "--json").json == {"default/docs": "the source is being moved"}

    assert cli("resume", "docs").status == OK
    assert {view.state for view in wait_for_all(client, [before.task_id, after.task_id], 60)} == {"completed"}
    assert cli("paused", "--json").json == {}
    assert "was not paused" in cli("resume", "docs").err


def test_what_failed_for_a_while_is_run_again_as_the_next_run_of_the_same_task(
    cli: Cli, client: Trivet, workers: Fleet, source: Server
) -> None:
    source.pages["/away"] = answer(b"busy", 503)
    source.pages["/gone"] = answer(b"no", 404)
    tasks = {name: client.ingest(source.url(f"/{name}?key=secret"), collection="docs") for name in ("away", "gone")}
    workers.start_all(concurrency=1)
    wait_for_all(client, [task.task_id for task in tasks.values()], 60)

    dead = {view["task_id"]: view["error"]["transient"] for view in cli("dead", "--json").json}
    assert dead == {tasks["away"].task_id: True, tasks["gone"].task_id: False}
    source.pages["/away"] = answer(prose(7, 300).encode(), Content_Type="text/plain")
    retried = cli("retry", "--failed", "--json")
    assert (retried.status, retried.json) == (OK, {"retried": [tasks["away"].task_id], "refused": {}})
    view = tasks["away"].wait(60)
    assert (view.state, view.run) == ("completed", 2)
    assert terminal_events(client)[view.task_id] == ["failed", "completed"]

    refused = cli("retry", view.task_id)
    assert refused.status == FAILED
    assert "only failed and cancelled tasks are run again" in refused.err
    assert cli("retry", tasks["gone"].task_id, "--url", "https://elsewhere.example/x").status == INVALID
    assert cli("retry").status == INVALID


def test_a_cancelled_tasks_queued_work_is_gone_at_once_and_can_be_retried(
    cli: Cli, client: Trivet, workers: Fleet, source: Server
) -> None:
    task = client.ingest(source.url("/3"), collection="docs")
    assert cli("cancel", task.task_id).status == OK
    assert client.backlog()["leases"] == client.backlog()["due"] == 0
    assert cli("why", task.task_id, "--json").json["first"] == []
    assert cli("retry", task.task_id).status == OK
    workers.start_all(concurrency=1)
    assert task.wait(60).state == "completed"
    assert terminal_events(client)[task.task_id] == ["cancelled", "completed"]


def test_a_weight_is_a_share_and_nothing_else(cli: Cli) -> None:
    assert cli("weight", "4").status == OK
    assert cli("weight", "0").status == INVALID
    assert cli("migrate").status == OK

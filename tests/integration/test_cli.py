"""The command line on real servers with real workers: from an empty system to a search, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.prose import prose
from tests.support.fleet import Fleet, fleet
from tests.support.supervised import wait_until_gone
from tests.support.web import Server, answer
from trivet.cli import FAILED, INVALID, OK, UNAVAILABLE, main
from trivet.settings import Settings
from trivet.supervisor.workers import environment

Run = Callable[..., "Result"]


class Result:
    """What a command printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    server = Server({})
    yield server
    server.close()


@pytest.fixture(scope="module")
def live(settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory, source: Server) -> Settings:
    return settings_for(
        tmp_path_factory.mktemp("cli"),
        "cli",
        model_aliases={"BAAI/bge-m3": "fake"},
        allow_addresses=(source.place,),
        retry_base_seconds=0.02,
    )


@pytest.fixture(scope="module")
def _workers(live: Settings) -> Iterator[Fleet]:
    with fleet(live) as made:
        made.start_all(concurrency=1)
        yield made


@pytest.fixture
def cli(live: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command with the settings of the fleet, or with changed ones."""

    def run(*arguments: str, **changes: str) -> Result:
        for name, value in environment(live, {}).items():
            monkeypatch.setenv(name, value)
        for name, value in changes.items():
            monkeypatch.setenv(f"TRIVET_{name.upper()}", value)
        capsys.readouterr()
        status = main(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Result(status, out, err)

    return run


@pytest.mark.usefixtures("_workers")
def test_a_document_goes_in_and_is_found(cli: Run, source: Server) -> None:
    source.pages["/lantern.txt"] = answer(
        ("The lighthouse keeper trims the lantern every evening. " + prose(1, 300)).encode(), Content_Type="text/plain"
    )
    made = cli(
        "ingest", source.url("/lantern.txt"), "-c", "found", "--create", "--wait", "--object-id", "lantern", "--json"
    )
    assert (made.status, made.err) == (OK, "")
    (task,) = made.json["tasks"]
    assert (task["state"], task["object_id"]) == ("completed", "lantern")

    listed = cli("tasks", "--collection", "found", "--json").json
    assert [view["task_id"] for view in listed] == [task["task_id"]]
    assert cli("task", task["task_id"], "--json").json["manifest_key"] == task["manifest_key"]
    (file,) = cli("files", "found", "--json").json
    assert file["uri"].endswith(file["key"])
    assert file["rows"] == task["chunks"]
    assert [view["name"] for view in cli("collections", "list", "--json").json if view["name"] == "found"] == ["found"]

    hits = cli("search", "found", "lighthouse lantern", "--top-k", "2", "--json").json
    assert hits["model"] == "fake"
    assert hits["hits"][0]["object_id"] == "lantern"
    assert set(hits["hits"][0]) >= {"score", "dense", "sparse", "colbert", "text", "char_start"}
    (hit,) = cli("search", "found", "the lantern", "--top-k", "1", "--explain", "--json").json["hits"]
    why = hit["explanation"]
    assert "lantern" in [hit["text"][shown["start"] : shown["end"]] for shown in why["highlights"]]
    assert sum(term["contribution"] for term in why["terms"]) == pytest.approx(hit["sparse"]["score"], abs=1e-5)
    assert sum(match["contribution"] for match in why["alignment"]) == pytest.approx(hit["colbert"]["score"], abs=1e-5)

    narrow = ("--where", "missing exists false", "--since", "2020-01-01T00:00:00Z", "--object-id", "lantern")
    wide = ("--neighbours", "1", "--section", "2000", "--vectors", "--also", "a lighthouse", "--group", "1", "--json")
    found = cli("search", "found", "the lantern", *narrow, *wide).json
    assert (found["queries"], found["ranked"]) == (["the lantern", "a lighthouse"], 1)
    (hit,) = found["hits"]
    assert {passage["ordinal"] for passage in hit["section"]["passages"]} == set(range(task["chunks"]))
    assert len(hit["vectors"]["dense"]) == len(hit["vectors"]["colbert"][0]) == 64
    assert cli("search", "found", "the lantern", "--where", "missing exists", "--json").json["hits"] == []
    plain = ("--normalization", "none", "--min-score", "0.9", "--without", "sparse")
    assert cli("search", "found", "unlike anything", *plain, "--json").json["ranked"] == 0

    events = [event for event in cli("events", "--json", "--count", "10000").json if event["subject"] == "lantern"]
    assert [event["type"] for event in events] == [
        "trivet.ingest.accepted",
        "trivet.ingest.started",
        "trivet.ingest.completed",
    ]


@pytest.mark.usefixtures("_workers")
def test_what_is_for_people_has_no_json_and_cuts_no_key(cli: Run, source: Server) -> None:
    source.pages["/people.txt"] = answer(prose(2, 200).encode(), Content_Type="text/plain")
    made = cli("ingest", source.url("/people.txt"), "-c", "people", "--create", "--wait")
    assert made.status == OK
    assert "completed" in made.out
    assert "/manifest.json" in made.out
    # Which states it was seen in on its way depends on how fast the machine is: the last one does not.
    assert made.err.splitlines()[-1].split()[2:4] == ["people.txt", "completed"]
    task_id = cli("tasks", "-c", "people", "--json").json[0]["task_id"]
    for arguments, expected in (
        (("tasks", "-c", "people"), task_id),
        (("task", task_id), "committed and visible"),
        (("files", "people"), ".parquet"),
        (("search", "people", "river stone", "--explain"), "dense"),
        (("search", "people", "river stone", "--fusion", "rrf", "--no-rerank"), "people.txt"),
        (("search", "people", "river stone", "--neighbours", "1", "--section", "100"), "section"),
        (("events",), "ingest.completed"),
        (("collections", "show", "people"), "BAAI/bge-m3"),
        (("status",), "completed"),
        (("model", "list"), "fake"),
    ):
        shown = cli(*arguments)
        assert shown.status in (OK, UNAVAILABLE if arguments == ("status",) else OK), shown.err
        assert expected in shown.out, arguments


@pytest.mark.usefixtures("_workers")
def test_the_same_idempotency_key_gives_the_same_task(cli: Run, source: Server) -> None:
    source.pages["/again.txt"] = answer(prose(3, 50).encode(), Content_Type="text/plain")
    arguments = ("ingest", source.url("/again.txt"), "-c", "again", "--create", "--idempotency-key", "k1", "--json")
    first, second = cli(*arguments).json["tasks"][0], cli(*arguments).json["tasks"][0]
    assert first["task_id"] == second["task_id"]
    assert (first["new"], second["new"]) == (True, False)
    other = cli("ingest", source.url("/other.txt"), "-c", "again", "--idempotency-key", "k1")
    assert other.status == INVALID
    assert "k1" in other.err


@pytest.mark.usefixtures("_workers")
def test_what_goes_wrong_is_said_and_the_rest_is_embedded(cli: Run, source: Server) -> None:
    source.pages["/good.txt"] = answer(prose(4, 100).encode(), Content_Type="text/plain")
    source.pages["/broken.pdf"] = answer(b"%PDF-1.4\n%%EOF", Content_Type="application/pdf")
    urls = [source.url("/missing.html"), source.url("/broken.pdf"), source.url("/good.txt")]
    made = cli("ingest", *urls, "-c", "mixed", "--create", "--wait", "--json")
    assert made.status == FAILED
    assert [task["state"] for task in made.json["tasks"]] == ["failed", "failed", "completed"]
    assert [(task["error"] or {}).get("code") for task in made.json["tasks"]] == [
        "source_not_found",
        "corrupt_document",
        None,
    ]
    shown = cli("ingest", urls[0], "-c", "mixed", "--wait")
    assert shown.status == FAILED
    assert "404" in shown.err


@pytest.mark.usefixtures("_workers")
def test_a_refused_address_is_said_with_what_to_do(cli: Run) -> None:
    made = cli("ingest", "http://169.254.169.254/latest/meta-data", "-c", "refused", "--create", "--wait")
    assert made.status == FAILED
    assert "refused" in made.err or "not allowed" in made.err


def test_a_wrong_url_among_many_enqueues_none(cli: Run) -> None:
    cli("collections", "create", "none", "--exist-ok")
    made = cli("ingest", "https://example.com/a", "https://", "-c", "none")
    assert made.status == INVALID
    assert cli("tasks", "-c", "none", "--json").json == []


def test_a_task_is_cancelled_once(cli: Run) -> None:
    cli("collections", "create", "stopped", "--exist-ok", namespace="nobody")
    task_id = cli("ingest", "https://example.com/", "-c", "stopped", "--json", namespace="nobody").json["tasks"][0][
        "task_id"
    ]
    first = cli("cancel", task_id, "--json")
    assert first.status == OK
    assert first.json["state"] in ("cancelled", "failed")
    assert cli("cancel", task_id).status == OK


@pytest.mark.parametrize(
    "arguments",
    [
        ("ingest", "https://example.com/", "-c", "never-made"),
        ("search", "never-made", "question"),
        ("files", "never-made"),
        ("collections", "show", "never-made"),
        ("tasks", "-c", "never-made"),
    ],
)
def test_an_unknown_collection_is_named_with_the_way_to_create_it(arguments: tuple[str, ...], cli: Run) -> None:
    done = cli(*arguments)
    assert done.status == INVALID
    assert "never-made" in done.err
    assert "trivet collections create" in done.err


@pytest.mark.parametrize("arguments", [("task", "task_none"), ("cancel", "task_none")])
def test_an_unknown_task_is_named(arguments: tuple[str, ...], cli: Run) -> None:
    done = cli(*arguments)
    assert done.status == INVALID
    assert "task_none" in done.err


@pytest.mark.parametrize("command", ["tasks", "events", "status", "collections list", "doctor"])
def test_an_unreachable_redis_is_said_with_its_address_and_without_its_password(command: str, cli: Run) -> None:
    done = cli(*command.split(), redis_url="redis://user:secret@127.0.0.1:1/0")
    assert done.status == (FAILED if command == "doctor" else UNAVAILABLE)
    text = done.out + done.err
    assert "127.0.0.1:1" in text
    assert "secret" not in text


def test_an_unreachable_s3_is_said_with_its_address(cli: Run) -> None:
    cli("collections", "create", "no-s3", "--exist-ok")
    done = cli("files", "no-s3", s3_endpoint="http://127.0.0.1:1")
    assert done.status == UNAVAILABLE
    assert "127.0.0.1:1" in done.err


def test_a_model_that_is_not_there_is_said(cli: Run) -> None:
    cli("collections", "create", "no-model", "--exist-ok")
    done = cli("search", "no-model", "question", model_aliases="{}")
    assert done.status == UNAVAILABLE
    assert "BAAI/bge-m3" in done.err


@pytest.mark.usefixtures("_workers")
def test_doctor_finds_nothing_wrong_with_a_system_that_is_well(cli: Run) -> None:
    done = cli("doctor", "--json")
    assert done.status == OK, done.out
    findings = {finding["check"]: finding for finding in done.json["findings"]}
    assert findings["Redis AOF"]["result"] == "ok"
    assert findings["Redis maxmemory-policy"]["result"] == "ok"
    assert findings["S3 conditional writes"]["result"] == "ok"
    assert findings["workers"]["result"] == "ok"
    # Another model answers to the name: allowed, and said.
    assert findings["model"]["result"] == "warning"
    assert "fake" in findings["model"]["detail"]


def test_doctor_says_all_that_is_wrong_at_once(cli: Run) -> None:
    done = cli(
        "doctor", "--json", redis_url="redis://127.0.0.1:1/0", s3_endpoint="http://127.0.0.1:1", model_aliases="{}"
    )
    assert done.status == FAILED
    problems = {finding["check"]: finding for finding in done.json["findings"] if finding["result"] == "problem"}
    assert set(problems) == {"Redis", "ledger", "S3", "model", "workers"}
    assert all(finding["hint"] for finding in problems.values())


def test_doctor_says_when_nobody_works(cli: Run) -> None:
    done = cli("doctor", "--json", redis_prefix="nobody-here:")
    assert done.status == FAILED
    problems = {finding["check"]: finding for finding in done.json["findings"] if finding["result"] == "problem"}
    assert set(problems) == {"sweeper", "workers"}
    assert "trivet up" in problems["workers"]["hint"]


def test_a_whole_system_goes_up_is_found_by_other_commands_and_goes_down(
    tmp_path: Path, clean_env: dict[str, str]
) -> None:
    env = clean_env | {
        "TRIVET_STATE_DIR": str(tmp_path / "state"),
        "TRIVET_MODEL_ALIASES": json.dumps({"BAAI/bge-m3": "fake"}),
        "TRIVET_EMBED_WORKERS": "1",
    }
    text = tmp_path / "a note.txt"
    text.write_text(prose(5, 80), "utf-8")

    def run(*arguments: str) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "trivet.cli", *arguments], capture_output=True, text=True, env=env, check=False
        )
        assert "Traceback" not in done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    assert run("status", "--json").status == UNAVAILABLE
    try:
        up = run("up", "--allow-files", "--json")
        assert up.status == OK, up.err
        assert up.json["system"]["phase"] == "up"
        assert up.json["endpoints"]["redis_url"].startswith("redis://127.0.0.1:")
        status = run("status", "--json")
        assert status.status == OK
        assert {process["name"] for process in status.json["system"]["processes"]} >= {"valkey", "s3", "cpu", "sweep"}
        made = run("ingest", str(text), "--collection", "notes", "--create", "--wait", "--json")
        assert made.json["tasks"][0]["state"] == "completed"
        assert run("doctor").status == OK
    finally:
        down = run("down", "--json")
    assert (down.status, down.json) == (OK, {"stopped": True})
    wait_until_gone(tmp_path / "state")
    assert run("down", "--json").json == {"stopped": False}


def test_up_in_the_foreground_ends_with_ctrl_c(tmp_path: Path, clean_env: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "trivet.cli", "--state-dir", str(tmp_path / "state"), "up", "--foreground"],
        stderr=subprocess.PIPE,
        text=True,
        env=clean_env | {"TRIVET_EMBED_WORKERS": "0"},
    )
    assert process.stderr is not None
    said = ""
    while "starting worker sweep" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=90)
    assert "Traceback" not in said + err
    assert process.returncode in (OK, 130)
    wait_until_gone(tmp_path / "state")


def test_a_worker_is_one_command_and_ends_when_it_is_told(live: Settings) -> None:
    ready = live.state_dir / "sweeper.ready"
    with subprocess.Popen(
        [sys.executable, "-m", "trivet.cli", "worker", "sweep"],
        stderr=subprocess.PIPE,
        env=environment(live.model_copy(update={"ready_file": ready}), os.environ),
    ) as process:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=60) == 0


def test_followed_events_come_one_json_object_per_line_until_ctrl_c(live: Settings, cli: Run, tmp_path: Path) -> None:
    cli("collections", "create", "followed", "--exist-ok", namespace="followers")
    # A prefix of its own has no workers, so that the events are those of accept alone.
    following = environment(live.model_copy(update={"namespace": "followers"}), os.environ)
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "trivet.cli", "events", "--follow", "--after", "0-0", "--json"],
            stdout=out,
            stderr=subprocess.PIPE,
            env=following,
        )
    cli("ingest", "https://example.com/followed", "-c", "followed", namespace="followers")
    deadline = time.monotonic() + 60
    while not (tmp_path / "out").read_bytes().count(b"\n"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == b""
    first = json.loads((tmp_path / "out").read_text().splitlines()[0])
    assert first["type"] == "trivet.ingest.accepted"
    assert first["data"]["namespace"] == "followers"


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(live: Settings) -> None:
    command = f"{sys.executable} -m trivet.cli events --json --count 100000 | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} >/dev/null"],
        capture_output=True,
        text=True,
        env=environment(live, os.environ),
        check=False,
    )
    assert done.stderr == ""

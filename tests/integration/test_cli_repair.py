"""The commands that hide, remove, put right and bring back, with what they print; all stages run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.plant import Plant, plant
from trivet.cli import FAILED, INVALID, OK, main
from trivet.deleting.purge import run_purges
from trivet.settings import Settings
from trivet.stores import ObjectStore
from trivet.supervisor.workers import environment

#: Runs a command: its exit status, what `--json` printed, and what it said.
Cli = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def p(settings: Settings, store: ObjectStore) -> Iterator[Plant]:
    with plant(settings.model_copy(update={"mass_delete_objects": 2}), store) as made:
        yield made


@pytest.fixture
def cli(p: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    for name, value in environment(p.settings, {}).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, Any, str]:
        capsys.readouterr()
        status = main(arguments)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, json.loads(out) if "--json" in arguments else None, out + err

    return run


def _ingest(p: Plant, *object_ids: str) -> None:
    for object_id in object_ids:
        p.ingested(f"data:text/plain,Text%20of%20{object_id}", object_id=object_id)


def test_a_deleted_object_is_hidden_then_purged_with_a_receipt(p: Plant, cli: Cli) -> None:
    _ingest(p, "a", "b")
    assert cli("purge", "a", "-c", "docs")[0] == INVALID
    status, made, _ = cli("delete", "a", "-c", "docs", "--json")
    assert (status, made["renewed"], made["states"]) == (OK, [], {})
    p.commit()
    assert p.view(made["task_ids"][0]).state == "deleted"
    status, files, _ = cli("files", "docs", "--json")
    assert {file["key"].split("/objects/")[1].split("/")[0] for file in files} == {"b"}

    status, asked, _ = cli("purge", "a", "-c", "docs", "--json")
    assert (status, asked["state"]) == (OK, "waiting")
    run_purges(p.settings, p.ledger, p.store)
    status, receipt, _ = cli("purge", "--receipt", asked["id"], "--json")
    assert (status, receipt["state"], receipt["keys"]["raw"]) == (OK, "done", 1)
    assert "1 key, " in cli("purge", "--receipt", asked["id"])[2]


def test_an_object_that_is_not_there_is_skipped_and_said_to_be(p: Plant, cli: Cli) -> None:
    _, made, _ = cli("delete", "never", "-c", "docs", "--key", "k", "--json")
    p.commit()
    status, _, said = cli("delete", "never", "-c", "docs", "--key", "k", "--wait")
    assert status == OK
    assert "1 skipped" in said
    assert "not there" in said
    assert "nothing to delete" in cli("task", made["task_ids"][0])[2]


def test_a_wrong_id_among_many_deletes_none(p: Plant, cli: Cli) -> None:
    _ingest(p, "a")
    status, _, said = cli("delete", "a", "../b", "-c", "docs")
    assert status == INVALID
    assert "../b" in said
    assert [view["kind"] for view in cli("tasks", "--json")[1]] == ["ingest"]


def test_a_listing_that_looks_cut_short_is_held_until_it_is_confirmed(p: Plant, cli: Cli, tmp_path: Path) -> None:
    _ingest(p, "a", "b", "c")
    listing = tmp_path / "listing.txt"
    status, _, said = cli("delete", "--missing-from", str(listing), "-c", "docs")
    assert status == INVALID
    assert "No such file" in said
    listing.write_bytes(b"\xff")
    assert "UTF-8" in cli("delete", "--missing-from", str(listing), "-c", "docs")[2]
    listing.write_text("c\n")
    status, refused, _ = cli("delete", "--missing-from", str(listing), "-c", "docs", "--json")
    assert (status, refused["error"]["code"]) == (FAILED, "not_confirmed")

    _, (held,), _ = cli("deletes", "--json")
    assert (held["count"], held["visible"]) == (2, 3)
    assert held["id"] in refused["error"]["hint"]
    assert held["id"] in cli("deletes")[2]
    status, confirmed, _ = cli("deletes", "--confirm", held["id"], "--json")
    assert (status, len(confirmed["task_ids"])) == (OK, 2)
    assert cli("deletes", "--json")[1] == []
    assert cli("deletes", "--drop", held["id"])[0] == INVALID


def test_a_lost_ledger_is_written_back_and_what_nobody_needs_is_removed(p: Plant, cli: Cli) -> None:
    _ingest(p, "a")
    status, report, _ = cli("rebuild", "--json")
    assert (status, report["collections"], report["completed"]) == (OK, 0, 0)
    p.wipe()
    status, report, _ = cli("rebuild", "--json")
    assert (status, report["collections"], report["completed"]) == (OK, 1, 1)
    assert "were in the ledger already" in cli("rebuild")[2]

    status, left, _ = cli("gc", "--dry-run", "--json")
    assert (status, left["dry_run"], left["keys"]) == (OK, True, 0)
    _, _, said = cli("gc")
    # No table where there is nothing to put into it.
    assert said.strip() == "0 keys, 0 B removed."
    assert cli("audit", "--json")[1]["findings"] == []


def test_a_task_that_cannot_be_run_again_keeps_no_other_from_it(p: Plant, cli: Cli) -> None:
    waiting = [p.accept("data:text/plain,one", object_id="one"), p.accept("data:text/plain,two", object_id="two")]
    for task_id in waiting:
        assert cli("cancel", task_id)[0] == OK
    status, done, _ = cli("retry", waiting[0], "task_none", waiting[1], "--json")
    assert (status, done["retried"], list(done["refused"])) == (FAILED, waiting, ["task_none"])
    assert {p.state(task_id) for task_id in waiting} == {"queued"}
    assert cli("retry", "task_none")[0] == INVALID
    assert cli("retry", "--failed", "--collection", "nosuch")[0] == INVALID
    assert "0 tasks" in cli("retry", "--failed", "--collection", "docs")[2]


def test_what_operators_change_is_told_as_json_too(p: Plant, cli: Cli) -> None:
    assert cli("pause", "docs", "--reason", " ")[0] == INVALID
    assert cli("pause", "docs", "--reason", "move", "--json")[1] == {"paused": "default/docs", "reason": "move"}
    assert cli("resume", "docs", "--json")[1] == {"resumed": "default/docs", "was_paused": True}
    assert cli("resume", "docs", "--json")[1] == {"resumed": "default/docs", "was_paused": False}
    assert cli("weight", "4", "--json")[1] == {"namespace": "default", "weight": 4.0}
    status, migrated, _ = cli("migrate", "--json")
    assert (status, migrated["tasks"]) == (OK, 0)
    assert migrated["from"] == migrated["to"]

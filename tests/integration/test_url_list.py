"""A list of URLs is enqueued, on a real ledger."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from producers.url_list import enqueue
from tests.support.fleet import ROOT
from trivet.client import Trivet
from trivet.errors import UnknownCollection
from trivet.settings import Settings
from trivet.supervisor.workers import environment

LIST = ["# sources\n", "\n", "https://example.com/a\n", "htps://example.com/b\n", "  https://example.com/c  \n"]


@pytest.fixture
def client(settings: Settings) -> Trivet:
    made = Trivet(settings=settings)
    made.create_collection("docs")
    return made


def test_each_url_becomes_a_task_and_a_wrong_line_is_named(client: Trivet) -> None:
    done = list(enqueue(client, LIST, "docs"))
    assert [(d.line, bool(d.task_id)) for d in done] == [(3, True), (4, False), (5, True)]
    assert "Did you mean https" in done[1].error
    assert {view.url for view in client.tasks()} == {"https://example.com/a", "https://example.com/c"}


def test_the_same_run_again_enqueues_nothing_twice(client: Trivet) -> None:
    first = [d.task_id for d in enqueue(client, LIST, "docs", run="monday")]
    assert [d.task_id for d in enqueue(client, LIST, "docs", run="monday")] == first
    assert [d.task_id for d in enqueue(client, LIST, "docs", run="tuesday")] != first


def test_an_unknown_collection_ends_it(client: Trivet) -> None:
    with pytest.raises(UnknownCollection):
        list(enqueue(client, LIST, "nowhere"))


def test_the_command_prints_task_ids_and_names_refused_lines(client: Trivet, tmp_path: Path) -> None:
    path = tmp_path / "urls.txt"
    path.write_text("".join(LIST))
    ran = subprocess.run(
        [sys.executable, "-m", "producers.url_list", str(path), "--collection", "docs"],
        cwd=ROOT,
        env=environment(client.settings, os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stdout.split() == [view.task_id for view in reversed(client.tasks())]
    assert ran.stderr.startswith("line 4: ")
    assert "Traceback" not in ran.stderr

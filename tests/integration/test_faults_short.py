"""A short version of `make faults`: a few rows with few tasks, and proof that the judge sees what it must see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.faults import report, server_rows, strikes
from infra.faults.judge import Given, SeenObject, Verdict, judge
from infra.faults.rows import ROWS
from infra.faults.run import run_row
from infra.faults.scene import Row, crew
from trivet.names import EventKind
from trivet.settings import Settings
from trivet.values import Current, Event, Manifest, Part, TaskState

TASKS = 20

KILLS = 4

SHORT = (
    Row(
        name="kill",
        stage="all",
        what="`kill -9` of workers that hold work, each role in turn.",
        # So few that no item can be in the hands of a killed worker too often.
        strikes=strikes.killing_holders(("embed", "prepare"), KILLS, 0.3),
        tasks=TASKS,
        workers=crew(cpu=2, embed=2, faults="embed.after_forward:sleep:0.5,prepare.after_allocate:sleep:0.2"),
    ),
    server_rows.doorbells(tasks=TASKS),
    server_rows.s3_5xx(tasks=TASKS),
)


@pytest.mark.parametrize("row", SHORT, ids=lambda row: row.name)
def test_nothing_is_lost_and_nothing_is_there_twice(row: Row, settings: Settings, tmp_path: Path) -> None:
    result = run_row(row, settings, tmp_path / row.name)
    assert result.violations == ()
    assert result.verdict == Verdict(
        tasks=TASKS, lost=0, doubled=0, stale=0, terminal_min=1, terminal_max=1, dead_healthy=0
    )


# ---------------------------------------------------------------- the judge itself


def _event(task: str, kind: EventKind, state: TaskState, *, run: int = 1, generation: int | None = 1) -> Event:
    return Event(
        id=f"{task}/{run}/{kind}",
        source="trivet/default/docs",
        type=f"trivet.{kind}",
        subject=f"doc-of-{task}",
        time="2026-01-01T00:00:00Z",
        data={"task_id": task, "object_id": f"doc-of-{task}", "state": state, "generation": generation},
    )


def _done(task: str, **changes: Any) -> Event:
    return _event(task, EventKind.COMPLETED, TaskState.COMPLETED, **changes)


def _manifest(task: str, generation: int = 1, *, shards: tuple[int, ...] = (0,)) -> Manifest:
    parts = tuple(
        Part(shard=n, key=f"part-{n}", sha256="", bytes=1, rows=2, tokens=2, input_hash=f"hash-{n}") for n in shards
    )
    return Manifest(
        namespace="default",
        collection="docs",
        object_id=f"doc-of-{task}",
        generation=generation,
        task_id=task,
        run=1,
        source_url="https://example.com",
        source_sha256="s",
        spec_hash="p",
        input_hash=f"{task}-{generation}",
        created_at="2026-01-01T00:00:00Z",
        parts=parts,
    )


def _object(task: str, *manifests: Manifest, **changes: Any) -> SeenObject:
    found = manifests or (_manifest(task),)
    last = found[-1]
    current = Current(
        generation=last.generation,
        manifest="m",
        task_id=last.task_id,
        input_hash=last.input_hash,
        source_sha256="s",
        spec_hash="p",
    )
    return replace(SeenObject(f"doc-of-{task}", current, found, ("a", "b")), **changes)


def _judged(seen: SeenObject | None, *events: Event, task: str = "t1", healthy: bool = True) -> Verdict:
    objects = {seen.object_id: seen} if seen else {}
    return judge([Given(task, f"doc-of-{task}", healthy)], objects, events)


def test_a_world_in_which_all_is_well_has_no_violation() -> None:
    verdict = _judged(_object("t1"), _event("t1", EventKind.ACCEPTED, TaskState.QUEUED), _done("t1"))
    assert verdict == Verdict(tasks=1, lost=0, doubled=0, stale=0, terminal_min=1, terminal_max=1, dead_healthy=0)


def test_a_task_without_an_end_is_lost() -> None:
    verdict = _judged(None, _event("t1", EventKind.ACCEPTED, TaskState.QUEUED))
    assert (verdict.lost, verdict.terminal_min) == (1, 0)
    assert verdict.violations == ("Task t1 of doc-of-t1 was accepted and has no terminal event.",)


def test_a_completed_task_of_which_nothing_is_visible_is_lost() -> None:
    verdict = _judged(_object("t1", current=None), _done("t1"))
    assert verdict.lost == 1
    assert "nothing of it is visible" in verdict.violations[0]


def test_a_completed_task_with_a_part_missing_is_lost() -> None:
    verdict = _judged(_object("t1", bad_parts=("part-0",)), _done("t1"))
    assert verdict.lost == 1
    assert "not whole: part-0" in verdict.violations[0]


def test_a_chunk_that_is_visible_twice_is_doubled() -> None:
    verdict = _judged(_object("t1", chunk_ids=("a", "b", "a")), _done("t1"))
    assert verdict.doubled == 1
    assert verdict.violations == ("Chunk a of doc-of-t1 is visible 2 times.",)


def test_a_shard_that_is_listed_twice_is_doubled() -> None:
    verdict = _judged(_object("t1", _manifest("t1", shards=(0, 1, 0))), _done("t1"))
    assert verdict.doubled == 1


def test_a_task_with_two_generations_is_doubled() -> None:
    seen = _object("t1", _manifest("t1", 1), _manifest("t1", 2))
    verdict = _judged(seen, _done("t1", generation=2))
    assert verdict.doubled == 1
    assert verdict.violations == ("Task t1 of doc-of-t1 has 2 committed generations.",)


def test_a_second_task_of_a_document_that_no_client_knows_is_doubled() -> None:
    verdict = _judged(_object("t1"), _done("t1"), _done("t2"))
    assert verdict.doubled == 1


def test_an_event_that_stands_in_the_stream_twice_is_doubled_unless_redis_may_forget() -> None:
    events = [_done("t1"), _done("t1")]
    given, seen = [Given("t1", "doc-of-t1")], {"doc-of-t1": _object("t1")}
    assert judge(given, seen, events).doubled == 1
    assert judge(given, seen, events, replayed=True).violations == ()


def test_two_ends_of_one_task_are_told() -> None:
    failed = _event("t1", EventKind.FAILED, TaskState.FAILED)
    verdict = _judged(_object("t1"), failed, _done("t1"))
    assert verdict.terminal_max == 2
    assert verdict.violations == (
        "Task t1 of doc-of-t1 has 2 terminal events: trivet.ingest.failed, trivet.ingest.completed.",
    )


def test_a_generation_of_a_task_that_did_not_complete_is_stale() -> None:
    seen = _object("t1", _manifest("t1", 1), _manifest("t0", 2))
    verdict = _judged(seen, _done("t1"))
    assert verdict.stale == 1
    assert "the newest completed one is 1 of task t1" in verdict.violations[0]


def test_a_visible_generation_of_a_cancelled_task_is_stale() -> None:
    verdict = _judged(_object("t1"), _event("t1", EventKind.CANCELLED, TaskState.CANCELLED))
    assert verdict.stale == 1


def test_a_pointer_to_another_tasks_manifest_is_stale() -> None:
    seen = _object("t1")
    assert seen.current is not None
    verdict = _judged(replace(seen, manifests=(_manifest("t0"),)), _done("t1"))
    assert verdict.stale == 1


def test_a_healthy_document_that_fails_is_told_and_a_poison_one_must_fail() -> None:
    failed = _event("t1", EventKind.FAILED, TaskState.FAILED)
    assert _judged(None, failed).dead_healthy == 1
    assert _judged(None, failed, healthy=False).violations == ()
    assert "is poison and was completed" in _judged(_object("t1"), _done("t1"), healthy=False).violations[0]


# ---------------------------------------------------------------- the page


def test_a_table_takes_the_place_of_the_one_before_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- faults -->\n<!-- /faults -->\n\n## More\n", "utf-8")
    for text in ("| old |", "| new |"):
        report.write(page, "faults", text)
    assert page.read_text("utf-8") == "# Title\n\n<!-- faults -->\n\n| new |\n\n<!-- /faults -->\n\n## More\n"


def test_rows_of_an_earlier_run_stay_in_the_page_until_they_run_again(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    order = ("one", "two", "three")
    for run in ({"one": "| one | 1 |", "three": "| three | 1 |"}, {"two": "| two | 2 |", "three": "| three | 2 |"}):
        report.write(page, "faults", report.table({**report.written(page, "faults"), **run}, order))
    assert list(report.written(page, "faults").values())[1:] == ["| one | 1 |", "| two | 2 |", "| three | 2 |"]


def test_every_row_has_a_name_of_its_own_and_a_line_in_the_guide() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))
    guide = (Path(__file__).parent.parent.parent / "docs" / "faults.md").read_text("utf-8")
    assert [name for name in names if name not in guide] == []

"""What makes a new generation of an object that is visible already, and what ends a commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.stages.desk import CRASHED, SHA, SPEC, Desk, desk, encoder
from trivet.commit import read_manifest, read_pointer
from trivet.ledger.memory import MemoryLedger
from trivet.parts.plan import load_plan, source_key
from trivet.stages import commit, prepare
from trivet.stages.embed import EmbedLoop
from trivet.values import Lease, Manifest, TaskState

FAR = float("inf")
TEXT = "data:text/plain,%23%20One%0A%0AThe%20text.%0A%0A%23%20Two%0A%0AMore%20text."


def ingest(d: Desk, url: str = TEXT, **fields: Any) -> TaskState:
    """One object through all stages."""
    task = d.accept("o", url=url, **fields)
    prepare.run(d.ctx, FAR)
    loop = EmbedLoop(d.ctx, encoder())
    loop.run(FAR)
    loop.close()
    commit.run(d.ctx, FAR)
    view = d.view(task)
    assert view.state.terminal, view
    return view.state


def visible(d: Desk) -> Manifest:
    current = read_pointer(d.store, d.layout, "o")
    assert current is not None
    found = read_manifest(d.store, d.layout, "o", current.generation)
    assert found is not None
    return found


def test_the_same_request_again_is_skipped(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        assert ingest(d, metadata={"a": 1, "b": [1.5, None]}) is TaskState.COMPLETED
        assert ingest(d, metadata={"b": [1.5, None], "a": 1}) is TaskState.SKIPPED


def test_changed_metadata_is_a_new_generation_of_the_same_plan(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        assert ingest(d, metadata={"a": 1}) is TaskState.COMPLETED
        assert ingest(d, metadata={"a": 2}) is TaskState.COMPLETED
        assert visible(d).metadata == {"a": 2}
        assert ingest(d, metadata={"a": 2}) is TaskState.SKIPPED
        assert ingest(d) is TaskState.COMPLETED
        assert visible(d).metadata == {}
        assert len([key for key in d.store._objects if key.endswith("plan.json")]) == 1


def test_the_callers_media_type_is_never_answered_by_the_plan_of_another(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        assert ingest(d) is TaskState.COMPLETED
        plain = visible(d)
        assert ingest(d, media_type="text/markdown") is TaskState.COMPLETED
        marked = visible(d)
        assert (plain.receipt.media_type, marked.receipt.media_type) == ("text/plain", "text/markdown")
        assert plain.source_sha256 == marked.source_sha256
        assert ingest(d, media_type="text/markdown") is TaskState.SKIPPED
        assert ingest(d, media_type=" Text/Markdown ") is TaskState.SKIPPED
        assert ingest(d) is TaskState.COMPLETED
        assert visible(d).receipt.media_type == "text/plain"


def test_an_object_whose_plan_is_gone_is_prepared_again(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        ingest(d)
        for key in [key for key in d.store._objects if "/plan/" in key]:
            d.store.delete(key)
        assert ingest(d) is TaskState.COMPLETED


def embedded(d: Desk) -> str:
    task = d.staged("o", [["one"]])
    loop = EmbedLoop(d.ctx, encoder())
    loop.run(FAR)
    loop.close()
    return task


def remove_plan(d: Desk) -> None:
    assert load_plan(d.store, d.layout, "o", SHA, SPEC.hash) is not None
    d.store.delete(d.layout.plan("o", SHA, SPEC.hash))


def test_a_commit_whose_plan_is_gone_fails_where_nothing_is_visible(tmp_path: Path) -> None:
    with desk(tmp_path) as d:
        task = embedded(d)
        remove_plan(d)
        commit.run(d.ctx, FAR)
        view = d.view(task)
        assert view.state is TaskState.FAILED
        assert view.error is not None
        assert view.error.code == "store_damaged"


def test_a_generation_that_is_visible_is_completed_although_its_plan_is_gone(tmp_path: Path) -> None:
    class Dies(MemoryLedger):
        died = False

        def finish(self, lease: Lease, *rest: Any, **how: Any) -> None:
            if not self.died:
                self.died = True
                raise ConnectionError("the worker is cut off after it has published")
            super().finish(lease, *rest, **how)

    with desk(tmp_path, ledger=Dies()) as d:
        task = embedded(d)
        commit.run(d.ctx, FAR)
        assert read_pointer(d.store, d.layout, "o") is not None
        remove_plan(d)
        d.clock.advance(60)
        d.ledger.sweep(lease_seconds=20, max_expiries=5, retention_seconds=1e6, error=CRASHED)
        commit.run(d.ctx, FAR)
        assert d.view(task).state is TaskState.COMPLETED


def test_a_source_key_is_the_checksum_unless_the_caller_names_a_type() -> None:
    assert source_key(SHA, "") == SHA
    assert source_key(SHA, "text/markdown") == source_key(SHA, "Text/Markdown ")
    assert len({source_key(SHA, kind) for kind in ("", "text/plain", "text/markdown")}) == 3

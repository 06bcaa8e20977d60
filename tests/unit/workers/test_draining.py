"""How children learn that their parent stops."""

from __future__ import annotations

from pathlib import Path

from workers.draining import DrainFile


def test_two_workers_that_share_a_folder_and_a_process_id_share_no_drain_file(tmp_path: Path) -> None:
    """As containers do that mount the same folder for temporary files: each sees itself as process 1."""
    one, two = DrainFile(60, tmp_path), DrainFile(60, tmp_path)
    one._touch()
    assert one.stopping()
    assert not two.stopping()
    two.remove()
    assert one.stopping()
    one.remove()
    assert not one.stopping()
    assert one._limit is not None
    one._limit.cancel()

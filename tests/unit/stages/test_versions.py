"""Workers of two versions at once: what one does not understand, it leaves uncharged."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.unit.stages.desk import desk, encoder
from trivet.errors import LedgerSchema, NotUnderstood
from trivet.ledger.memory import MemoryLedger
from trivet.names import Stage
from trivet.retry import decide
from trivet.settings import Settings
from trivet.stages import commit, prepare
from trivet.stages import process as process_module
from trivet.stages.embed import EmbedLoop
from trivet.stages.process import StageProcess
from trivet.stores.memory import MemoryStore
from trivet.values import Lease, Spec

FAR = float("inf")


@pytest.mark.parametrize("stage", list(Stage))
def test_what_is_not_understood_waits_for_a_day_at_least_and_is_charged_to_nobody(tmp_path: Path, stage: Stage) -> None:
    decision = decide(NotUnderstood("newer"), stage, 2, Settings(state_dir=tmp_path), Random(1))
    assert decision.patience_seconds is not None
    assert decision.patience_seconds >= 86400
    assert decision.delay_seconds < 10


class Newer(MemoryLedger):
    """Its collections and specs are of a version to come."""

    def claim(self, *rest: Any, **how: Any) -> list[Lease]:
        leases = super().claim(*rest, **how)
        for lease in leases:
            payload = json.loads(lease.payload)
            if "config" in payload:
                config = json.loads(payload["config"])
                config["pipeline"]["chunking"] = {"of": "tomorrow"}
                payload["config"] = json.dumps(config)
                object.__setattr__(lease, "payload", json.dumps(payload))
        return leases

    def spec(self, spec_hash: str) -> Spec:
        return Spec.model_validate_json('{"of": "tomorrow"}')


def test_a_collection_of_a_newer_version_is_left_to_another_worker(tmp_path: Path) -> None:
    with desk(tmp_path, ledger=Newer()) as d:
        task = d.accept()
        assert prepare.run(d.ctx, FAR) is False
        assert d.attempts() == [0]
        assert list(d.states().values()) == ["due"]
        error = d.view(task).error
        assert error is None or error.code == "not_understood"


class OtherKind(MemoryLedger):
    """Its tasks do what only a version to come knows."""

    def claim(self, *rest: Any, **how: Any) -> list[Lease]:
        leases = super().claim(*rest, **how)
        for lease in leases:
            object.__setattr__(lease, "payload", json.dumps(json.loads(lease.payload) | {"kind": "reindex"}))
        return leases


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.COMMIT])
def test_a_task_of_a_kind_that_only_a_newer_version_knows_is_left_to_it(tmp_path: Path, stage: Stage) -> None:
    with desk(tmp_path, ledger=OtherKind()) as d:
        if stage is Stage.PREPARE:
            task = d.accept()
        else:
            task = d.staged("o", [["one"]])
            loop = EmbedLoop(d.ctx, encoder())
            loop.run(FAR)
            loop.close()
        (prepare if stage is Stage.PREPARE else commit).run(d.ctx, FAR)
        assert d.attempts() == [0]
        assert d.states() == {f"{stage}/0": "due"}
        error = d.view(task).error
        assert error is not None
        assert error.code == "not_understood"


def test_a_spec_of_a_newer_version_is_left_to_another_worker(tmp_path: Path) -> None:
    with desk(tmp_path, ledger=Newer()) as d:
        d.staged("o", [["one"], ["two"]])
        loop = EmbedLoop(d.ctx, encoder())
        loop.run(FAR)
        loop.close()
        assert d.attempts() == [0, 0]
        assert list(d.states().values()) == ["due", "due"]


class Foreign(MemoryLedger):
    """A ledger of another version, as long as `foreign`."""

    foreign = True

    def answer(self, *rest: Any, **how: Any) -> None:
        if self.foreign:
            raise LedgerSchema("The ledger has schema 9, and this process knows schema 2.")
        super().answer(*rest, **how)


def test_a_ledger_of_another_version_is_left_alone_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(process_module.log, "error", lambda event, **_: said.append(event), raising=False)
    monkeypatch.setattr("trivet.stages.process._FOREIGN_PAUSE_SECONDS", 0.01)
    ledger = Foreign()
    process = StageProcess(Settings(state_dir=tmp_path), ledger, MemoryStore(), [Stage.COMMIT])
    for _ in range(3):
        process.answer(Stage.COMMIT, "any", "")
    ledger.foreign = False
    process.answer(Stage.COMMIT, "any", "")
    process.close()
    assert said == ["ledger.foreign"]

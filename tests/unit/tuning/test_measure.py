"""A whole tuning, with real processes, of a tiny model."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from trivet import machine, tuning
from trivet.cli import INVALID, OK, main
from trivet.clock import SystemClock
from trivet.encoder.random_model import write_random_model
from trivet.errors import InvalidRequest, StartFailed
from trivet.settings import Settings
from trivet.tuning import child
from trivet.tuning.children import Child
from trivet.tuning.measure import tune


def test_every_dtype_and_layout_is_measured_and_int8_is_shown_and_not_chosen_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_random_model(tmp_path / "random", seed=3, layers=1, hidden=32, positions=600)
    monkeypatch.setenv("TRIVET_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TRIVET_DEVICE", "cpu")
    assert main(["tune", "encoder", "--model", str(model), "--seconds", "1", "--json"]) == OK
    printed = json.loads(capsys.readouterr().out)
    settings = Settings.load(embed_model=str(model))
    kept, _ = tuning.find(settings)
    assert kept is not None
    assert kept.model_dump(mode="json") == printed
    assert {figure.dtype for figure in kept.figures} == {"fp32", "bf16", "int8"}
    layouts = {(figure.processes, figure.threads) for figure in kept.figures}
    cores = machine.cores()
    assert (1, cores) in layouts
    assert len(kept.figures) == 3 * len(layouts)
    assert all(len(figure.rounds) >= 3 for figure in (*kept.figures, *kept.budgets))
    assert all(min(figure.rounds) > 0 for figure in (*kept.figures, *kept.budgets))
    assert kept.dtype != "int8"
    assert any("--allow-int8" in note for note in kept.notes)
    assert kept.forward_tokens in {figure.forward_tokens for figure in kept.budgets}
    assert tuning.tuned(settings).forward_tokens == kept.forward_tokens
    # Where a dtype is asked for, nothing else is chosen.
    asked = Settings.load(embed_model=str(model), dtype="int8")
    found = tune(asked, seconds=0.1, allow_int8=False, clock=SystemClock(), progress=lambda _: None)
    assert found.dtype == "int8"


@pytest.mark.parametrize("seconds", ["0", "nan", "inf"])
def test_a_time_that_is_none_is_refused(seconds: str) -> None:
    assert main(["tune", "encoder", "--seconds", seconds]) == INVALID


def test_the_fake_has_no_speed(tmp_path: Path) -> None:
    fake = Settings(state_dir=tmp_path, embed_model="fake")
    with pytest.raises(InvalidRequest, match="no speed"):
        tune(fake, seconds=1.0, allow_int8=False, clock=SystemClock(), progress=print)


def test_a_dtype_that_is_not_measured_here_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    model = write_random_model(tmp_path / "random", seed=3, layers=1, hidden=32)
    half = Settings(state_dir=tmp_path / "state", embed_model=str(model), device="cpu", dtype="fp16")
    with pytest.raises(InvalidRequest, match="fp16"):
        tune(half, seconds=1.0, allow_int8=False, clock=SystemClock(), progress=pytest.fail)


def test_what_a_library_prints_is_no_answer(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def refused(*_: object) -> None:
        os.write(1, b"noise\n")
        raise StartFailed("There is nothing to load.")

    monkeypatch.setattr(child, "_load", refused)
    monkeypatch.setattr("sys.stdin", io.StringIO("[16]\n"))
    assert child.main() == 1
    out, err = capfd.readouterr()
    assert child.Answer.model_validate_json(out).error == "There is nothing to load."
    assert err == "noise\n"


def test_a_process_that_cannot_load_says_why(tmp_path: Path) -> None:
    lost = Settings(state_dir=tmp_path, embed_model="nowhere", model_hub=False)
    with Child(lost, "fp32", [16]) as started, pytest.raises(StartFailed, match="no weights for 'nowhere'"):
        started.loaded()

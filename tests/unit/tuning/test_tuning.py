"""What was measured counts where nobody has set anything, on the machine and for the model that were measured."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trivet import tuning
from trivet.cli.checks import findings
from trivet.errors import InvalidRequest, StartFailed
from trivet.settings import Settings
from trivet.supervisor import control
from trivet.supervisor.workers import environment, worker_specs
from trivet.tuning import Figure, Place, Tuning
from trivet.tuning.measure import chunk_lengths, first_of_best


def figure(**given: Any) -> Figure:
    known = {"dtype": "bf16", "processes": 2, "threads": 1, "forward_tokens": 2048, "tokens_per_second": 100.0}
    return Figure(**({"rounds": (100.0,)} | known | given))


def measured(place: Place, **given: Any) -> Tuning:
    known = {"dtype": "fp32", "processes": 3, "threads": 5, "forward_tokens": 777}
    return Tuning(
        place=place, model="fake", measured_at="2026-01-01T00:00:00+00:00", figures=(), budgets=(), **(known | given)
    )


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Settings with nothing set explicitly but these, over a state folder that has a tuning for them."""
    monkeypatch.setenv("TRIVET_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TRIVET_EMBED_MODEL", "fake")

    def load(**explicit: Any) -> Settings:
        settings = Settings.load(**explicit)
        tuning.keep(settings, measured(tuning.place(settings)))
        return settings

    return load


def used(settings: Settings) -> tuple[Any, ...]:
    found = tuning.tuned(settings)
    return found.dtype, found.forward_tokens, found.embed_workers, found.encoder_threads


def test_what_was_measured_takes_the_place_of_defaults(given: Callable[..., Settings]) -> None:
    assert used(given()) == ("fp32", 777, 3, 5)


@pytest.mark.parametrize(
    ("explicit", "wanted"),
    [
        ({"dtype": "bf16"}, ("bf16", 777, 3, 5)),
        ({"dtype": "auto"}, ("fp32", 777, 3, 5)),
        # Set to what is the default all the same.
        ({"forward_tokens": 2048}, ("fp32", 2048, 3, 5)),
        ({"encoder_threads": 0}, ("fp32", 777, None, 0)),
        ({"embed_workers": 1}, ("fp32", 777, 1, 0)),
        # Auto beside all others is what a supervisor tells a worker that it starts again.
        ({"dtype": "auto", "forward_tokens": 2048, "encoder_threads": 1}, ("auto", 2048, None, 1)),
    ],
)
def test_an_explicit_setting_wins_and_processes_and_threads_are_one_choice(
    given: Callable[..., Settings], explicit: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    assert used(given(**explicit)) == wanted


def test_a_variable_counts_as_explicit(given: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVET_FORWARD_TOKENS", "2048")
    assert used(given())[1] == 2048


def test_without_a_file_settings_stay_and_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(state_dir=tmp_path, embed_model="fake")
    assert tuning.tuned(settings) is settings
    assert caplog.records == []


@pytest.mark.parametrize(
    "other", [{"machine": "another"}, {"encoder_key": "another"}, {"torch": "0.1"}, {"backend": "transformers"}]
)
def test_a_tuning_of_another_place_is_ignored_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, other: dict[str, str]
) -> None:
    settings = Settings(state_dir=tmp_path, embed_model="fake")
    tuning.keep(settings, measured(tuning.place(settings).model_copy(update=other)))
    assert tuning.tuned(settings) is settings
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "another machine, model, torch or backend" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tunings": [{}]}', '{"schema_version": "x"}', "\x00\xff"])
def test_a_damaged_file_is_ignored_with_one_line_and_replaced_by_the_next_tuning(
    given: Callable[..., Settings], caplog: pytest.LogCaptureFixture, content: str
) -> None:
    settings = given()
    tuning.path(settings).write_text(content, encoding="utf-8")
    assert tuning.tuned(settings) is settings
    assert len(caplog.records) == 1
    assert "damaged" in caplog.text
    assert used(given()) == ("fp32", 777, 3, 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("processes", 0), ("threads", 0), ("forward_tokens", 63), ("dtype", "fp99"), ("schema_version", 2)],
)
def test_a_file_with_a_value_that_no_setting_could_have_is_ignored(
    given: Callable[..., Settings], name: str, value: object
) -> None:
    settings = given()
    content = json.loads(tuning.path(settings).read_text(encoding="utf-8"))
    (content if name in content else content["tunings"][0])[name] = value
    tuning.path(settings).write_text(json.dumps(content), encoding="utf-8")
    assert tuning.tuned(settings) is settings


def test_a_running_system_keeps_its_dtype_where_a_worker_is_started_again_after_a_tuning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIVET_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("TRIVET_EMBED_MODEL", "fake")
    made = control._plan(Settings.load(), None)
    embed = next(worker for worker in made.workers if "embed" in worker.argv)
    tuning.keep(made.settings, measured(tuning.place(made.settings)))
    for name, value in {**environment(made.settings, {}), **embed.env}.items():
        monkeypatch.setenv(name, value)
    told = Settings.load()
    assert tuning.tuned(told) == told


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="cannot be written"):
        tuning.check_can_keep(Settings(state_dir=tmp_path / "file"))


def test_a_model_that_is_not_there_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(state_dir=tmp_path, embed_model="fake", model_hub=False)
    tuning.keep(settings, measured(tuning.place(settings)))
    gone = settings.model_copy(update={"embed_model": "nowhere"})
    assert tuning.tuned(gone) is gone
    assert "no weights" in caplog.text


def test_a_second_tuning_replaces_the_first_of_its_place_and_no_other(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, embed_model="fake")
    here = tuning.place(settings)
    there = here.model_copy(update={"machine": "another"})
    for place, tokens in ((here, 512), (there, 1024), (here, 4096)):
        tuning.keep(settings, measured(place, forward_tokens=tokens))
    found, why = tuning.find(settings)
    assert found is not None
    assert (found.forward_tokens, why) == (4096, "")
    assert '"forward_tokens": 1024' in tuning.path(settings).read_text()


def test_the_supervisor_starts_as_many_workers_as_were_measured_and_tells_them_all_of_it(
    given: Callable[..., Settings],
) -> None:
    made = control._plan(given(), None)
    embed = [worker for worker in made.workers if "embed" in worker.argv]
    assert len(embed) == 3
    told = {**environment(made.settings, {}), **embed[0].env}
    assert told["TRIVET_ENCODER_THREADS"] == "5"
    assert told["TRIVET_FORWARD_TOKENS"] == "777"
    assert told["TRIVET_DTYPE"] == "fp32"
    # Nothing that was measured passes for something that was asked for.
    assert "dtype" not in made.explicit


def test_doctor_says_what_is_in_force(given: Callable[..., Settings]) -> None:
    def told(settings: Settings) -> str:
        return next(finding.detail for finding in findings(settings) if finding.check == "tuning")

    assert "dtype fp32, forward_tokens 777, embed_workers 3, encoder_threads 5" in told(given())
    assert told(given(dtype="bf16", embed_workers=1)).endswith(": forward_tokens 777")


def test_of_ways_that_tie_the_first_is_taken_and_a_faster_one_otherwise() -> None:
    ways = [figure(forward_tokens=n, tokens_per_second=rate) for n, rate in ((512, 90.0), (1024, 98.0), (2048, 100.0))]
    assert first_of_best(ways).forward_tokens == 1024
    with pytest.raises(StartFailed):
        first_of_best([])


def test_what_rounds_of_one_way_differ_by_is_no_lead() -> None:
    noisy = {"rounds": (70.0, 80.0, 110.0)}
    ways = [figure(forward_tokens=n, tokens_per_second=rate, **noisy) for n, rate in ((2048, 80.0), (4096, 100.0))]
    assert first_of_best(ways).forward_tokens == 2048
    assert first_of_best([way.model_copy(update={"rounds": (100.0,)}) for way in ways]).forward_tokens == 4096


def test_the_chunks_that_are_measured_are_around_400_tokens_and_within_what_the_model_takes() -> None:
    lengths = chunk_lengths(100_000, 512)
    assert max(lengths) == 512
    assert 350 < sum(lengths) / len(lengths) < 420
    assert max(chunk_lengths(1000, 130)) <= 130


def test_every_gpu_has_an_embed_worker_that_sees_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    embed = [spec for spec in worker_specs(Settings(device="cuda")) if "embed" in spec.argv]
    assert [(spec.name, spec.env["CUDA_VISIBLE_DEVICES"]) for spec in embed] == [("embed-1", "2"), ("embed-2", "5")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    (only,) = [spec for spec in worker_specs(Settings(device="cuda")) if "embed" in spec.argv]
    assert (only.name, "CUDA_VISIBLE_DEVICES" in only.env) == ("embed", False)


def test_what_one_gpu_was_measured_with_holds_for_each_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    settings = Settings(device="cuda", embed_model="fake")
    found = tuning.in_force(settings, measured(tuning.place(settings), processes=1, threads=8))
    assert (found["embed_workers"], found["encoder_threads"]) == (2, 4)

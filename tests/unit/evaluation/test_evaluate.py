"""Over the fake encoder: what is measured, what is kept, and how the command ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.evaluation.test_datasets import beir, jsonl, lines, miracl, mldr
from trivet.cli import main
from trivet.errors import InvalidRequest
from trivet.evaluation import encoding
from trivet.evaluation.datasets import read_dataset
from trivet.evaluation.encoding import TextEncoder
from trivet.evaluation.evaluate import Gate, Plan, evaluate
from trivet.retrieval import Fusion
from trivet.settings import Settings


def letters(folder: Path) -> Path:
    """Three documents, each found by a query of its own words; the third query is judged for the wrong one."""
    words = {"a": "apples grow here", "b": "boats sail there", "c": "cars drive past"}
    jsonl(folder / "corpus.jsonl", *({"_id": key, "text": text} for key, text in words.items()))
    jsonl(folder / "queries.jsonl", *({"_id": f"q{key}", "text": text} for key, text in words.items()))
    lines(folder / "qrels/test.tsv", "qa\ta\t1", "qb\tb\t1", "qc\ta\t1")
    return folder


def run(folder: Path, state: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
    words = ["--state-dir", str(state), "eval", str(folder), "--model", "fake", "--draws", "100", "--json", *more]
    status = main(words)
    return status, json.loads(capsys.readouterr().out)


def test_the_command_gives_figures_per_leg_and_fusion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = run(letters(tmp_path / "set"), tmp_path / "state", capsys)
    assert status == 0
    (found,) = told["evaluations"]
    assert (found["documents"], found["queries"], found["model"]["name"]) == (3, 3, "fake")
    assert [row["name"] for row in found["rows"]] == ["dense", "sparse", "colbert", "weighted", "rrf", "dbsf", "max"]
    assert found["rows"][0]["figures"]["Recall@10"]["mean"] == 1
    assert 0.75 < found["rows"][0]["figures"]["MRR@10"]["mean"] < 0.9
    assert "gain" in found["rows"][3]


def test_every_layout_goes_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for layout, make in (("beir", beir), ("miracl", miracl), ("mldr", mldr)):
        status, told = run(make(tmp_path / layout), tmp_path / "state", capsys)
        assert (status, told["evaluations"][0]["layout"]) == (0, layout)


def test_a_figure_under_the_floor_ends_with_1_and_one_at_it_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = letters(tmp_path / "set")
    status, told = run(folder, tmp_path / "state", capsys, "--fail-under", "nDCG@10=0.95")
    assert status == 1
    assert len(told["failures"]) == 1
    assert "nDCG@10 of weighted is 0." in told["failures"][0]
    assert run(folder, tmp_path / "state", capsys, "--fail-under", "Recall@10=1") == (0, told | {"failures": []})


@pytest.mark.parametrize(
    "more", [("--fail-under", "nDCG=1"), ("--fusion", "best"), ("--split", "train"), ("--weights", "dense=x")]
)
def test_a_wrong_argument_ends_with_2_and_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, str]
) -> None:
    status, told = run(letters(tmp_path / "set"), tmp_path / "state", capsys, *more)
    assert (status, told["error"]["code"]) == (2, "invalid_request")


def test_the_same_seed_gives_the_same_evaluation(tmp_path: Path) -> None:
    data = read_dataset(letters(tmp_path / "set"))
    encoder = TextEncoder(Settings(state_dir=tmp_path), "fake")
    plan = Plan({"all": Fusion()}, draws=200)
    one, two = (evaluate(data, encoder, plan, np.random.default_rng(5)) for _ in range(2))
    assert one == two


def test_a_second_run_loads_no_model_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(state_dir=tmp_path)
    texts = ["one text", "another", "one text"]
    (first,) = TextEncoder(settings, "fake").blocks(texts, "passage")
    monkeypatch.setattr(encoding, "load_resolved", None)
    (second,) = TextEncoder(settings, "fake").blocks(texts, "passage")
    for name in ("dense", "sparse_ids", "sparse_weights", "colbert", "colbert_offsets"):
        assert np.array_equal(getattr(first.legs, name), getattr(second.legs, name))
    with pytest.raises(TypeError):
        list(TextEncoder(settings, "fake").blocks([*texts, "new"], "passage"))


def test_blocks_end_at_a_number_of_texts_or_of_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BLOCK_TEXTS", 3)
    monkeypatch.setattr(encoding, "BLOCK_CHARACTERS", 20)
    texts = ["a", "b", "c", "d", "long " * 10, "e", "f"]
    blocks = list(TextEncoder(Settings(state_dir=tmp_path), "fake").blocks(texts, "passage"))
    assert [(block.first, len(block.legs)) for block in blocks] == [(0, 3), (3, 1), (4, 1), (5, 2)]


def test_legs_that_were_cut_short_on_disk_are_computed_again(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    (first,) = TextEncoder(settings, "fake").blocks(["some text"], "passage")
    (path,) = tmp_path.rglob("*.npz")
    path.write_bytes(path.read_bytes()[:200])
    (second,) = TextEncoder(settings, "fake").blocks(["some text"], "passage")
    assert np.array_equal(first.legs.dense, second.legs.dense)


def test_documents_that_are_cut_and_judged_documents_that_are_missing_are_told(tmp_path: Path) -> None:
    lines(letters(tmp_path / "set") / "qrels/test.tsv", "qa\ta\t1", "qb\tgone\t1")
    encoder = TextEncoder(Settings(state_dir=tmp_path), "fake", max_tokens=4)
    found = evaluate(read_dataset(tmp_path / "set"), encoder, Plan({}, draws=100), np.random.default_rng(0))
    assert found.notes[0].startswith("3 of 3 documents were cut")
    assert found.notes[1].startswith("1 judged documents are not in the corpus")


def test_colbert_can_be_kept_to_the_dense_legs_best(tmp_path: Path) -> None:
    data = read_dataset(letters(tmp_path / "set"))
    encoder = TextEncoder(Settings(state_dir=tmp_path), "fake")
    whole = evaluate(data, encoder, Plan({"all": Fusion()}, draws=100), np.random.default_rng(0))
    some = evaluate(data, encoder, Plan({"all": Fusion()}, colbert_candidates=3, draws=100), np.random.default_rng(0))
    assert some.rows == whole.rows
    assert some.notes == ("ColBERT ranked the dense leg's best 3 alone.",)


@pytest.mark.parametrize("text", ["nDCG@10", "nDCG@10=", "nDCG@10=2", "recall=0.5", "nDCG@10=nan"])
def test_a_gate_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Gate.of(text)

"""The parts of the encoder's benchmark that decide what its figures mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from infra.bench.encoder.counting import counted_rows
from infra.bench.encoder.driver import Bench
from infra.bench.encoder.engines import BY_NAME, ENGINES, REFERENCE
from infra.bench.encoder.forms import Padded, finish, from_finished
from infra.bench.encoder.quality import distance
from infra.bench.encoder.records import Records
from infra.bench.encoder.table import page
from infra.bench.encoder.versions import version_of
from infra.bench.encoder.workloads import WORKLOADS, Workload, flops, texts
from trivet.encoder.random_model import write_random_model


def test_texts_have_exactly_the_stated_tokens_and_are_the_same_each_time(tmp_path: Path) -> None:
    folder = write_random_model(tmp_path / "model", seed=1, hidden=8, heads=2, positions=64)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    workload = Workload("some", "1", (12, 3, 200, 57), "")
    made = texts(workload, tokenizer)
    assert [len(row.ids) for row in tokenizer.encode_batch(made)] == [12, 3, 200, 57]
    assert made == texts(workload, tokenizer)


def test_the_cost_of_a_text_is_that_of_its_products_and_its_attention() -> None:
    # Per token 2 · 12 · 1024² per layer, and 2 · 1024² for ColBERT; scores and mixing 2 · 2 · 3² · 1024 per layer.
    assert flops([3], 2) == 3 * (2 * 24 * 1024**2 + 2 * 1024**2) + 2 * 4 * 9 * 1024


def test_finished_rows_have_no_padding_no_special_tokens_and_the_largest_weight_of_a_term() -> None:
    ids = [[0, 7, 9, 7, 2], [0, 9, 2]]
    weights = np.array([[5.0, 0.5, 0.0, 0.75, 5.0], [5.0, 0.25, 5.0, 9.0, 9.0]], np.float32)
    vectors = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3)
    batch = Padded([1, 0], ids, np.eye(2, 3, dtype=np.float32), weights, vectors)
    arrays = from_finished(finish([batch]))
    assert arrays["dense"].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert arrays["sparse_ids"].tolist() == [9, 7]
    assert arrays["sparse_weights"].tolist() == [0.25, 0.75]
    assert arrays["sparse_offsets"].tolist() == [0, 1, 2]
    assert arrays["colbert_offsets"].tolist() == [0, 2, 6]
    assert arrays["colbert"][2].tolist() == vectors[0, 0].tolist()


def test_every_leg_that_differs_shows_in_the_distance() -> None:
    want = {
        "dense": np.eye(2, dtype=np.float32),
        "sparse_ids": np.array([5, 6], np.uint32),
        "sparse_weights": np.array([1.0, 0.5], np.float32),
        "sparse_offsets": np.array([0, 1, 2]),
        "colbert": np.eye(2, dtype=np.float32),
        "colbert_offsets": np.array([0, 1, 2]),
    }
    same = distance(want, want, want, want)
    assert (same.dense_max, same.dense_cosine_min, same.sparse_max, same.jaccard) == (0, 1, 0, 1)
    assert (same.colbert_max, same.maxsim_max) == (0, 0)
    other = want | {
        "dense": np.array([[0.8, 0.6], [0, 1]], np.float32),
        "sparse_ids": np.array([5, 8], np.uint32),
        "colbert": np.array([[0, 1], [0, 1]], np.float32),
    }
    found = distance(other, want, want, want)
    assert found.dense_cosine_min == pytest.approx(0.8)
    assert (found.sparse_max, found.jaccard) == (0.5, 0.5)
    assert (found.colbert_max, found.maxsim_max) == (1, 1)


def test_a_leg_that_a_peer_lacks_has_no_distance() -> None:
    dense = {"dense": np.eye(2, dtype=np.float32)}
    found = distance(dense, dense)
    assert (found.sparse_max, found.jaccard, found.colbert_max, found.maxsim_max) == (None, None, None, None)


def test_rows_that_are_computed_for_padding_are_counted() -> None:
    layer, other = torch.nn.Linear(4, 16), torch.nn.Linear(16, 4)
    padded = torch.zeros((3, 5, 4))
    with torch.inference_mode():
        assert counted_rows(lambda: other(torch.nn.functional.gelu(layer(padded))), 16) == 15
        with pytest.raises(ValueError, match="No matrix product"):
            counted_rows(lambda: other(torch.zeros((3, 16))), 16)


def test_what_was_measured_is_there_for_the_next_run_and_can_be_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "encoder" / "records.jsonl"
    records = Records(path)
    records.add("time", engine="a", round=0, seconds=[1.0])
    records.add("time", engine="b", round=0, seconds=[2.0])
    again = Records(path)
    assert again.find("time", engine="a") == [{"kind": "time", "engine": "a", "round": 0, "seconds": [1.0]}]
    again.forget(lambda record: record["engine"] == "a")
    assert Records(path).find("time") == again.find("time", engine="b") != []


def test_memory_is_read_before_results_are_kept() -> None:
    of_full = [workload for workload in WORKLOADS if workload.model == "24" and workload.rounds]
    assert [bool(workload.kept) for workload in of_full] == [False] * (len(of_full) - 1) + [True]


def test_the_page_tells_of_failures_and_figures_of_the_engines_as_they_are_now(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tmp_path, ENGINES)
    old = {"engine": "trivet int8", "version": "old", "model": "1", "what": "smoke", "reason": "It was young."}
    bench.records.add("failed", **old)
    alone = {"workload": "smoke", "round": 0, "visit": "v", "seconds": [1.0], "peak": 1.0, "private": 1, "resident": 1}
    bench.records.add("time", engine=REFERENCE, version=version_of(BY_NAME[REFERENCE]), **alone)
    told = page(bench)
    assert "It was young" not in told
    assert "1 layer, 3 short texts" not in told
    bench.records.add("failed", **(old | {"version": version_of(BY_NAME["trivet int8"])}))
    assert "- trivet int8 (smoke): It was young." in page(bench)

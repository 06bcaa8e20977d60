"""What a dtype loses is measured to the letter, and one that loses too much does not start in silence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from trivet.encoder import Legs, load_encoder
from trivet.encoder.compare import differences, largest
from trivet.encoder.numerics import TOLERANCES, admitted, numerics, spearman
from trivet.encoder.verify import verify
from trivet.errors import InvalidRequest, ModelInvalid
from trivet.ids import digest
from trivet.settings import Settings
from trivet.values import Numerics, Passport

#: Two texts of two tokens each, in two dimensions.
EXACT = Legs(
    dense=np.array([[1, 0], [0, 1]], np.float32),
    sparse_ids=np.array([5, 7, 7], np.uint32),
    sparse_weights=np.array([1.0, 0.5, 0.25], np.float32),
    sparse_offsets=np.array([0, 2, 3]),
    colbert=np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], np.float32),
    colbert_offsets=np.array([0, 2, 4]),
)


def other(**changed: object) -> Legs:
    fields = {name: getattr(EXACT, name) for name in Legs.__slots__}
    return Legs(**(fields | changed))


def test_equal_legs_lose_nothing() -> None:
    found = numerics(EXACT, EXACT)
    assert found.dense_cosine_min == found.dense_cosine_mean == 1.0
    assert found.sparse_jaccard_min == found.sparse_jaccard_mean == 1.0
    assert found.sparse_weight_gap == found.maxsim_gap == 0.0
    assert found.rank_dense == found.rank_sparse == 1.0
    assert found.rank_colbert == pytest.approx(1.0)


def test_a_number_that_is_none_is_never_a_small_gap() -> None:
    assert np.isnan(differences(other(colbert=np.full((4, 2), np.nan, np.float32)), EXACT)["colbert"])
    spoiled = other(sparse_weights=np.array([1.0, np.nan, 0.25], np.float32))
    assert np.isnan(differences(spoiled, EXACT)["sparse"])
    # max() keeps whichever comes first.
    assert all(np.isnan(largest(gaps)) for gaps in ([0.0, np.nan], [np.nan, 0.0]))
    assert largest([]) == 0.0


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_an_encoder_that_gives_numbers_that_are_none_does_not_start_forced_or_not(
    local: Settings, folder: Path, dtype: str
) -> None:
    head = torch.load(folder / "colbert_linear.pt", weights_only=True)
    head["bias"][0] = torch.nan
    torch.save(head, folder / "colbert_linear.pt")
    for settings in (local, local.model_copy(update={"force_dtype": True})):
        with pytest.raises(ModelInvalid, match=f"not finite in {dtype}"):
            load_encoder(settings, str(folder), dtype=dtype)


def test_the_cosine_is_that_of_the_same_text_on_both_sides() -> None:
    found = numerics(other(dense=np.array([[0.6, 0.8], [0, 1]], np.float32)), EXACT)
    assert found.dense_cosine_min == pytest.approx(0.6)
    assert found.dense_cosine_mean == pytest.approx(0.8)


def test_a_term_that_one_side_lacks_counts_in_jaccard_and_with_its_whole_weight() -> None:
    found = numerics(other(sparse_ids=np.array([7, 8, 7], np.uint32)), EXACT)  # 7: 1.0 for 0.5, 8: 0.5 for 0, no 5
    assert found.sparse_jaccard_min == pytest.approx(1 / 3)
    assert found.sparse_jaccard_mean == pytest.approx((1 / 3 + 1) / 2)
    assert found.sparse_weight_gap == pytest.approx(1.0)


def test_maxsim_is_the_mean_over_the_query_and_its_largest_deviation_over_both_directions_is_told() -> None:
    # Text 0 against text 1: query 0 gives (1 + .8) / 2 = .9, query 1 gives (1 + .8) / 2 = .9.
    turned = other(colbert=np.array([[1, 0], [0, 1], [0, 1], [0, 1]], np.float32))  # (0 + 1) / 2, and (1 + 1) / 2
    assert numerics(turned, EXACT).maxsim_gap == pytest.approx(0.4)


def test_spearman_is_one_for_the_same_order_minus_one_for_the_reverse_and_shares_ranks_between_ties() -> None:
    values = np.array([0.1, 0.4, 0.2, 3.0])
    assert spearman(values, values**3) == pytest.approx(1.0)
    assert spearman(values, -values) == pytest.approx(-1.0)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 · 5).
    assert spearman(np.array([0.0, 1.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0, 3.0])) == pytest.approx(0.9486833)


def test_without_an_order_spearman_agrees_only_where_both_sides_have_none() -> None:
    flat, steep = np.zeros(3), np.arange(3.0)
    assert spearman(flat, flat) == 1.0
    assert spearman(flat, steep) == spearman(steep, flat) == 0.0


def lost(*, cosine: float = 1.0, maxsim: float = 0.0) -> Numerics:
    return numerics(EXACT, EXACT).model_copy(update={"dense_cosine_min": cosine, "maxsim_gap": maxsim})


@pytest.mark.parametrize("found", [lost(cosine=0.989), lost(maxsim=0.031), lost(cosine=float("nan"))])
def test_int8_outside_of_its_tolerance_is_refused_with_the_figure_the_tolerance_and_what_to_do(found: Numerics) -> None:
    with pytest.raises(InvalidRequest, match=r"int8 is outside.*'m': .* \((at least 0.99|at most 0.03)\)") as refused:
        admitted("int8", found, model="m", force=False)
    assert "TRIVET_FORCE_DTYPE=true" in refused.value.hint
    assert admitted("int8", found, model="m", force=True).forced


@pytest.mark.parametrize("dtype", ["int8", "bf16", "fp32"])
@pytest.mark.parametrize("force", [True, False])
def test_what_is_within_its_tolerance_runs_and_is_not_called_forced(dtype: str, force: bool) -> None:
    found = lost(cosine=0.9996, maxsim=0.004)
    assert admitted(dtype, found, model="m", force=force) == found


def test_bf16_outside_of_what_is_aimed_at_runs_and_the_miss_is_told(caplog: pytest.LogCaptureFixture) -> None:
    found = lost(cosine=0.99, maxsim=0.01)
    assert admitted("bf16", found, model="m", force=False) == found
    assert len(TOLERANCES["bf16"].missed_by(found)) == 2
    assert "encoder.inexact: bf16 on the model 'm': smallest dense cosine 0.99000" in caplog.text


@pytest.fixture
def outlier(folder: Path) -> Path:
    """A model in which one activation is far above all others and counts for nothing: in int8 it hides the others."""
    file = folder / "model.safetensors"
    state = load_file(file)
    for name, weight in state.items():
        if name.endswith("intermediate.dense.bias"):
            weight[0] = 50_000.0
        elif name.endswith("output.dense.weight") and "attention" not in name:
            weight *= 40.0
            weight[:, 0] = 0.0
    save_file(state, file, metadata={"format": "pt"})
    return folder


def test_a_model_that_int8_spoils_starts_in_int8_only_when_forced_and_its_passport_says_so(
    local: Settings, outlier: Path
) -> None:
    with pytest.raises(InvalidRequest, match="int8 is outside of its tolerance"):
        load_encoder(local, str(outlier), dtype="int8")
    # The second time what was measured comes from the notes.
    for _ in range(2):
        forced = load_encoder(local.model_copy(update={"force_dtype": True}), str(outlier), dtype="int8").passport
        assert forced.numerics is not None
        assert forced.numerics.forced
    with pytest.raises(InvalidRequest, match="int8 is outside of its tolerance"):
        load_encoder(local, str(outlier), dtype="int8")


def test_verify_reports_a_dtype_that_does_not_start_and_fails(
    local: Settings, outlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trivet.encoder.verify.has_flag_embedding", lambda: False)
    report = verify(local.model_copy(update={"dtype": "int8"}), str(outlier))
    assert report.chosen.strict
    assert report.chosen.missed
    assert not report.passed


def test_the_passport_has_what_was_measured_and_figures_of_an_older_version_are_measured_again(
    local: Settings, folder: Path
) -> None:
    first = load_encoder(local, str(folder), dtype="int8").passport
    assert first.numerics is not None
    assert 0.99 < first.numerics.dense_cosine_min < 1.0
    notes = local.state_dir / "parity.json"
    known = json.loads(notes.read_text())
    notes.write_text(json.dumps(dict.fromkeys(known, 0.5)))
    assert load_encoder(local, str(folder), dtype="int8").passport == first
    assert json.loads(notes.read_text()) == known


def test_a_passport_from_before_there_were_numerics_is_read_and_keeps_its_digest() -> None:
    old = {
        "requested_model": "BAAI/bge-m3",
        "model": "BAAI/bge-m3",
        "revision": "1",
        "encoder_key": "k",
        "checksums": {},
        "provenance": "",
        "dtype": "bf16",
        "device": "cpu",
        "backend": "packed/onednn",
        "library_versions": {},
        "parity": 0.004,
    }
    read = Passport.model_validate_json(json.dumps(old))
    assert read.numerics is None
    assert read.digest == digest(old)
    assert read.model_copy(update={"numerics": lost()}).digest != read.digest

"""`verify` passes on a model that agrees, and says what it measured; it is wrong about none that does not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from trivet.encoder import layers, verify
from trivet.encoder.onednn import Linear
from trivet.encoder.random_model import write_random_model
from trivet.errors import InvalidRequest, ModelUnavailable
from trivet.settings import Settings


@pytest.fixture
def settings(local: Settings) -> Settings:
    torch.set_num_threads(1)
    return local


def test_a_model_that_agrees_with_flag_embedding_passes(settings: Settings, folder: Path) -> None:
    report = verify.verify(settings, str(folder))
    assert report.passed
    assert report.reference == "FlagEmbedding 1.4.2"
    assert report.backend.startswith("packed")
    assert all(row.same_ids for row in report.inputs)
    assert max(row.tokens for row in report.inputs) == report.model.max_tokens
    assert report.chosen.dense_cosine_min > 0.99
    assert report.model_dump_json()


def test_without_flag_embedding_it_is_held_against_transformers(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "has_flag_embedding", lambda: False)
    report = verify.verify(settings, str(folder))
    assert report.passed
    assert report.reference.startswith("transformers ")


def test_an_encoder_that_computes_something_else_does_not_pass(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = layers.plain_add_norm

    def wrong(linear: Linear, inner: torch.Tensor, x: torch.Tensor, norm: layers.Norm, epsilon: float) -> torch.Tensor:
        return right(linear, inner, x, (norm[0] * 1.001, norm[1]), epsilon)

    monkeypatch.setattr(layers, "plain_add_norm", wrong)
    monkeypatch.setattr(verify, "has_flag_embedding", lambda: False)
    report = verify.verify(settings, str(folder))
    assert not report.passed
    assert max(row.colbert for row in report.inputs) > verify.TOLERANCE


def test_numbers_that_are_none_do_not_pass(settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = {"dense": 0.0, "sparse": 0.0, "colbert": math.nan}
    monkeypatch.setattr(verify, "differences", lambda *_: gaps)
    monkeypatch.setattr(verify, "has_flag_embedding", lambda: False)
    report = verify.verify(settings, str(folder))
    assert not report.passed
    assert math.isnan(report.chosen.colbert)


def test_golden_scores_are_refused_for_another_model(settings: Settings, folder: Path) -> None:
    aliased = settings.model_copy(update={"model_aliases": {"BAAI/bge-m3": str(folder)}})
    with pytest.raises(ModelUnavailable, match=r"'random' would run.*remove the alias"):
        verify.verify(aliased, "BAAI/bge-m3", golden=True)


def test_golden_scores_of_a_model_that_only_has_the_name_are_shown_and_do_not_pass(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "has_flag_embedding", lambda: False)
    write_random_model(settings.models_folder / "BAAI" / "bge-m3", seed=1, layers=1, positions=130)
    report = verify.verify(settings, "BAAI/bge-m3", golden=True)
    published = {row.name: row.published for row in report.golden}
    assert published["dense q0p0"] == pytest.approx(0.6259765625)
    assert published["colbert+sparse+dense q1p1"] == pytest.approx(0.6232916116714478)
    assert published["term 'GE'"] == pytest.approx(0.252)
    assert len(published) == 5 * 4 + 7
    assert not report.passed


def test_published_scores_are_combined_as_flag_embedding_does_it() -> None:
    import json
    from importlib.resources import files

    card = json.loads((files("trivet.encoder") / "data/bge_m3_golden.json").read_text())
    a, b, c = card["weights_for_different_modes"]
    for at in range(4):
        dense, sparse, colbert = (card[leg][at] for leg in ("dense", "sparse", "colbert"))
        assert card["sparse+dense"][at] == pytest.approx((a * dense + b * sparse) / (a + b), abs=1e-3)
        whole = (a * dense + b * sparse + c * colbert) / (a + b + c)
        assert card["colbert+sparse+dense"][at] == pytest.approx(whole, abs=1e-3)


def test_the_fake_cannot_be_verified(settings: Settings) -> None:
    with pytest.raises(InvalidRequest, match="no reference"):
        verify.verify(settings, "fake")

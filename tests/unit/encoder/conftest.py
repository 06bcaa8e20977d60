"""Settings that need no server, and a random model per test module."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support import processor
from trivet.encoder.random_model import write_random_model
from trivet.settings import Settings

#: Dtypes that oneDNN computes on this processor as torch does: bf16 takes AVX-512, and int8 without VNNI saturates.
PRIVATE = frozenset(
    {"fp32"} | ({"bf16"} if processor.BF16 else set()) | ({"int8"} if torch.cpu._is_vnni_supported() else set())
)


@pytest.fixture
def local(tmp_path: Path) -> Settings:
    """Settings with an empty state folder, one thread, and no hub."""
    return Settings(state_dir=tmp_path / "state", model_hub=False, device="cpu", encoder_threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small random model, the test's own."""
    return write_random_model(tmp_path / "random", seed=3, layers=1, hidden=32, positions=130)

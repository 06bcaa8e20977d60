"""FlagEmbedding's `BGEM3FlagModel` and Trivet's encoder agree in fp32 on the same weights.

Same longest input, same pooling, no prompts; from the empty text to 8192 tokens, in ten scripts. Nothing is skipped:
where FlagEmbedding is not installed, these tests fail and say what to install.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from trivet.embedded import model as embedded_model
from trivet.encoder import Legs, load_encoder
from trivet.encoder.canary import canary_texts
from trivet.encoder.compare import differences, row
from trivet.encoder.models import resolve
from trivet.encoder.random_model import write_random_model
from trivet.encoder.reference import FlagReference
from trivet.encoder.tokenizer import Tokenizer
from trivet.encoder.verify import cut, input_texts
from trivet.settings import Settings

TOLERANCE = 1e-5
#: Built once for all runs; see trivet.embedded.model.
EMBEDDED = Path(__file__).resolve().parents[2] / ".trivet" / "models" / "embedded"


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and what the reference computed with it."""

    settings: Settings
    name: str
    #: Texts by name, one batch each.
    batches: list[dict[str, list[int]]]
    wanted: list[Legs]


@pytest.fixture(scope="module", params=["random-cls", "random-mean", "embedded"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    settings = Settings(state_dir=folder / "state", model_hub=False, device="cpu", encoder_threads=1)
    if request.param == "embedded":
        folder = embedded_model.build(EMBEDDED)
    else:
        pooling = request.param.removeprefix("random-")
        write_random_model(folder, seed=11, layers=3, pooling=pooling, prompts={"passage": "never used here: "})
    model = resolve(settings, str(folder))
    tokenizer = Tokenizer.load(model)
    reference = FlagReference(folder, model.identity.pooling, model.identity.max_tokens)
    texts = input_texts(tokenizer)
    groups = [[name for name in texts if not name.endswith(" tokens")]]
    groups += [[name] for name in texts if name.endswith(" tokens")]
    batches, wanted = [], []
    for names in groups:
        rows = tokenizer.encode([texts[name] for name in names], "plain")
        rows = [cut(tokens, model.identity.max_tokens) for tokens in rows]
        assert rows == reference.token_ids([texts[name] for name in names])
        batches.append(dict(zip(names, rows, strict=True)))
        wanted.append(reference.encode([texts[name] for name in names]))
    return Case(settings, str(folder), batches, wanted)


def test_inputs_range_from_empty_to_the_longest_in_ten_scripts(case: Case) -> None:
    lengths = {name: len(tokens) for batch in case.batches for name, tokens in batch.items()}
    assert len(canary_texts().keys() & lengths.keys()) == 10
    assert min(lengths.values()) == 2
    assert max(lengths.values()) == resolve(case.settings, case.name).identity.max_tokens


@pytest.mark.parametrize("backend", ["packed", "transformers"])
def test_all_legs_agree_with_flag_embedding_in_fp32(case: Case, backend: str) -> None:
    encoder = load_encoder(case.settings, case.name, backend=backend, dtype="fp32")
    far: dict[tuple[str, str], float] = {}
    for batch, wanted in zip(case.batches, case.wanted, strict=True):
        legs = encoder.encode(list(batch.values()), colbert_fp32=True)
        for at, name in enumerate(batch):
            # A term that one side lacks counts as 0 there, so ids may differ only where both weights are tiny.
            gaps = differences(row(legs, at), row(wanted, at))
            far |= {(name, leg): gap for leg, gap in gaps.items() if not gap <= TOLERANCE}
    assert far == {}


def test_the_reference_is_flag_embedding_itself(case: Case) -> None:
    from FlagEmbedding import BGEM3FlagModel

    assert BGEM3FlagModel.__module__ == "FlagEmbedding.inference.embedder.encoder_only.m3"
    assert any(len(legs.sparse_ids) > 20 for legs in case.wanted)

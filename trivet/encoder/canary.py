"""A few texts in ten scripts, and how far an encoder is from fp32 on them: what a passport says of it."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import ValidationError

from trivet.encoder import Legs
from trivet.encoder.attention import text_by_text
from trivet.encoder.compare import differences, largest
from trivet.encoder.files import Notes
from trivet.encoder.heads import Batch, Heads
from trivet.encoder.layers import PackedForward
from trivet.encoder.numerics import numerics
from trivet.encoder.onednn import PlainLinear
from trivet.encoder.packed import NARROW
from trivet.encoder.tokenizer import Tokenizer
from trivet.errors import ModelInvalid
from trivet.ids import digest
from trivet.machine import processor
from trivet.values import Frozen, Numerics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from trivet.encoder.torch_encoder import TorchEncoder


@cache
def canary_texts() -> dict[str, str]:
    """Script → a short paragraph in it."""
    texts: dict[str, str] = json.loads((files("trivet.encoder") / "data/canaries.json").read_text(encoding="utf-8"))
    return texts


class Measured(Frozen):
    """How far an encoder is from a plain fp32 pass on this machine's CPU, over the canary texts."""

    #: Largest absolute difference of any leg.
    parity: float
    numerics: Numerics


def measured(
    encoder: TorchEncoder, state: Mapping[str, Tensor], tokenizer: Tokenizer, state_dir: Path
) -> Measured | None:
    """Hold the encoder against fp32.

    Measured when these files, libraries, backend, dtype and device come together for the first time (a second for a
    model of bge-m3's size), and kept in `state_dir`. None for an activation that the plain pass does not compute.
    Raises `ModelInvalid` for numbers that are not finite.
    """
    if encoder.config.activation != "gelu":
        return None
    known = encoder.passport
    how = [known.backend, known.dtype, known.device, processor()]
    key = digest([known.checksums, known.library_versions, how], 32)
    notes = Notes(state_dir / "parity.json")
    with suppress(ValidationError):  # not noted, damaged, or of a version that measured less
        return Measured.model_validate(notes.get(key))
    rows = canary_rows(tokenizer)
    ours = encoder.encode(rows, colbert_fp32=True)
    if not (np.isfinite(ours.dense).all() and np.isfinite(ours.colbert).all()):
        raise ModelInvalid(
            f"The encoder of {known.model!r} gives numbers that are not finite in {known.dtype}.",
            hint="Try TRIVET_DTYPE=fp32; where that does it too, the weights are damaged.",
        )
    exact = _plain(encoder, state, tokenizer, rows)
    found = Measured(parity=largest(differences(ours, exact).values()), numerics=numerics(ours, exact))
    notes.put(key, found.model_dump())
    return found


def canary_rows(tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of the canary texts as passages, within what the model takes."""
    limit = tokenizer.identity.max_tokens
    return [ids[:limit] for ids in tokenizer.encode(list(canary_texts().values()), "passage")]


def _plain(encoder: TorchEncoder, state: Mapping[str, Tensor], tokenizer: Tokenizer, rows: list[list[int]]) -> Legs:
    """The same rows in fp32 through torch's public functions on the CPU, straight from the weights as loaded."""
    lengths = [len(row) for row in rows]
    batch = Batch(
        torch.tensor([token for row in rows for token in row]),
        lengths,
        torch.tensor([0, *np.cumsum(lengths).tolist()]),
    )
    model = encoder.resolved
    heads = Heads.load(model, tokenizer.special_ids, tokenizer.prompt_ids(), device="cpu", dtype=torch.float32)
    with torch.inference_mode():
        forward = PackedForward(state, encoder.config, torch.float32, linear=PlainLinear, attention=text_by_text)
        hidden = forward(batch, NARROW(len(batch.ids)))
        return heads.legs(hidden, batch, colbert=True, colbert_fp32=True)

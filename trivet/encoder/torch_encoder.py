"""What the backends that compute with torch share: loading, checking, post-processing and the passport."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from trivet.encoder import Legs, Pending, checked_input
from trivet.encoder.files import checksums
from trivet.encoder.heads import Batch, Coming, Heads
from trivet.encoder.layout import OPTIONAL, REQUIRED, Config, read_layout
from trivet.encoder.models import ResolvedModel
from trivet.encoder.numerics import admitted
from trivet.encoder.runtime import (
    PASS_TOKENS,
    describe_device,
    device_errors,
    pick_device,
    pick_dtype,
    set_threads,
    torch_dtype,
)
from trivet.encoder.tokenizer import Tokenizer
from trivet.encoder.transfer import to_device
from trivet.encoder.weights import find_weights, read_weights
from trivet.errors import InvalidRequest
from trivet.machine import return_free_memory
from trivet.settings import Settings
from trivet.values import ModelIdentity, Passport

_LIBRARIES = ("trivet", "torch", "transformers", "tokenizers", "safetensors", "numpy")


class TorchEncoder(ABC):
    """One forward pass over a batch; a backend says how hidden states are computed. Implements `Encoder`."""

    #: Name in `trivet.encoder.BACKENDS`.
    name: ClassVar[str]
    padded: bool
    pass_tokens: int
    #: Of `runtime.DTYPES` those that it computes in, by device.
    dtypes: ClassVar[Mapping[str, tuple[str, ...]]]
    passport: Passport

    def __init__(self, model: ResolvedModel, config: Config, heads: Heads, *, device: str, precision: str) -> None:
        self.resolved = model
        self.identity: ModelIdentity = model.identity
        self.config = config
        self.heads = heads
        self.device = device
        self.pass_tokens = PASS_TOKENS[device]
        self.overlaps = device != "cpu"
        #: The name of the dtype; what hidden states are held in.
        self.precision = precision
        self.dtype = torch_dtype(precision)

    @classmethod
    def load(cls, settings: Settings, model: ResolvedModel, *, dtype: str = "auto") -> Self:
        """Read the model's files and make it ready. `dtype` auto takes `settings.dtype`.

        Raises `ModelUnavailable` without weights, `ModelInvalid` for files that do not fit, `InvalidRequest` for a
        device or dtype that this machine or backend does not have, and for a dtype outside of its tolerance
        (`trivet.encoder.numerics`).
        """
        device = pick_device(settings.device)
        precision = pick_dtype(settings.dtype if dtype == "auto" else dtype, device)
        if precision not in cls.dtypes.get(device, ()):
            able = " or ".join(f"in {', '.join(names)} on {where}" for where, names in cls.dtypes.items())
            raise InvalidRequest(
                f"The {cls.name} encoder computes {able}; {precision} on {device} was asked for.",
                hint="Set TRIVET_ENCODER_BACKEND, TRIVET_DTYPE or TRIVET_DEVICE.",
            )
        set_threads(settings.encoder_threads)
        config = read_layout(model.folder).config
        files = find_weights(model)
        state = read_weights(files, config, settings.state_dir)
        tokenizer = Tokenizer.load(model)
        heads = Heads.load(
            model, tokenizer.special_ids, tokenizer.prompt_ids(), device=device, dtype=torch_dtype(precision)
        )
        encoder = cls(model, config, heads, device=device, precision=precision)
        encoder.prepare(state)
        small = [model.folder / name for name in (*REQUIRED, *OPTIONAL)]
        encoder.passport = Passport(
            requested_model=model.identity.requested,
            model=model.identity.name,
            revision=model.identity.revision,
            encoder_key=model.identity.encoder_key,
            checksums=checksums(model.folder, [*small, *files], settings.state_dir),
            provenance=model.provenance,
            dtype=precision,
            device=describe_device(device),
            backend=encoder.describe(),
            library_versions=_versions(),
        )
        from trivet.encoder.canary import measured

        if found := measured(encoder, state, tokenizer, settings.state_dir):
            lost = admitted(precision, found.numerics, model=model.identity.name, force=settings.force_dtype)
            encoder.passport = encoder.passport.model_copy(update={"parity": found.parity, "numerics": lost})
        del tokenizer, state
        return_free_memory()
        return encoder

    @abstractmethod
    def prepare(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights (names and shapes are checked) into the form and onto the device that `hidden` needs."""

    @abstractmethod
    def hidden(self, batch: Batch) -> Tensor:
        """[≥ T, h] last hidden states of all tokens of the batch, in `dtype`; rows after the first T mean nothing."""

    def describe(self) -> str:
        """The backend as a passport names it."""
        return self.name

    def encode(self, token_ids: Sequence[Sequence[int]], *, colbert: bool = True, colbert_fp32: bool = False) -> Legs:
        """See `trivet.encoder.Encoder.encode`."""
        return self.start(token_ids, colbert=colbert, colbert_fp32=colbert_fp32).legs()

    def start(self, token_ids: Sequence[Sequence[int]], *, colbert: bool = True, colbert_fp32: bool = False) -> Pending:
        """See `trivet.encoder.Encoder.start`. On a CPU all is computed here."""
        flat, lengths = checked_input(token_ids, max_tokens=self.identity.max_tokens, vocabulary=self.config.vocabulary)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        with torch.inference_mode(), device_errors(self.device, len(flat)):
            batch = Batch(
                to_device(torch.from_numpy(flat), self.device),
                lengths.tolist(),
                to_device(torch.from_numpy(offsets), self.device),
            )
            coming = self.heads.start(self.hidden(batch), batch, colbert=colbert, colbert_fp32=colbert_fp32)
        return _Started(coming, self.device, len(flat))


@dataclass(frozen=True, slots=True)
class _Started:
    """Legs on their way; what fails on the device is told when they are read."""

    coming: Coming
    device: str
    tokens: int

    def legs(self) -> Legs:
        with device_errors(self.device, self.tokens):
            return self.coming.legs()


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

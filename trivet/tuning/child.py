"""One encoder process that is measured: `python -m trivet.tuning.child`, settings from its environment.

One line of JSON in, one out. First the lengths of the texts it is to make; it answers with a `Loaded`, or an error.
Then orders, each answered by how long it took. It ends with its standard input.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TextIO

from pydantic import TypeAdapter

from trivet.encoder import Encoder, load_resolved
from trivet.encoder.models import resolve
from trivet.errors import EncoderOutOfMemory, TrivetError
from trivet.settings import Settings
from trivet.values import Frozen


class Loaded(Frozen):
    """What the process says of its encoder."""

    padded: bool
    #: `Encoder.pass_tokens`.
    pass_tokens: int
    #: Of the process, once it has computed; what another process like it would take too.
    private_bytes: int
    #: What of the dtype is outside of a strict tolerance.
    missed: tuple[str, ...]
    #: What `auto` would have taken.
    default_dtype: str


class Order(Frozen):
    """Passes to run, each over the texts with these numbers."""

    threads: int
    batches: tuple[tuple[int, ...], ...]


class Answer(Frozen):
    """Exactly one of these: what was loaded, how long an order took, or what went wrong."""

    loaded: Loaded | None = None
    seconds: float | None = None
    error: str = ""
    hint: str = ""


def main() -> int:
    """Exit status 0 at the end of the input, 1 where the encoder cannot be loaded."""
    # What a library prints would be taken for an answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        return _serve(answers)


def _serve(answers: TextIO) -> int:
    import torch

    lengths = TypeAdapter(list[int]).validate_json(sys.stdin.readline())
    try:
        encoder, texts, loaded = _load(Settings.load(), lengths)
    except TrivetError as error:
        _tell(answers, Answer(error=error.message, hint=error.hint))
        return 1
    _tell(answers, Answer(loaded=loaded))
    for line in sys.stdin:
        order = Order.model_validate_json(line)
        torch.set_num_threads(order.threads)
        start = time.perf_counter()
        try:
            for batch in order.batches:
                encoder.encode([texts[i] for i in batch])
        except EncoderOutOfMemory as error:
            _tell(answers, Answer(error=error.message))
        else:
            _tell(answers, Answer(seconds=time.perf_counter() - start))
    return 0


def _load(settings: Settings, lengths: Sequence[int]) -> tuple[Encoder, list[list[int]], Loaded]:
    from trivet.encoder.canary import canary_rows
    from trivet.encoder.numerics import TOLERANCES
    from trivet.encoder.runtime import pick_device, pick_dtype
    from trivet.encoder.tokenizer import Tokenizer

    model = resolve(settings, settings.embed_model)
    encoder = load_resolved(settings, model)
    stream = [token for row in canary_rows(Tokenizer.load(model)) for token in row]
    stream *= 1 + sum(lengths) // len(stream)
    texts = [stream[end - length : end] for length, end in zip(lengths, accumulate(lengths), strict=True)]
    encoder.encode(texts[:1])
    passport = encoder.passport
    tolerance = TOLERANCES.get(passport.dtype)
    strict = tolerance is not None and tolerance.strict
    missed = tolerance.missed_by(passport.numerics) if tolerance and strict and passport.numerics else []
    loaded = Loaded(
        padded=encoder.padded,
        pass_tokens=encoder.pass_tokens,
        private_bytes=_private_bytes(),
        missed=tuple(missed),
        default_dtype=pick_dtype("auto", pick_device(settings.device)),
    )
    return encoder, texts, loaded


def _private_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def _tell(answers: TextIO, answer: Answer) -> None:
    answers.write(answer.model_dump_json() + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())

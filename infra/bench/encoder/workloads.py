"""What is encoded: texts of exactly so many tokens, the same for every engine, and what that costs at the least."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: XLM-RoBERTa-large.
HIDDEN = 1024
_SPECIAL = 2


def _log_normal(count: int, median: int, sigma: float, least: int, most: int) -> tuple[int, ...]:
    rng = random.Random(5)
    return tuple(min(most, max(least, round(median * rng.lognormvariate(0, sigma)))) for _ in range(count))


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts of `lengths` tokens (special ones counted) for the model `model`."""

    name: str
    #: Key in `infra.bench.encoder.weights.MODELS`.
    model: str
    lengths: tuple[int, ...]
    title: str
    #: Rounds at the most; 0 has no timing of its own, it is there for the results.
    rounds: int = 99
    #: Repeats of one measurement: until so many seconds are spent, and at most so often.
    seconds: float = 2.0
    repeats: int = 3
    #: Whether FlagEmbedding, however slow, runs in every round.
    reference: bool = True
    #: Workloads whose results are kept along with its first timing.
    kept: tuple[str, ...] = ()
    #: No other engine stays loaded: attention over whole scores takes 13 GB here.
    alone: bool = False
    #: Left out unless it is named.
    optional: bool = False

    @property
    def tokens(self) -> int:
        """Real tokens of one pass."""
        return sum(self.lengths)


WORKLOADS = (
    Workload("uniform", "24", (256,) * 8, "24 layers, 8 × 256 tokens"),
    Workload("query", "24", (12,), "24 layers, one query of 12 tokens", seconds=5.0, repeats=200),
    Workload(
        "mixed",
        "24",
        (50, 90, 150, 230, 340, 480, 700, 1000),
        "24 layers, 8 texts of 50 to 1,000 tokens",
        kept=("mixed", "queries"),
    ),
    Workload("queries", "24", (12,) * 8, "24 layers, 8 queries of 12 tokens", rounds=0),
    Workload("many", "6", _log_normal(32, 180, 0.8, 8, 1024), "6 layers, 32 texts, log-normal, median 180", rounds=2),
    Workload("long8", "6", (2048,) * 8, "6 layers, 8 × 2,048 tokens", rounds=2, reference=False),
    Workload("long1", "6", (8192,), "6 layers, 1 × 8,192 tokens", rounds=2, reference=False, alone=True),
    # Whether each engine runs at all; only where it is asked for.
    Workload(
        "smoke",
        "1",
        (12, 40, 24),
        "1 layer, 3 short texts",
        rounds=1,
        seconds=0.1,
        repeats=1,
        kept=("smoke",),
        optional=True,
    ),
    # Texts of its own, in ten scripts: see `texts`.
    Workload("real", "real", (), "the embedded model, ten scripts", rounds=0),
)
BY_NAME = {workload.name: workload for workload in WORKLOADS}


def flops(lengths: Sequence[int], layers: int) -> float:
    """Floating-point operations that a pass without padding needs at the least.

    Per token and layer 24 h² (query, key, value, output, and two feed-forward products of 4 h), per text and layer
    4 L² h for attention, and 2 h² per token for the ColBERT head.
    """
    linear = sum(lengths) * (24 * HIDDEN**2 * layers + 2 * HIDDEN**2)
    return float(linear + sum(4 * length**2 * HIDDEN * layers for length in lengths))


def write_texts(workload: Workload, tokenizer: Tokenizer, path: Path) -> Path:
    """Write the workload's texts as JSON, once; they are the same on every machine."""
    if not path.is_file():
        made = _own_texts() if workload.name == "real" else texts(workload, tokenizer)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    return path


def texts(workload: Workload, tokenizer: Tokenizer) -> list[str]:
    """Words of real prose, of one to several tokens each, to exactly the wanted lengths."""
    rng = random.Random(workload.name)
    words = sorted({word for text in _own_texts() for word in text.split()})
    counts = {word: len(tokenizer.encode(word, add_special_tokens=False).ids) for word in words}
    singles = [word for word in words if counts[word] == 1]
    made = []
    for length in workload.lengths:
        left, picked = length - _SPECIAL, []
        while left:
            # Scripts without spaces make words as long as sentences: those would fill a short text by themselves.
            word = rng.choice(words if left > 8 else singles)
            if counts[word] <= min(left, 8):
                picked.append(word)
                left -= counts[word]
        made.append(" ".join(picked))
    got = [len(row.ids) for row in tokenizer.encode_batch(made)]
    assert got == list(workload.lengths), f"{workload.name}: the tokenizer makes {got} of {list(workload.lengths)}"
    return made


def _own_texts() -> list[str]:
    from trivet.encoder.canary import canary_texts

    return list(canary_texts().values())

"""Documents that tests, fault rows and benches make for themselves."""

from __future__ import annotations

_WORDS = [
    "queue",
    "worker",
    "ledger",
    "token",
    "shard",
    "commit",
    "tree",
    "river",
    "stone",
    "cloud",
    "garden",
    "machine",
    "letter",
    "paper",
    "music",
    "north",
    "winter",
    "bridge",
    "signal",
    "harbour",
    "copper",
    "window",
    "mirror",
    "engine",
    "forest",
    "island",
    "candle",
    "market",
    "silver",
    "number",
]


def prose(seed: int, words: int) -> str:
    """Text that is different for every seed."""
    picked = [_WORDS[(seed * 7919 + n * (seed % 13 + 3)) % len(_WORDS)] for n in range(words)]
    sentences = [" ".join(picked[at : at + 12]).capitalize() + "." for at in range(0, words, 12)]
    return f"Document {seed}. " + " ".join(sentences)

"""The bare encoder: all staged chunks of a collection through `Encoder.encode`, in processes of its own.

As many processes, with as many threads, as `trivet up` starts embed workers; each takes its share of the batches.
`python -m infra.bench.bare COLLECTION NUMBER OF` loads, runs a warm-up pass, prints `ready`, waits for a line on stdin,
encodes, and prints one line of JSON: seconds, chunks and tokens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from trivet.encoder import load_encoder
from trivet.encoder.batching import pack
from trivet.parts.plan import Plan
from trivet.parts.staging import load_shard
from trivet.settings import Settings
from trivet.stores import ObjectStore, open_store
from trivet.stores.layout import Layout
from trivet.supervisor.workers import environment, worker_specs
from trivet.tuning import tuned

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Bare:
    """One run of the encoders alone; the time is that of the slowest."""

    seconds: float
    chunks: int
    tokens: int
    encoder: str


def run_bare(here: Settings, collection: str) -> Bare:
    """The chunks of a collection through encoders alone, with the processes and threads that `trivet up` has."""
    here = tuned(here)
    specs = [spec for spec in worker_specs(here) if "embed" in spec.argv]
    ran = [
        subprocess.Popen(  # noqa: S603 - our own module, with our own arguments
            [sys.executable, "-m", "infra.bench.bare", collection, str(number), str(len(specs))],
            cwd=ROOT,
            env={**environment(here, os.environ), **spec.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, spec in enumerate(specs)
    ]
    for process in ran:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the bare encoder did not start"
    for process in ran:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [json.loads(process.communicate()[0]) for process in ran]
    return Bare(
        seconds=max(float(answer["seconds"]) for answer in answers),
        chunks=sum(int(answer["chunks"]) for answer in answers),
        tokens=sum(int(answer["tokens"]) for answer in answers),
        encoder=f"{answers[0]['encoder']}, {len(specs)} processes",
    )


def staged(store: ObjectStore, layout: Layout) -> list[tuple[int, ...]]:
    """Token ids of all chunks that were staged for a collection, object by object, whether committed or not."""
    plans = [found.key for found in store.list(layout.objects()) if found.key.endswith("/plan.json")]
    read = [Plan.model_validate_json(store.get(key)[0]) for key in plans]
    return [chunk.token_ids for plan in read for shard in plan.shards for chunk in load_shard(store, shard)]


def main(collection: str, number: int, of: int) -> None:
    """Encode every `of`-th batch and print."""
    settings = Settings.load()
    texts = staged(open_store(settings), Layout.of(settings, settings.namespace, collection))
    encoder = load_encoder(settings, settings.embed_model, backend=settings.encoder_backend)
    batches = pack([len(ids) for ids in texts], settings.forward_tokens or encoder.pass_tokens)[number::of]
    encoder.encode(texts[:4])
    print("ready", flush=True)  # noqa: T201 - this is how the parent knows
    sys.stdin.readline()
    start = time.perf_counter()
    for batch in batches:
        encoder.encode([texts[i] for i in batch])
    figures = {
        "seconds": time.perf_counter() - start,
        "chunks": sum(map(len, batches)),
        "tokens": sum(len(texts[i]) for batch in batches for i in batch),
        "encoder": f"{encoder.passport.backend} {encoder.passport.dtype}",
    }
    print(json.dumps(figures))  # noqa: T201 - this is how the parent reads it


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""The bare encoder: all staged chunks of a collection through `Encoder.encode`, in processes of its own.

As many processes, with as many threads, as `trivet up` starts embed workers; each takes its share of the batches.
`python -m infra.bench.bare COLLECTION NUMBER OF` loads, runs a warm-up pass, prints `ready`, waits for a line on stdin,
encodes, and prints one line of JSON: seconds, chunks and tokens.
"""

from __future__ import annotations

import json
import sys
import time

from trivet.encoder import load_encoder
from trivet.encoder.batching import pack
from trivet.parts.plan import load_plan
from trivet.parts.reader import current_manifests
from trivet.parts.staging import load_shard
from trivet.settings import Settings
from trivet.stores import open_store
from trivet.stores.layout import Layout


def main(collection: str, number: int, of: int) -> None:
    """Encode every `of`-th batch and print."""
    settings = Settings.load()
    store, layout = open_store(settings), Layout.of(settings, settings.namespace, collection)
    texts = []
    for manifest in current_manifests(store, layout):
        plan = load_plan(store, layout, manifest.object_id, manifest.source_sha256, manifest.spec_hash)
        assert plan is not None, "a committed object has a plan"
        texts += [chunk.token_ids for shard in plan.shards for chunk in load_shard(store, shard)]
    batches = pack([len(ids) for ids in texts], settings.forward_tokens)[number::of]
    encoder = load_encoder(settings, settings.embed_model, backend=settings.encoder_backend)
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

"""The bare encoder: all staged chunks of a collection through `Encoder.encode`, in a process of its own.

Prints one line of JSON: seconds, chunks and tokens. Loading and one warm-up pass are not counted.
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


def main(collection: str) -> None:
    """Encode once and print."""
    settings = Settings.load()
    store, layout = open_store(settings), Layout.of(settings, settings.namespace, collection)
    chunks = []
    for manifest in current_manifests(store, layout):
        plan = load_plan(store, layout, manifest.object_id, manifest.source_sha256, manifest.spec_hash)
        assert plan is not None, "a committed object has a plan"
        chunks += [chunk.token_ids for shard in plan.shards for chunk in load_shard(store, shard)]
    encoder = load_encoder(settings, settings.embed_model, backend=settings.encoder_backend)
    encoder.encode(chunks[:4])
    start = time.perf_counter()
    for batch in pack([len(ids) for ids in chunks], settings.forward_tokens):
        encoder.encode([chunks[i] for i in batch])
    seconds = time.perf_counter() - start
    figures = {"seconds": seconds, "chunks": len(chunks), "tokens": sum(map(len, chunks))}
    print(json.dumps({**figures, "backend": encoder.passport.backend, "dtype": encoder.passport.dtype}))  # noqa: T201 - this is how the parent reads it


if __name__ == "__main__":
    main(sys.argv[1])

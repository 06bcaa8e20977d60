"""Which embed queue a spec's shards go to, and which ones a worker takes from."""

from __future__ import annotations

from trivet.values import Spec


def embed_queue(spec: Spec) -> str:
    """The encoder key; with the dtype where the pipeline insists on one."""
    return (
        spec.model.encoder_key if spec.pipeline.dtype == "auto" else f"{spec.model.encoder_key}.{spec.pipeline.dtype}"
    )


def served_queues(encoder_key: str, dtype: str) -> tuple[str, str]:
    """The queues of a worker that runs this model in this dtype."""
    return encoder_key, f"{encoder_key}.{dtype}"

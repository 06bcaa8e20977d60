"""The engines: the seam, and its registry. One file per peer, each imported in its own process and environment alone.

A module has `load(folder, variant, built)`, which returns an `Engine`, and where something must be converted first
`build(folder, variant, built)`, which fills the folder `built` once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

#: `dense` [n, d] float32; `sparse_ids`, `sparse_weights` and `sparse_offsets`, `colbert` and `colbert_offsets` as in
#: `trivet.encoder.Legs`; a peer without a leg lacks its keys.
Arrays = Mapping[str, "np.ndarray[Any, Any]"]


class Engine(Protocol):
    """A loaded model, as users of that library call it."""

    def encode(self, texts: list[str]) -> Any:
        """Text to embeddings on the host, tokenisation and post-processing included; in the library's own form."""
        ...

    def arrays(self, made: Any) -> Arrays:
        """What `encode` returned, in one form for all. Not timed."""
        ...


@dataclass(frozen=True, slots=True)
class Spec:
    """One row of the table."""

    name: str
    #: Module beside this one.
    module: str
    #: What the module is told: the precision.
    variant: str
    #: Whose matrix product's peak it is held against.
    dtype: str
    #: Environment in `infra.bench.encoder.venvs`; empty is ours.
    venv: str = ""
    #: What is measured, where it is not all three legs as the library does it by default.
    note: str = ""
    #: Workloads that it takes; empty takes all.
    only: tuple[str, ...] = ()
    #: Environment variables of its process.
    env: tuple[tuple[str, str], ...] = ()
    #: Whether its module has a `build`.
    converts: bool = False


_SORTED = "the harness sorts texts by length and batches them by 2,048 padded tokens; heads and post-processing too"
#: Without these the allocator gives pages back after every product, and the peak is that of the page faults.
_ALLOCATOR = (
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "1000000000000"),
    ("MALLOC_TOP_PAD_", "268435456"),
)

REFERENCE = "FlagEmbedding"
GEMM = "gemm"
ENGINES = (
    Spec(REFERENCE, "flag", "fp32", "fp32", note="`BGEM3FlagModel` with its defaults, max_length 8192"),
    Spec("trivet fp32", "packed", "fp32", "fp32"),
    Spec("trivet bf16", "packed", "bf16", "bf16"),
    Spec("trivet int8", "packed", "int8", "int8"),
    Spec("sentence-transformers", "sentences", "fp32", "fp32", venv="st", note="dense only"),
    Spec("transformers fp32", "plain", "fp32", "fp32", note=f"sdpa; {_SORTED}"),
    Spec("transformers bf16", "plain", "bf16", "bf16", note=f"sdpa; {_SORTED}"),
    Spec("m3serve", "m3serve_", "fp32", "fp32", venv="m3serve", note="`Engine.embed` with its defaults"),
    Spec(
        "infinity-emb",
        "infinity",
        "fp32",
        "fp32",
        venv="infinity",
        note="dense only, `AsyncEmbeddingEngine`, torch",
        env=(("DO_NOT_TRACK", "1"), ("INFINITY_ANONYMOUS_USAGE_STATS", "0")),
    ),
    Spec("onnxruntime fp32", "onnx_", "fp32", "fp32", venv="onnx", converts=True, note=_SORTED),
    Spec(
        "onnxruntime int8", "onnx_", "int8", "int8", venv="onnx", converts=True, note=f"dynamic quantisation; {_SORTED}"
    ),
    Spec("OpenVINO bf16", "openvino_", "bf16", "bf16", venv="openvino", converts=True, note=_SORTED),
    Spec(
        "OpenVINO int8",
        "openvino_",
        "int8",
        "int8",
        venv="openvino",
        converts=True,
        note=f"NNCF after training, with SmoothQuant; {_SORTED}",
    ),
    Spec("bare products fp32", "gemm", "fp32", "fp32", only=("query",), env=_ALLOCATOR),
    Spec("bare products bf16", "gemm", "bf16", "bf16", only=("query",), env=_ALLOCATOR),
    Spec("bare products int8", "gemm", "int8", "int8", only=("query",), env=_ALLOCATOR),
)
#: Not a row: the peak that the rows are held against.
PEAK = Spec(GEMM, "gemm", "peak", "", env=_ALLOCATOR)
BY_NAME = {spec.name: spec for spec in (*ENGINES, PEAK)}

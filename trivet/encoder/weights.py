"""A model's weights: found, read without running any code of theirs, and held against its config."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trivet.encoder import hub
from trivet.encoder.files import replacing, sha256_cached
from trivet.encoder.layout import Config, read_json
from trivet.encoder.models import ResolvedModel
from trivet.errors import ModelInvalid, ModelUnavailable

_SAFETENSORS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLE = "pytorch_model.bin"


def find_weights(model: ResolvedModel) -> list[Path]:
    """The weight files of a model: safetensors where there are any, else the pickle. Fetches them for a hub model.

    Raises `ModelUnavailable` where there are none.
    """
    found = _present(model.folder)
    if not found and model.hub_id:
        hub.weights(model.hub_id, model.folder)
        found = _present(model.folder)
    if not found:
        raise ModelUnavailable(
            f"The model folder {model.folder} has no weights.", hint=f"Put {_SAFETENSORS} or {_PICKLE} there."
        )
    return found


def _present(folder: Path) -> list[Path]:
    if (folder / _SAFETENSORS).is_file():
        return [folder / _SAFETENSORS]
    if (folder / _INDEX).is_file():
        names = sorted(set(read_json(folder, _INDEX).get("weight_map", {}).values()))
        shards = [folder / Path(name).name for name in names]
        return shards if all(shard.is_file() for shard in shards) else []
    return [folder / _PICKLE] if (folder / _PICKLE).is_file() else []


def read_weights(files: list[Path], config: Config, state_dir: Path) -> dict[str, Tensor]:
    """Tensors of embeddings and layers under the names of `XLMRobertaModel`, memory-mapped, as they lie in the files.

    A pickle is read with `weights_only`, written as safetensors under `state_dir` once, and read from there.
    Raises `ModelInvalid` for a file that cannot be read, and a tensor that is missing or of the wrong shape.
    """
    state: dict[str, Tensor] = {}
    for path in files:
        source = _converted(path, state_dir) if path.name == _PICKLE else path
        try:
            state |= load_file(source)
        except (OSError, SafetensorError) as error:
            raise ModelInvalid(f"The weights {source} cannot be read: {error}.") from error
    state = {name.removeprefix("roberta."): tensor for name, tensor in state.items()}
    shapes = expected_shapes(config)
    for name, shape in shapes.items():
        got = tuple(state[name].shape) if name in state else None
        if got != shape:
            what = "is missing" if got is None else f"has shape {got}"
            raise ModelInvalid(f"Tensor {name} of {files[0].parent} {what}; its config.json asks for {shape}.")
    return {name: state[name] for name in shapes}


def expected_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor of an `XLMRobertaModel` without its pooler."""
    wide, inner = config.hidden, config.intermediate
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocabulary, wide),
        "embeddings.position_embeddings.weight": (config.positions, wide),
        "embeddings.token_type_embeddings.weight": (config.types, wide),
        "embeddings.LayerNorm.weight": (wide,),
        "embeddings.LayerNorm.bias": (wide,),
    }
    linears = {
        "attention.self.query": (wide, wide),
        "attention.self.key": (wide, wide),
        "attention.self.value": (wide, wide),
        "attention.output.dense": (wide, wide),
        "intermediate.dense": (inner, wide),
        "output.dense": (wide, inner),
    }
    for layer in range(config.layers):
        prefix = f"encoder.layer.{layer}."
        for name, shape in linears.items():
            shapes[f"{prefix}{name}.weight"] = shape
            shapes[f"{prefix}{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{prefix}{name}.weight"] = shapes[f"{prefix}{name}.bias"] = (wide,)
    return shapes


def load_pickle(path: Path) -> dict[str, Tensor]:
    """A state dict from a `.pt` or `.bin` file that may hold tensors alone. Raises `ModelInvalid`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelInvalid(f"{path} cannot be read as weights: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelInvalid(f"{path} holds something else than a state dict.")
    return state


def _converted(path: Path, state_dir: Path) -> Path:
    target = state_dir / "converted" / f"{sha256_cached(path, state_dir)}.safetensors"
    if target.is_file():
        return target
    state = load_pickle(path)
    # A clone each: safetensors refuses tensors that share memory.
    owned = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    try:
        with replacing(target) as draft:
            save_file(owned, draft)
    except (OSError, SafetensorError) as error:
        raise ModelUnavailable(
            f"The weights {path} cannot be written as safetensors to {target.parent}: {error}.",
            hint="Make TRIVET_STATE_DIR writable, with room for the weights.",
        ) from error
    return target

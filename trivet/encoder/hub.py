"""Models of the Hugging Face hub: the small files first, for identity; the weights when an encoder loads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trivet.encoder.layout import OPTIONAL, REQUIRED, missing
from trivet.errors import MissingDependency, ModelUnavailable

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

#: Revisions that are used where none is asked for.
PINNED = {"BAAI/bge-m3": "5617a9f61b028005a4858fdac845db406aefb181"}

#: Seconds until the hub counts as out of reach.
TIMEOUT = 5.0

_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
_PICKLE = ("pytorch_model.bin",)


def small_files(hub_id: str, revision: str, cache: Path) -> Path:
    """The folder of a snapshot that holds all small files; its name is the commit.

    Looks in `cache`, then in the hub library's own cache, then asks the hub (and stores into `cache`). Raises
    `ModelUnavailable` where the hub does not answer in time or has no such model or revision.
    """
    for where in (cache, None):
        found = _cached(hub_id, revision, where)
        if found is not None:
            return found
    info = _info(hub_id, revision)
    return _download(hub_id, str(info.sha), [*REQUIRED, *OPTIONAL], cache)


def weights(hub_id: str, folder: Path) -> None:
    """Fetch the weights of a snapshot into it: safetensors where the hub has them, else the one pickle."""
    info = _info(hub_id, folder.name)
    names = {entry.rfilename for entry in info.siblings or ()}
    patterns = _SAFETENSORS if names & set(_SAFETENSORS) else _PICKLE
    # A snapshot lies at {cache}/models--{owner}--{name}/snapshots/{commit}.
    _download(hub_id, folder.name, list(patterns), folder.parents[2])


def _cached(hub_id: str, revision: str, cache: Path | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(hub_id, revision=revision or None, cache_dir=cache, local_files_only=True))
    except (OSError, HFValidationError):
        return None
    return None if missing(folder) else folder


def _info(hub_id: str, revision: str) -> ModelInfo:
    from huggingface_hub import HfApi, errors

    try:
        return HfApi().model_info(hub_id, revision=revision or None, timeout=TIMEOUT)
    except errors.HFValidationError:
        raise ModelUnavailable(f"{hub_id!r} is no name that the model hub could know.") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise ModelUnavailable(f"The model hub answered {status} for {hub_id!r} {revision}".rstrip() + ".") from error
    except _network_errors() as error:
        raise ModelUnavailable(f"The model hub does not answer, so {hub_id!r} cannot be fetched.") from error


def _download(hub_id: str, commit: str, patterns: list[str], cache: Path) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, revision=commit, allow_patterns=patterns, cache_dir=cache))
    except _network_errors() as error:
        raise ModelUnavailable(f"Fetching {hub_id!r} from the model hub broke off.", hint="Try again.") from error


def _network_errors() -> tuple[type[Exception], ...]:
    """What the hub library raises: OSErrors of its own, and all of the HTTP library that its version is built on."""
    from huggingface_hub import errors

    root: type[Exception] = vars(errors)["HTTPError"]
    return OSError, root


def require_library() -> None:
    """Raise `MissingDependency` where huggingface_hub is not installed."""
    try:
        import huggingface_hub  # noqa: F401 - only whether it is there
    except ImportError:
        raise MissingDependency(
            "Fetching a model from the hub needs the package huggingface_hub, which is not installed.",
            hint="Run: pip install 'trivet[prepare]'",
        ) from None

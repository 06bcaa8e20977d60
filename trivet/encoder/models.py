"""From a requested `model_id` to the model that will run. Reads small files alone: no torch, no weights.

Order: alias (explicit setting) → the built-in fake, by its name alone → an absolute folder → a folder under
`settings.models_folder` → the hub, where it is allowed. There is no fallback from one model to another.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from trivet.encoder import hub
from trivet.encoder.layout import COLBERT_HEAD, CONFIG, SPARSE_HEAD, Layout, read_layout, sha256_of
from trivet.errors import InvalidRequest, ModelUnavailable
from trivet.ids import digest
from trivet.settings import Settings
from trivet.values import ModelIdentity

#: The encoder for tests, which computes hashes; served only where a request or an alias says exactly this.
FAKE = "fake"
#: The folder under `settings.models_folder` where `trivet.embedded.model` builds.
EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that was found: who it is, and the folder with its files (no folder for the fake)."""

    identity: ModelIdentity
    folder: Path
    #: Set where the folder is a hub snapshot, to which weights can still be fetched.
    hub_id: str = ""
    #: What the model's own card says of its origin.
    provenance: str = ""


def resolve(settings: Settings, model_id: str, revision: str = "") -> ResolvedModel:
    """Find the model that answers to `model_id`.

    `revision` is held against what the folder states, or asked of the hub. An alias has its own revision, so one
    that was asked for under the other name is not passed on.
    Raises `ModelUnavailable` (nothing found, with what to do), `ModelInvalid` (a folder that lacks a part).
    """
    target = settings.model_aliases.get(model_id, model_id)
    if target != model_id:
        revision = ""
    if target == FAKE:
        return fake_model(requested=model_id)
    folder = _local_folder(settings, target)
    if folder.is_dir():
        return _from_folder(model_id, target, folder, revision)
    if target == EMBEDDED or Path(target).is_absolute():
        raise _unavailable(model_id, target, folder, "")
    if not settings.model_hub:
        raise _unavailable(model_id, target, folder, "the model hub is switched off (TRIVET_MODEL_HUB)")
    return _from_hub(settings, model_id, target, folder, revision or hub.PINNED.get(target, ""))


def _local_folder(settings: Settings, target: str) -> Path:
    base = settings.models_folder.absolute()
    folder = (base / target).resolve()
    if not target.strip() or not (Path(target).is_absolute() or folder.is_relative_to(base.resolve())):
        raise InvalidRequest(f"Model id {target[:200]!r} leads out of the models folder.")
    return folder


def _from_folder(requested: str, target: str, folder: Path, revision: str) -> ResolvedModel:
    layout = read_layout(folder)
    name = str(layout.card.get("name") or (folder.name if Path(target).is_absolute() else target))
    found = str(layout.card.get("revision") or _download_commit(folder) or _content_revision(folder))
    if revision and revision != found:
        raise ModelUnavailable(
            f"Revision {revision!r} of {requested!r} was asked for, but {folder} holds {found!r}.",
            hint="Leave the revision empty, or put that revision there.",
        )
    return ResolvedModel(_identity(requested, name, found, layout), folder, provenance=_provenance(layout))


def _from_hub(settings: Settings, requested: str, target: str, local: Path, revision: str) -> ResolvedModel:
    hub.require_library()
    try:
        folder = hub.small_files(target, revision, settings.models_folder.absolute() / "hub")
    except ModelUnavailable as error:
        raise _unavailable(requested, target, local, error.message.rstrip(".")) from error
    layout = read_layout(folder)
    identity = _identity(requested, target, folder.name, layout)
    return ResolvedModel(identity, folder, hub_id=target, provenance=f"Hugging Face hub: {target} at {folder.name}")


def _unavailable(requested: str, target: str, folder: Path, why: str) -> ModelUnavailable:
    named = repr(requested) if requested == target else f"{requested!r} (alias of {target!r})"
    reason = f", and {why[0].lower()}{why[1:]}" if why else ""
    if target == EMBEDDED:
        hint = f"Build the embedded model: python -m trivet.embedded.model {folder}"
    else:
        hint = (
            f"Put its files into {folder}, or let another model answer to the name: "
            f'TRIVET_MODEL_ALIASES=\'{{"{requested}": "{EMBEDDED}"}}\'.'
        )
    return ModelUnavailable(f"There are no weights for {named}: no folder {folder}{reason}.", hint=hint)


def _identity(requested: str, name: str, revision: str, layout: Layout) -> ModelIdentity:
    identity = ModelIdentity(
        requested=requested,
        name=name,
        revision=revision,
        encoder_key="",
        dimensions=layout.config.hidden,
        colbert_dimensions=layout.colbert_dimensions,
        max_tokens=layout.max_tokens,
        pooling=layout.pooling,
        passage_prompt=layout.passage_prompt,
        query_prompt=layout.query_prompt,
    )
    parts = [identity.model_dump(exclude={"requested"}), asdict(layout.config), layout.tokenizer_sha256]
    return identity.model_copy(update={"encoder_key": digest(parts)})


def fake_model(dimensions: int = 64, requested: str = FAKE) -> ResolvedModel:
    """The fake encoder's model; its dimensions are part of its encoder key."""
    identity = ModelIdentity(
        requested=requested,
        name=FAKE,
        revision="1",
        encoder_key="",
        dimensions=dimensions,
        colbert_dimensions=dimensions,
        max_tokens=8192,
        pooling="mean",
    )
    key = digest(identity.model_dump(exclude={"requested"}))
    return ResolvedModel(identity.model_copy(update={"encoder_key": key}), Path())


def _download_commit(folder: Path) -> str:
    """The commit that `hf download --local-dir` notes beside the files, or empty."""
    note = folder / ".cache" / "huggingface" / "download" / f"{CONFIG}.metadata"
    try:
        return note.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        return ""


def _content_revision(folder: Path) -> str:
    """A revision for a folder that states none: the heads tell one fine-tune from another."""
    both = "".join(sha256_of(folder / name) for name in (SPARSE_HEAD, COLBERT_HEAD))
    return "content-" + hashlib.sha256(both.encode()).hexdigest()[:16]


def _provenance(layout: Layout) -> str:
    licence = layout.card.get("licence")
    text = str(layout.card.get("provenance") or "")
    return f"{text} Licence: {licence}." if licence else text

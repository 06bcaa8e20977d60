"""What `trivet tune encoder` found on this machine, and where it counts.

A setting that was given explicitly wins over what was measured, and that over built-in defaults. Loads neither torch
nor weights: the supervisor and the command line ask here.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from trivet.encoder.files import replacing
from trivet.errors import InvalidRequest, TrivetError
from trivet.machine import cores, gpus, processor
from trivet.settings import Settings
from trivet.values import Frozen

log = logging.getLogger(__name__)

#: Processes and threads belong together: whoever sets one of them has another layout in mind.
_LAYOUT = frozenset({"embed_workers", "encoder_threads"})


class Place(Frozen):
    """What a measurement holds for; in any other place it is ignored."""

    #: Processor and cores that this process may use, and whether a GPU computes.
    machine: str
    encoder_key: str
    torch: str
    #: `settings.encoder_backend`, auto where nobody chose one.
    backend: str


class Figure(Frozen):
    """One way to run the encoder, and how fast it was."""

    dtype: str
    processes: int
    threads: int
    forward_tokens: int
    #: Median over the rounds, all processes together.
    tokens_per_second: float
    #: Each round's own.
    rounds: tuple[float, ...]


class Tuning(Frozen):
    """The choice, and all figures that it was made from."""

    place: Place
    #: The model that ran.
    model: str
    #: ISO 8601, UTC.
    measured_at: str
    #: As bounded as the settings that they stand in for: nobody checks them again.
    dtype: Literal["fp32", "bf16", "fp16", "int8"]
    processes: int = Field(ge=1)
    threads: int = Field(ge=1)
    forward_tokens: int = Field(ge=64)
    #: Dtypes and layouts at one budget; then budgets with the dtype and layout that were chosen.
    figures: tuple[Figure, ...]
    budgets: tuple[Figure, ...]
    #: The built-in defaults among `figures`; None where they were not measured.
    default: Figure | None = None
    #: What was not measured, or cannot be chosen, and why; a sentence each.
    notes: tuple[str, ...] = ()


class _File(Frozen):
    schema_version: Literal[1] = 1
    tunings: tuple[Tuning, ...] = ()


def path(settings: Settings) -> Path:
    """Where tunings are kept."""
    return settings.state_dir / "tuning.json"


def place(settings: Settings) -> Place:
    """This machine, with the model that embed workers serve. Raises what `trivet.encoder.models.resolve` raises."""
    from trivet.encoder.models import resolve

    torch = ""
    with suppress(PackageNotFoundError):
        torch = version("torch")
    which = f"{cores()} cores{', GPU' if on_gpu(settings) else ''}"
    key = resolve(settings, settings.embed_model).identity.encoder_key
    return Place(machine=f"{processor()}, {which}", encoder_key=key, torch=torch, backend=settings.encoder_backend)


def on_gpu(settings: Settings) -> bool:
    """Whether a GPU would compute, without asking torch."""
    return settings.device == "cuda" or (settings.device == "auto" and Path("/dev/nvidiactl").exists())


def cards(settings: Settings) -> int:
    """GPUs that would compute; 0 where the CPU does."""
    return max(1, len(gpus())) if on_gpu(settings) else 0


def find(settings: Settings) -> tuple[Tuning | None, str]:
    """The tuning for this place; without one, why what is there does not count (empty where nothing is there)."""
    file = path(settings)
    try:
        known = _File.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{file} cannot be read: {error.strerror}"
    except ValidationError:
        return None, f"{file} is damaged, or of another version"
    try:
        here = place(settings)
    except TrivetError as error:
        return None, f"{file} is of no use without the model: {error.message}"
    for tuning in known.tunings:
        if tuning.place == here:
            return tuning, ""
    return None, f"{file} holds figures of another machine, model, torch or backend"


def check_can_keep(settings: Settings) -> None:
    """Raises `InvalidRequest` where no tuning can be written: before minutes are spent on one."""
    folder = path(settings).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidRequest(
            f"The choice could not be kept: {folder} cannot be written ({error.strerror}).",
            hint="Set TRIVET_STATE_DIR to a folder that can be written.",
        ) from error


def keep(settings: Settings, tuning: Tuning) -> None:
    """Note a tuning; one for the same place is replaced. Raises `OSError`."""
    file = path(settings)
    known = _File()
    with suppress(OSError, ValidationError):
        known = _File.model_validate_json(file.read_bytes())
    others = tuple(other for other in known.tunings if other.place != tuning.place)
    with replacing(file) as draft:
        draft.write_text(_File(tunings=(*others, tuning)).model_dump_json(indent=1), encoding="utf-8")


def in_force(settings: Settings, tuning: Tuning) -> Mapping[str, str | int]:
    """Setting → value, of what nobody set.

    A dtype of auto leaves the choice, so it is none; unless all the others are set. So it is in a worker that a
    supervisor has told every setting: one that is started again must not compute in another dtype than those beside it.
    """
    given = set(settings.model_fields_set)
    if given & _LAYOUT:
        given |= _LAYOUT
    if settings.dtype == "auto" and not given >= {"forward_tokens", *_LAYOUT}:
        given.discard("dtype")
    values: dict[str, str | int] = {
        "dtype": tuning.dtype,
        "forward_tokens": tuning.forward_tokens,
        # One GPU was measured, with all cores.
        "embed_workers": tuning.processes * (cards(settings) or 1),
        "encoder_threads": max(1, tuning.threads // (cards(settings) or 1)),
    }
    return {name: value for name, value in values.items() if name not in given}


def tuned(settings: Settings) -> Settings:
    """These settings, with what was measured here where nobody set anything.

    A file of measurements that does not fit is ignored, with one line in the log.
    """
    tuning, why = find(settings)
    if tuning is None:
        if why:
            # Not through structlog, which writes to stdout where nobody has set it up, as in the command line.
            log.warning("tuning is ignored: %s", why)
        return settings
    return settings.model_copy(update=in_force(settings, tuning))

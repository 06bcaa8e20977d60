"""Whether the API lives, and whether all that it needs answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Literal, cast

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from producers.http.context import Context, ContextOf
from producers.http.edge import access
from trivet import __version__
from trivet.errors import MissingDependency, NotInStore, TrivetError
from trivet.names import Stage
from trivet.stores.layout import ledger_mark

router = APIRouter(tags=["health"])

_LOOK = "dependencies"
_LOOK_SECONDS = 1.0


class Live(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str = Field(examples=["0.1.0"])


class Dependency(BaseModel):
    """One thing that the API needs."""

    status: Literal["ok", "missing", "down"]
    required: bool = Field(description="Whether the API is not ready without it.")
    milliseconds: float = Field(description="How long the look at it took.")
    message: str = Field("", description="Empty where the API asks for keys.")


class Ready(BaseModel):
    """Whether requests can be served, and what of all that they need answers."""

    status: Literal["ready", "not_ready"]
    dependencies: dict[str, Dependency]


class Services(BaseModel):
    """Mixpeek's names for what answers."""

    cache: bool
    metadata: bool
    vector_store: bool
    object_storage: bool
    task_queue: bool
    inference: bool


class Health(BaseModel):
    """Whether all is well, in Mixpeek's shape."""

    status: Literal["OK", "DEGRADED"]
    data: Services


@router.get("/health", operation_id="health", summary="Whether all is well")
@router.get("/v1/health", operation_id="health_v1", summary="Whether all is well")
def health(context: ContextOf) -> Health:
    """Degraded where anything does not answer, workers among it; `/health/ready` says more."""
    found = _dependencies(context)
    up = {name: each.status == "ok" for name, each in found.items()}
    workers = all(up[f"workers_{stage}"] for stage in Stage)
    services = Services(
        cache=up["redis"],
        metadata=up["redis"],
        vector_store=up["s3"],
        object_storage=up["s3"],
        task_queue=up["redis"] and workers,
        inference=up["workers_embed"],
    )
    return Health(status="OK" if all(up.values()) else "DEGRADED", data=services)


@router.get("/health/live", operation_id="health_live", summary="Whether the process answers")
def live() -> Live:
    """Asks nothing of Redis or S3: a restart of this process would not bring those back."""
    return Live(version=__version__)


@router.get(
    "/health/ready",
    operation_id="health_ready",
    summary="Whether all that requests need answers",
    responses={503: {"model": Ready, "description": "Something that is required does not answer."}},
)
def ready(context: ContextOf, response: Response) -> Ready:
    """Redis and S3 are required; workers and the search packages are told, since without them tasks only wait."""
    found = _dependencies(context)
    if access.keys_are_asked_for(context.settings):
        # Anybody may ask, and a message names hosts.
        found = {name: each.model_copy(update={"message": ""}) for name, each in found.items()}
    down = any(each.required and each.status != "ok" for each in found.values())
    if down:
        response.status_code = 503
    return Ready(status="not_ready" if down else "ready", dependencies=found)


def _dependencies(context: Context) -> dict[str, Dependency]:
    """As it was within the last second: anybody may ask, and no more often than that does it cost anything."""
    now = context.clock.monotonic()
    at, found = context.looks.get(_LOOK, (0.0, None))
    if found is None or now - at > _LOOK_SECONDS:
        found = _look(context)
        context.looks[_LOOK] = (now, found)
    return cast("dict[str, Dependency]", found)


def _look(context: Context) -> dict[str, Dependency]:
    return {
        "redis": _looked(lambda: context.ledger.ping(), required=True),
        "s3": _looked(lambda: _s3(context), required=True),
        **{f"workers_{stage}": _looked(partial(_workers, context, stage), required=False) for stage in Stage},
        "search": _looked(_search, required=False),
    }


def _looked(look: Callable[[], object], *, required: bool) -> Dependency:
    began, status, message = time.monotonic(), "ok", ""
    try:
        look()
    except MissingDependency as error:
        status, message = "missing", str(error)
    except TrivetError as error:
        status, message = "down", str(error)
    return Dependency.model_validate(
        {
            "status": status,
            "required": required,
            "milliseconds": round(1000 * (time.monotonic() - began), 1),
            "message": message,
        }
    )


def _s3(context: Context) -> None:
    try:
        context.store.head(ledger_mark(context.settings))
    except NotInStore:
        return


def _workers(context: Context, stage: Stage) -> None:
    alive = [info for info in context.ledger.backlog().workers.values() if stage in info.get("roles", ())]
    if not alive:
        raise MissingDependency(f"No {stage} worker runs.", hint="Tasks wait until one does.")


def _search() -> None:
    for package in ("pyarrow", "tokenizers", "torch"):
        if find_spec(package) is None:
            raise MissingDependency(f"Searching needs the package {package}.", hint="pip install 'trivet[search]'")

"""Whether the API lives, and whether all that it needs answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from producers.http.context import Context, ContextOf
from producers.http.edge import access
from trivet import __version__
from trivet.errors import MissingDependency, NotInStore, TrivetError
from trivet.names import Stage
from trivet.stores.layout import ledger_mark

router = APIRouter(tags=["health"])


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


@router.get("/health", operation_id="health", summary="Whether the process answers")
@router.get("/v1/health", operation_id="health_v1", summary="Whether the process answers")
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
    found = {
        "redis": _looked(lambda: context.ledger.ping(), required=True),
        "s3": _looked(lambda: _s3(context), required=True),
        **{
            f"workers_{stage}": _looked(lambda stage=stage: _workers(context, stage), required=False) for stage in Stage
        },
        "search": _looked(_search, required=False),
    }
    if access.keys_are_asked_for(context.settings):
        # Anybody may ask, and a message names hosts.
        found = {name: each.model_copy(update={"message": ""}) for name, each in found.items()}
    down = any(each.required and each.status != "ok" for each in found.values())
    if down:
        response.status_code = 503
    return Ready(status="not_ready" if down else "ready", dependencies=found)


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

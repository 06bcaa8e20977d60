"""API keys and the audit log of the caller's namespace."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat

from producers.http.caller import CallerOf
from producers.http.context import ContextOf
from producers.http.route import Guarded
from trivet.errors import Forbidden
from trivet.keys import EVERY_NAMESPACE, ApiKey, KeyLimits, Scope
from trivet.keys.service import DEFAULT_SCOPES

# Without Idempotency-Key: an answer that holds a secret is kept nowhere.
router = APIRouter(prefix="/v1", tags=["keys"], route_class=Guarded)

_ID = Field(description="The visible beginning of the key.", examples=["sk_0123456789abcdef"])


class KeyCreate(BaseModel):
    """What a new key may do."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "web app", "scopes": ["ingest"]}})

    name: str = Field("", max_length=100, examples=["web app"])
    scopes: list[Scope] = Field(list(DEFAULT_SCOPES), min_length=1, max_length=len(Scope))
    expires_days: StrictFloat | None = Field(None, gt=0, le=3650, description="None: never.")
    limits: KeyLimits = KeyLimits()
    every_namespace: StrictBool = Field(
        False, description="For all namespaces; only a key that is so itself may make one."
    )


class KeyRotate(BaseModel):
    """How long the secret before goes on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"overlap_seconds": 3600}})

    overlap_seconds: StrictFloat = Field(86_400.0, ge=0, le=31_536_000)


class KeyAnswer(BaseModel):
    """A key without its secret. Times are seconds since the epoch."""

    key_id: str = _ID
    namespace: str = Field(description="`*`: all.")
    name: str
    scopes: list[Scope]
    limits: KeyLimits
    state: str = Field(description="active, expired or revoked", examples=["active"])
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = Field(None, description="To the minute, about.")
    old_secret_until: float | None = Field(None, description="Until when a secret that was replaced is good.")


class NewKeyAnswer(KeyAnswer):
    """A key with its whole text, which is shown this once."""

    api_key: str = Field(description="Send it as `Authorization: Bearer …`.")


class KeyList(BaseModel):
    """The keys of a namespace, the oldest first."""

    results: list[KeyAnswer]
    total_count: int


class AuditEntry(BaseModel):
    """Who did what."""

    at: float = Field(description="Seconds since the epoch.")
    namespace: str
    who: str = Field(description="A key's id, `anybody` where none is asked for, or `cli`.")
    action: str = Field(examples=["create_key"])
    target: str
    outcome: str = Field(examples=["200"])
    address: str


class AuditList(BaseModel):
    """Entries, the newest first."""

    results: list[AuditEntry]


@router.post("/keys", operation_id="create_key", summary="Make an API key", status_code=201)
def create_key(body: KeyCreate, caller: CallerOf, context: ContextOf) -> NewKeyAnswer:
    """The whole key is in the answer, and nowhere else."""
    keys = context.edge.keys
    if body.every_namespace and not _everywhere(caller, context):
        raise Forbidden("Only a key for all namespaces may make one for all namespaces.")
    made, text = keys.create(
        EVERY_NAMESPACE if body.every_namespace else caller.namespace,
        name=body.name,
        scopes=body.scopes,
        expires_days=body.expires_days,
        limits=body.limits,
    )
    return NewKeyAnswer(**_shown(made, context), api_key=text)


@router.get("/keys", operation_id="list_keys", summary="List the API keys of the namespace")
def list_keys(caller: CallerOf, context: ContextOf) -> KeyList:
    """Revoked keys are listed for 30 days."""
    found = [KeyAnswer(**_shown(key, context)) for key in context.edge.keys.list(caller.namespace)]
    return KeyList(results=found, total_count=len(found))


@router.get("/keys/{key_id}", operation_id="get_key", summary="Show one API key")
def get_key(key_id: str, caller: CallerOf, context: ContextOf) -> KeyAnswer:
    """Another namespace's key is unknown."""
    return KeyAnswer(**_shown(context.edge.keys.get(key_id, caller.namespace), context))


@router.post("/keys/{key_id}/rotate", operation_id="rotate_key", summary="Give an API key another secret")
def rotate_key(key_id: str, body: KeyRotate, caller: CallerOf, context: ContextOf) -> NewKeyAnswer:
    """The secret before it is good for the overlap."""
    made, text = context.edge.keys.rotate(key_id, caller.namespace, overlap_seconds=body.overlap_seconds)
    return NewKeyAnswer(**_shown(made, context), api_key=text)


@router.delete("/keys/{key_id}", operation_id="revoke_key", summary="End an API key at once")
def revoke_key(key_id: str, caller: CallerOf, context: ContextOf) -> KeyAnswer:
    """The next request with it is refused."""
    context.edge.keys.revoke(key_id, caller.namespace)
    return KeyAnswer(**_shown(context.edge.keys.get(key_id, caller.namespace), context))


@router.get("/audit-log", operation_id="list_audit_log", summary="Who changed, deleted or was refused what")
def list_audit_log(
    caller: CallerOf, context: ContextOf, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> AuditList:
    """Of the caller's namespace, the newest first."""
    found = context.edge.trail.entries(caller.namespace, limit)
    return AuditList(results=[AuditEntry(**dict(each)) for each in found])


def _shown(key: ApiKey, context: ContextOf) -> dict[str, Any]:
    return key.public(context.clock.now())


def _everywhere(caller: CallerOf, context: ContextOf) -> bool:
    if not caller.key_id:
        return True
    return context.edge.keys.get(caller.key_id).namespace == EVERY_NAMESPACE

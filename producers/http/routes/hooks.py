"""Webhooks in: what senders call, and the hooks of the caller's namespace."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictFloat
from starlette.concurrency import run_in_threadpool

from producers.http.caller import CallerOf
from producers.http.context import Context, ContextOf, context_of
from producers.http.edge import access
from producers.http.route import Guarded
from trivet.errors import HookRefused, UnknownHook
from trivet.hooks import Hook, Incoming, Ingest, Received
from trivet.hooks.service import Hooks
from trivet.ids import redact_url

# Without Idempotency-Key: an answer that holds a secret is kept nowhere.
router = APIRouter(prefix="/v1", tags=["hooks"], route_class=Guarded)


#: Read as bytes, since it is verified as such.
_ANY_BODY = {
    "requestBody": {
        "content": {"application/json": {"schema": {}, "example": {"url": "https://example.com/handbook.pdf"}}}
    }
}


class HookCreate(BaseModel):
    """Who sends, and what it is to mean."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"scheme": "github", "collection": "docs"}})

    scheme: str = Field(description="standard, github, s3, sns, eventbridge or hmac.", examples=["github"])
    collection: str = Field(examples=["docs"])
    options: dict[str, Any] = Field(default_factory=dict, description="Of the scheme.", examples=[{"paths": ["*.md"]}])
    secret: str = Field("", max_length=500, description="For senders that make their own; else one is made.")
    description: str = Field("", max_length=500)


class HookRotate(BaseModel):
    """Another secret."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"overlap_seconds": 3600}})

    secret: str = Field("", max_length=500)
    overlap_seconds: StrictFloat = Field(86_400.0, ge=0, le=31_536_000)


class HookAnswer(BaseModel):
    """A hook without its secret. Times are seconds since the epoch."""

    hook_id: str = Field(examples=["hook_0123456789abcdef01234567"])
    namespace: str
    collection: str
    scheme: str
    options: dict[str, Any]
    description: str
    url: str = Field(
        description="The path that the sender calls.", examples=["/v1/hooks/hook_0123456789abcdef01234567"]
    )
    created_at: float
    last_at: float | None = Field(None, description="When it last took a delivery in.")
    last_kind: str = ""


class NewHookAnswer(HookAnswer):
    """A hook with its secret, which is shown this once; empty where the scheme has none."""

    secret: str = ""


class HookList(BaseModel):
    """The hooks of a namespace, the oldest first."""

    results: list[HookAnswer]
    total_count: int


class Meant(BaseModel):
    """One source."""

    action: str = Field(examples=["ingest"])
    object_id: str
    url: str


class HookTest(BaseModel):
    """What a delivery would mean; nothing was ingested."""

    kind: str
    actions: list[Meant]
    ignored: list[str]


class Removed(BaseModel):
    """It is gone."""

    hook_id: str
    deleted: bool = True


@router.post(
    "/hooks/{hook_id}",
    operation_id="receive_hook",
    summary="Take a delivery in (called by the sender)",
    description="Signed as the hook's scheme says; no API key. Sent again, a delivery is known again.",
    openapi_extra=_ANY_BODY,
)
async def receive_hook(hook_id: str, request: Request) -> Received:
    """The body is read once it is known that there is such a hook, and understood once it is verified."""
    edge = context_of(request).edge
    try:
        await run_in_threadpool(edge.hook_book.hook, hook_id)
        incoming = Incoming.of(request.headers.items(), await request.body())
        return await run_in_threadpool(edge.receiver.receive, hook_id, incoming)
    except (HookRefused, UnknownHook):
        await run_in_threadpool(access.count_failure, edge, request)
        raise


@router.post("/hooks", operation_id="create_hook", summary="Create a hook", status_code=201)
def create_hook(body: HookCreate, caller: CallerOf, context: ContextOf) -> NewHookAnswer:
    """Its collection must be there."""
    context.client(caller.namespace).collection(body.collection)
    made = _hooks(context, caller).add(
        body.scheme,
        collection=body.collection,
        options=body.options,
        secret=body.secret,
        description=body.description,
    )
    return _with_secret(made)


@router.get("/hooks", operation_id="list_hooks", summary="List the hooks of the namespace")
def list_hooks(caller: CallerOf, context: ContextOf) -> HookList:
    """Without their secrets."""
    found = [HookAnswer(**_shown(hook)) for hook in _hooks(context, caller).list()]
    return HookList(results=found, total_count=len(found))


@router.get("/hooks/{hook_id}", operation_id="get_hook", summary="Show one hook")
def get_hook(hook_id: str, caller: CallerOf, context: ContextOf) -> HookAnswer:
    """Another namespace's hook is unknown."""
    return HookAnswer(**_shown(_hooks(context, caller).get(hook_id)))


@router.post(
    "/hooks/{hook_id}/test",
    operation_id="test_hook",
    summary="Say what a delivery would mean",
    openapi_extra=_ANY_BODY,
)
async def test_hook(hook_id: str, request: Request, caller: CallerOf, context: ContextOf) -> HookTest:
    """The request's body is the payload, as the sender would send it; where it is empty, one that shows the most."""
    hooks = _hooks(context, caller)
    found = await run_in_threadpool(hooks.test, hook_id, await request.body())
    actions = [
        Meant(
            action="ingest" if isinstance(each, Ingest) else "delete",
            object_id=each.object_id,
            url=redact_url(each.url),
        )
        for each in found.actions
    ]
    return HookTest(kind=found.kind, actions=actions, ignored=list(found.ignored))


@router.post("/hooks/{hook_id}/rotate", operation_id="rotate_hook", summary="Give a hook another secret")
def rotate_hook(hook_id: str, body: HookRotate, caller: CallerOf, context: ContextOf) -> NewHookAnswer:
    """The secret before it verifies along for the overlap."""
    hooks = _hooks(context, caller)
    return _with_secret(hooks.rotate(hook_id, secret=body.secret, overlap_seconds=body.overlap_seconds))


@router.delete("/hooks/{hook_id}", operation_id="delete_hook", summary="Delete a hook")
def delete_hook(hook_id: str, caller: CallerOf, context: ContextOf) -> Removed:
    """Its deliveries are refused from now on."""
    _hooks(context, caller).remove(hook_id)
    return Removed(hook_id=hook_id)


def _hooks(context: Context, caller: CallerOf) -> Hooks:
    return Hooks(context.settings, caller.namespace, book=context.edge.hook_book, clock=context.clock)


def _shown(hook: Hook) -> dict[str, Any]:
    return {**hook.public(), "url": f"/v1/hooks/{hook.hook_id}"}


def _with_secret(hook: Hook) -> NewHookAnswer:
    return NewHookAnswer(**_shown(hook), secret=hook.secrets[0].value.get_secret_value() if hook.secrets else "")

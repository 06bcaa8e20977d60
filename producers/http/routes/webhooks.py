"""Webhooks: endpoints that get the namespace's events, signed after Standard Webhooks."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictBool

from producers.http.answers import Deleted, timestamp
from producers.http.caller import Caller, CallerOf
from producers.http.context import Context, ContextOf
from producers.http.kept import Kept, Shelf
from producers.http.once import new_id
from producers.http.paging import Page, PageBody, PageQuery, PageRequest, cursor_to, number_from, page_of
from producers.http.route import router as make_router
from trivet.delivery.values import Endpoint, EndpointState
from trivet.errors import InvalidRequest, TrivetError, UnknownEndpoint
from trivet.names import EventKind

router = make_router("webhooks")
_EXAMPLE: dict[str, Any] = {
    "webhook_name": "ingested",
    "event_types": ["collection.documents.written"],
    "channels": [{"channel": "webhook", "configs": {"url": "https://example.com/hook"}}],
}
#: Mixpeek's event → ours. The others of its list are never sent, and an answer says so.
_KINDS: dict[str, tuple[EventKind, ...]] = {
    "object.created": (EventKind.ACCEPTED,),
    "object.updated": (EventKind.COMPLETED,),
    "object.deleted": (EventKind.DELETED,),
    "document.created": (EventKind.COMPLETED,),
    "document.updated": (EventKind.COMPLETED,),
    "document.deleted": (EventKind.DELETED,),
    "collection.documents.written": (EventKind.COMPLETED,),
    "collection.documents.batch_completed": (EventKind.COMPLETED, EventKind.SKIPPED, EventKind.FAILED),
}


class Channel(BaseModel):
    """Where events go."""

    model_config = ConfigDict(extra="ignore")

    channel: str = Field("webhook", max_length=40)
    configs: dict[str, Any]


class WebhookRequest(BaseModel):
    """A new webhook."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": _EXAMPLE})

    webhook_name: str = Field(min_length=1, max_length=200, validation_alias=AliasChoices("webhook_name", "name"))
    event_types: list[str] = Field(min_length=1, max_length=100)
    channels: list[Channel] = Field(min_length=1, max_length=10)
    is_active: StrictBool = True


class WebhookAnswer(BaseModel):
    """A webhook."""

    webhook_id: str = Field(pattern="^wh_[0-9a-fA-F]{16}$", examples=["wh_0123456789abcdef"])
    webhook_name: str
    event_types: list[str]
    channels: list[Channel]
    is_active: bool
    created_at: str
    signing_secrets: list[str] | None = Field(None, description="One per channel; shown when it is made, then never.")
    warnings: list[str]


class KeptWebhook(Kept):
    """A webhook: the endpoints that it stands for."""

    webhook_name: str
    event_types: tuple[str, ...]
    endpoint_ids: tuple[str, ...]
    notes: tuple[str, ...] = ()


@router.post("/organizations/webhooks", operation_id="create_webhook", summary="Create a webhook")
def create(context: ContextOf, who: CallerOf, request: Request, asked: WebhookRequest) -> WebhookAnswer:
    """Mixpeek's event names, or this system's own. Bodies are CloudEvents, signed after Standard Webhooks."""
    webhook_id = new_id(request, "wh", 16)
    found = _shelf(context, who).find(webhook_id)
    if found is not None:
        return _answer(context, who, *found)
    kinds, notes = _kinds(asked.event_types)
    endpoints = context.client(who.namespace).endpoints()
    made: list[Endpoint] = []
    try:
        for url in [_url(channel) for channel in asked.channels]:
            made.append(  # noqa: PERF401 - those before one that is refused are needed
                endpoints.add(url, transport="webhook", kinds=kinds, description=asked.webhook_name[:200])
            )
    except TrivetError:
        # All of them or none: an endpoint that no webhook shows would get events that nobody could end.
        for endpoint in made:
            endpoints.remove(endpoint.endpoint_id)
        raise
    if not asked.is_active:
        for endpoint in made:
            endpoints.pause(endpoint.endpoint_id, "made so")
    value = KeptWebhook(
        created_at=context.clock.now(),
        webhook_name=asked.webhook_name,
        event_types=tuple(asked.event_types),
        endpoint_ids=tuple(endpoint.endpoint_id for endpoint in made),
        notes=notes,
    )
    kept, _ = _shelf(context, who).make(webhook_id, value)
    secrets = [endpoint.secrets[0].value.get_secret_value() for endpoint in made]
    return _answer(context, who, webhook_id, kept).model_copy(update={"signing_secrets": secrets})


@router.get("/organizations/webhooks", operation_id="list_webhooks", summary="List webhooks")
def list_by_query(context: ContextOf, who: CallerOf, asked: PageQuery) -> Page[WebhookAnswer]:
    """The newest first."""
    return _page(context, who, asked)


@router.post("/organizations/webhooks/list", operation_id="list_webhooks_post", summary="List webhooks")
def list_by_body(context: ContextOf, who: CallerOf, asked: PageBody) -> Page[WebhookAnswer]:
    """The same, asked in a body."""
    return _page(context, who, asked)


@router.get("/organizations/webhooks/{webhook_id}", operation_id="get_webhook", summary="Get a webhook")
def get(context: ContextOf, who: CallerOf, webhook_id: str) -> WebhookAnswer:
    """Without its secret."""
    return _answer(context, who, *_shelf(context, who).get(webhook_id))


@router.delete("/organizations/webhooks/{webhook_id}", operation_id="delete_webhook", summary="Delete a webhook")
def delete(context: ContextOf, who: CallerOf, webhook_id: str) -> Deleted:
    """With all that waits for it."""
    found, kept = _shelf(context, who).get(webhook_id)
    endpoints = context.client(who.namespace).endpoints()
    for endpoint_id in kept.endpoint_ids:
        try:
            endpoints.remove(endpoint_id)
        except UnknownEndpoint:
            # Removed elsewhere.
            continue
    _shelf(context, who).delete(found)
    return Deleted()


def _url(channel: Channel) -> str:
    url = channel.configs.get("url")
    if channel.channel != "webhook" or not isinstance(url, str):
        raise InvalidRequest(
            f"The channel {channel.channel[:40]!r} cannot be served.",
            hint='Use {"channel": "webhook", "configs": {"url": …}}.',
        )
    return url


def _kinds(event_types: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Our kinds, and a sentence for each event that is never sent. Raises `InvalidRequest` where none is."""
    kinds: list[str] = []
    notes = []
    for each in event_types:
        own = each.removeprefix("trivet.")
        if own in set(EventKind):
            kinds.append(own)
        elif each in _KINDS:
            kinds += _KINDS[each]
        else:
            notes.append(f"{each[:80]} is never sent.")
    if not kinds:
        known = ", ".join((*_KINDS, *EventKind))
        raise InvalidRequest("None of these events is ever sent.", hint=f"Use some of {known}.")
    return tuple(dict.fromkeys(kinds)), tuple(notes)


def _shelf(context: Context, who: Caller) -> Shelf[KeptWebhook]:
    return Shelf(context, who.namespace, "webhook", KeptWebhook)


def _page(context: Context, who: Caller, asked: PageRequest) -> Page[WebhookAnswer]:
    shelf = _shelf(context, who)
    found, rest = shelf.page(number_from("webhooks", asked.cursor), asked.limit)
    results = [_answer(context, who, webhook_id, kept) for webhook_id, kept in found]
    cursor = None if rest is None else cursor_to("webhooks", str(rest))
    return page_of(results, asked.limit, total=shelf.count(), next_cursor=cursor)


def _answer(context: Context, who: Caller, webhook_id: str, kept: KeptWebhook) -> WebhookAnswer:
    there = {each.endpoint_id: each for each in context.client(who.namespace).endpoints().list()}
    found = [there[each] for each in kept.endpoint_ids if each in there]
    return WebhookAnswer(
        webhook_id=webhook_id,
        webhook_name=kept.webhook_name,
        event_types=list(kept.event_types),
        channels=[Channel(channel="webhook", configs={"url": each.public()["target"]}) for each in found],
        is_active=any(each.state is EndpointState.ACTIVE for each in found),
        created_at=timestamp(kept.created_at),
        warnings=list(kept.notes),
    )

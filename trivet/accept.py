"""The door: an ingest request becomes a row in the ledger. Producers of every kind come through here."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from trivet.clock import SystemClock
from trivet.errors import (
    Conflict,
    IdempotencyConflict,
    InvalidRequest,
    SourceRefused,
    SourceTooLarge,
    TrivetError,
    UnknownCollection,
)
from trivet.faults import fault
from trivet.ids import canonical_url, is_data_url, new_task_id, object_id_for, redact_url
from trivet.ledger import Accepted, Ledger, NewTask
from trivet.ledger.refusals import unknown_collection
from trivet.names import TaskKind
from trivet.settings import Settings
from trivet.values import IngestRequest, dump

if TYPE_CHECKING:
    from trivet.rebuild.records import CollectionMemory
    from trivet.stores import ObjectStore
    from trivet.stores.layout import Layout

#: What prepare is charged until it knows better.
_ESTIMATED_BYTES = 65_536
_MAX_METADATA = 16_384
#: Of lists and objects in each other in the metadata. A manifest holds them, and Pydantic writes 255 at most.
_MOST_LEVELS = 100
_MAX_DATA_URL = 256 * 1024
#: What servers and proxies take, about.
_MAX_URL = 8192
_JSON_TYPES: dict[type, str] = {list: "array", str: "string", int: "number", float: "number", bool: "boolean"}


def parse_request(payload: object) -> IngestRequest:
    """The request in a JSON payload. Raises `InvalidRequest` with the field that is wrong."""
    if not isinstance(payload, dict):
        raise InvalidRequest(
            f"The request is a JSON {_JSON_TYPES.get(type(payload), 'value')}, not an object.",
            hint='Send an object such as {"url": "https://host/path", "collection": "docs"}.',
        )
    try:
        return IngestRequest.model_validate(payload)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "request"
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InvalidRequest):
            raise InvalidRequest(f"{where}: {cause.message}", hint=cause.hint) from None
        raise InvalidRequest(f"{where}: {first['msg'].lower()}.") from None


def accept(
    ledger: Ledger,
    settings: Settings,
    request: IngestRequest,
    *,
    task_id: str | None = None,
    store: ObjectStore | None = None,
    encoder_wish: str = "",
) -> Accepted:
    """Write the task down; once this returns it survives every crash but the loss of the ledger itself.

    With the setting `durable_accept` it survives that too: an intent is put on S3 first, into `store` or else the one
    that the settings name. Raises `UnknownCollection`, `IdempotencyConflict`, `InvalidRequest`, `SourceTooLarge`,
    `LedgerUnavailable`, for an intent that cannot be written `StoreUnavailable` or `StoreForbidden`, and `Conflict`
    where an `encoder_wish` is given and the collection's is another.
    """
    metadata = _metadata_json(request.metadata)
    if len(metadata) > _MAX_METADATA:
        raise InvalidRequest(
            f"The metadata has {len(metadata)} characters of JSON.", hint=f"At most {_MAX_METADATA} are allowed."
        )
    if is_data_url(request.url) and len(request.url) > _MAX_DATA_URL:
        raise SourceTooLarge(
            f"The data URL has {len(request.url)} characters.",
            hint=f"At most {_MAX_DATA_URL} are allowed; put the content where a URL can name it.",
        )
    if not is_data_url(request.url) and len(request.url) > _MAX_URL:
        raise InvalidRequest(f"The URL has {len(request.url)} characters.", hint=f"At most {_MAX_URL} are allowed.")
    url = canonical_url(request.url)
    if url.startswith("upload:") and urlsplit(url).netloc != request.namespace:
        raise SourceRefused(f"The upload is not one of namespace {request.namespace!r}.", hint="Upload it there.")
    shown = redact_url(request.url)
    task = NewTask(
        task_id=task_id or new_task_id(),
        namespace=request.namespace,
        collection=request.collection,
        object_id=request.object_id or object_id_for(request.namespace, request.collection, url),
        lane=request.lane,
        url=shown,
        # User info and queries may be credentials; canonical_url() drops user info, so the original is kept.
        secret_url=request.url if _secret(request.url) else "" if shown == request.url else url,
        metadata=metadata,
        media_type=request.media_type or "",
        idempotency_key=request.idempotency_key or "",
        fingerprint=request.fingerprint(),
        estimated_bytes=_ESTIMATED_BYTES,
    )
    accepted = write_down(ledger, settings, task, store=store, encoder_wish=encoder_wish)
    # A connection that broke before the answer makes the ledger be asked twice: a task of this call's own id is new.
    own = task_id is None and accepted.task_id == task.task_id
    return replace(accepted, new=True) if own else accepted


def write_down(
    ledger: Ledger, settings: Settings, task: NewTask, *, store: ObjectStore | None = None, encoder_wish: str = ""
) -> Accepted:
    """`Ledger.accept`, after an intent on S3 where the settings want one. For tasks of every kind."""
    seconds = settings.idempotency_hours * 3600
    if not settings.durable_accept:
        return ledger.accept(task, seconds, encoder_wish=encoder_wish)
    from trivet.rebuild.records import put_intent
    from trivet.stores.layout import Layout

    store = store or _Opened.store(settings)
    layout = Layout.of(settings, task.namespace, task.collection)
    _keep_collection(ledger, settings, store, layout, task)
    fault("accept.before_intent")
    put_intent(store, layout, task, SystemClock().now())
    fault("accept.after_intent")
    # Where the ledger does not answer, the intent stays: the task may be in there, and its key tells it from a repeat.
    try:
        accepted = ledger.accept(task, seconds, encoder_wish=encoder_wish)
    except (Conflict, IdempotencyConflict, UnknownCollection):
        _withdraw(store, layout, task)
        raise
    if accepted.task_id != task.task_id:
        _withdraw(store, layout, task)
    return accepted


def _keep_collection(ledger: Ledger, settings: Settings, store: ObjectStore, layout: Layout, task: NewTask) -> None:
    """A rebuild knows no collection of which no `collection.json` was written."""
    collection = ledger.get_collection(task.namespace, task.collection)
    if collection is not None:
        _Opened.memory(settings).keep(store, layout, ledger, dump(collection))
    elif task.kind is TaskKind.INGEST:
        raise unknown_collection(task.namespace, task.collection)


def _withdraw(store: ObjectStore, layout: Layout, task: NewTask) -> None:
    """The ledger has not taken this task in, and the intent must not say so. Garbage collection would find it, too."""
    with suppress(TrivetError):
        store.delete(layout.intent(task.task_id))


class _Opened:
    """What durable accepts of this process share; opened at the first, so that `import trivet` loads no boto3."""

    _store: ObjectStore | None = None
    _memory: CollectionMemory | None = None
    _settings: Settings | None = None

    @classmethod
    def store(cls, settings: Settings) -> ObjectStore:
        """The store that the settings name."""
        from trivet.stores import open_store

        cls._of(settings)
        cls._store = cls._store or open_store(settings)
        return cls._store

    @classmethod
    def memory(cls, settings: Settings) -> CollectionMemory:
        """The collections that were written down where the settings say."""
        from trivet.rebuild.records import CollectionMemory

        cls._of(settings)
        cls._memory = cls._memory or CollectionMemory()
        return cls._memory

    @classmethod
    def _of(cls, settings: Settings) -> None:
        if cls._settings != settings:
            cls._store, cls._memory, cls._settings = None, None, settings


def _metadata_json(metadata: dict[str, Any]) -> str:
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("The metadata holds characters that are no valid Unicode.") from None
    except ValueError:
        raise InvalidRequest("The metadata holds NaN, Infinity or itself, which JSON cannot.") from None
    except TypeError:
        raise InvalidRequest("The metadata holds a value that is no JSON.", hint="Write it as a string.") from None
    except RecursionError:
        raise _too_deep() from None
    level: list[Any] = [metadata]
    for _ in range(_MOST_LEVELS):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [value for value in level if isinstance(value, dict | list | tuple)]
        if not level:
            return text
    raise _too_deep()


def _too_deep() -> InvalidRequest:
    return InvalidRequest("The metadata is nested too deep.", hint=f"At most {_MOST_LEVELS} levels are allowed.")


def _secret(url: str) -> bool:
    parts = urlsplit(url)
    return is_data_url(url) or bool(parts.query) or "@" in parts.netloc

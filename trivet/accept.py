"""The door: an ingest request becomes a row in the ledger. Producers of every kind come through here."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from trivet.errors import InvalidRequest, SourceTooLarge
from trivet.ids import canonical_url, is_data_url, new_task_id, object_id_for, redact_url
from trivet.ledger import Accepted, Ledger, NewTask
from trivet.settings import Settings
from trivet.values import IngestRequest

#: What prepare is charged until it knows better.
_ESTIMATED_BYTES = 65_536
_MAX_METADATA = 16_384
_MAX_DATA_URL = 256 * 1024


def parse_request(payload: dict[str, Any]) -> IngestRequest:
    """The request in a JSON payload. Raises `InvalidRequest` with the field that is wrong."""
    try:
        return IngestRequest.model_validate(payload)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "request"
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InvalidRequest):
            raise InvalidRequest(f"{where}: {cause.message}", hint=cause.hint) from None
        raise InvalidRequest(f"{where}: {first['msg'].lower()}.") from None


def accept(ledger: Ledger, settings: Settings, request: IngestRequest, *, task_id: str | None = None) -> Accepted:
    """Write the task down; once this returns it survives every crash but the loss of the ledger itself.

    Raises `UnknownCollection`, `IdempotencyConflict`, `InvalidRequest`, `SourceTooLarge`, `LedgerUnavailable`.
    """
    metadata = json.dumps(request.metadata, ensure_ascii=False)
    if len(metadata) > _MAX_METADATA:
        raise InvalidRequest(
            f"The metadata has {len(metadata)} characters of JSON.", hint=f"At most {_MAX_METADATA} are allowed."
        )
    if is_data_url(request.url) and len(request.url) > _MAX_DATA_URL:
        raise SourceTooLarge(
            f"The data URL has {len(request.url)} characters.",
            hint=f"At most {_MAX_DATA_URL} are allowed; put the content where a URL can name it.",
        )
    url = canonical_url(request.url)
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
    return ledger.accept(task, settings.idempotency_hours * 3600)


def _secret(url: str) -> bool:
    parts = urlsplit(url)
    return is_data_url(url) or bool(parts.query) or "@" in parts.netloc

"""Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp` and `webhook-signature` over id, time and body."""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Mapping as AnyMapping
from datetime import UTC, datetime
from typing import Any

from trivet.delivery.signing import new_secret, signature
from trivet.errors import InvalidRequest
from trivet.hooks import Getter, Hook, Incoming, Reading, Sample, Verified
from trivet.hooks.mapping import Mapping
from trivet.hooks.options import complete, kept
from trivet.hooks.refusals import forged
from trivet.hooks.signatures import parsed, same, text

_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
#: The specification wants 24 to 64 bytes.
_KEY_BYTES = range(24, 65)
#: After the specification's payloads, which have `type`, `timestamp` and `data`.
_DEFAULTS = {"items": "$.data", "event": "$.type"}


def timestamp(given: str) -> int | None:
    """Seconds since the epoch in a header; None for anything else."""
    return int(given) if _SECONDS.fullmatch(given) else None


class StandardScheme:
    """Senders after https://www.standardwebhooks.com; options are those of `Mapping`."""

    secret = True
    patience_seconds = 0.0

    def __init__(self, getter: Getter | None = None) -> None:
        del getter

    def new_secret(self) -> str:
        return new_secret()

    def check_secret(self, secret: str) -> None:
        try:
            size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
        except (binascii.Error, ValueError):
            size = 0
        if not secret.startswith("whsec_") or size not in _KEY_BYTES:
            raise InvalidRequest("The secret is not of the form whsec_… with 24 to 64 bytes in base64.")

    def options(self, given: AnyMapping[str, Any]) -> dict[str, Any]:
        return complete(Mapping, {**_DEFAULTS, **given})

    def verify(self, hook: Hook, incoming: Incoming, now: float) -> Verified:
        delivery, stamp = incoming.header("webhook-id"), timestamp(incoming.header("webhook-timestamp"))
        if not delivery or len(delivery) > 256 or stamp is None:
            raise forged()
        right = [signature(secret, delivery, stamp, incoming.body) for secret in hook.live_secrets(now)]
        # The sender may sign with an old and a new secret at once.
        given = incoming.header("webhook-signature").split(" ")[:16]
        if not any(same(each, right) for each in given):
            raise forged()
        return Verified(delivery, float(stamp))

    def read(self, hook: Hook, incoming: Incoming) -> Reading:
        payload = parsed(incoming.body)
        actions, ignored = kept(Mapping, hook.options).actions(hook, payload)
        return Reading(text(payload.get("type")) or "event", actions, ignored)

    def sample(self, hook: Hook, now: float, payload: bytes = b"") -> Sample:
        body = payload or _payload(now)
        delivery = f"msg_{secrets.token_hex(12)}"
        signed = signature(hook.live_secrets(now)[0], delivery, int(now), body)
        headers = {"webhook-id": delivery, "webhook-timestamp": str(int(now)), "webhook-signature": signed}
        return Sample(Incoming(headers, body), self)


def _payload(now: float) -> bytes:
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    data = {"url": "https://example.com/handbook.pdf"}
    return json.dumps({"type": "document.updated", "timestamp": at, "data": data}).encode()

"""S3 events by Amazon EventBridge: an API destination whose connection has an API key."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from trivet.hooks import Getter, Hook, Incoming, Reading, Sample, Verified
from trivet.hooks.options import complete, kept
from trivet.hooks.refusals import forged
from trivet.hooks.s3 import S3Scheme
from trivet.hooks.s3_events import S3Options, reading
from trivet.hooks.signatures import fingerprint, parsed, same


class EventBridgeOptions(S3Options):
    """Which objects, and which header has the key."""

    #: The API key's name in the connection.
    header: str = Field("X-Api-Key", pattern=r"^[A-Za-z0-9-]{1,64}$")


class EventBridgeScheme(S3Scheme):
    """EventBridge signs nothing: the connection's key, sent with every event, vouches for it."""

    def __init__(self, getter: Getter | None = None) -> None:
        super().__init__(getter)

    def new_secret(self) -> str:
        return secrets.token_hex(32)

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return complete(EventBridgeOptions, given)

    def verify(self, hook: Hook, incoming: Incoming, now: float) -> Verified:
        how = kept(EventBridgeOptions, hook.options)
        if not same(incoming.header(how.header), hook.live_secrets(now)):
            raise forged()
        return Verified(fingerprint(incoming.body))

    def read(self, hook: Hook, incoming: Incoming) -> Reading:
        return reading(kept(EventBridgeOptions, hook.options), hook, parsed(incoming.body))

    def sample(self, hook: Hook, now: float, payload: bytes = b"") -> Sample:
        how = kept(EventBridgeOptions, hook.options)
        body = payload or json.dumps(_sample(how)).encode()
        return Sample(Incoming({how.header.lower(): hook.live_secrets(now)[0]}, body), self)


def _sample(how: EventBridgeOptions) -> dict[str, Any]:
    prefix, suffix = next(iter(how.prefixes), ""), next(iter(how.suffixes), ".pdf")
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Object Created",
        "source": "aws.s3",
        "detail": {
            "version": "0",
            "bucket": {"name": how.buckets[0]},
            "object": {"key": f"{prefix}handbook 2026{suffix}", "size": 1024, "sequencer": "0055AED6DCD90281E5"},
            "reason": "PutObject",
        },
    }

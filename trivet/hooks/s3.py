"""S3 events straight from a store: the webhooks of MinIO and SeaweedFS, which send a token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trivet.errors import InvalidRequest
from trivet.hooks import Hook, Incoming, Reading, Sample, Verified
from trivet.hooks.options import complete, kept
from trivet.hooks.refusals import forged
from trivet.hooks.s3_events import S3Options, reading
from trivet.hooks.shared_secret import SharedSecret
from trivet.hooks.signatures import fingerprint, parsed, same

_SHORTEST_TOKEN = 16


class S3Scheme(SharedSecret):
    """The token is all that vouches for a delivery: use https."""

    def check_secret(self, secret: str) -> None:
        if len(secret) < _SHORTEST_TOKEN or any(c.isspace() for c in secret):
            raise InvalidRequest(f"The token has blanks, or fewer than {_SHORTEST_TOKEN} characters.")

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return complete(S3Options, given)

    def verify(self, hook: Hook, incoming: Incoming, now: float) -> Verified:
        # MinIO sends what it was given, with `Bearer` before it where that is one word.
        given = incoming.header("authorization").removeprefix("Bearer ").strip()
        if not same(given, hook.live_secrets(now)):
            raise forged()
        return Verified(fingerprint(incoming.body))

    def read(self, hook: Hook, incoming: Incoming) -> Reading:
        return reading(kept(S3Options, hook.options), hook, parsed(incoming.body))

    def sample(self, hook: Hook, now: float, payload: bytes = b"") -> Sample:
        body = payload or json.dumps(sample_records(kept(S3Options, hook.options))).encode()
        return Sample(Incoming({"authorization": f"Bearer {hook.live_secrets(now)[0]}"}, body), self)


def sample_records(options: S3Options) -> dict[str, Any]:
    """One object that came, and one that went."""
    bucket = options.buckets[0]
    prefix, suffix = next(iter(options.prefixes), ""), next(iter(options.suffixes), ".pdf")
    return {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": name,
                "s3": {"bucket": {"name": bucket}, "object": {"key": f"{prefix}{key}{suffix}", "sequencer": order}},
            }
            for name, key, order in (
                ("ObjectCreated:Put", "handbook+2026", "0055AED6DCD90281E5"),
                ("ObjectRemoved:Delete", "handbook+2025", "0055AED6DCD90281E6"),
            )
        ]
    }

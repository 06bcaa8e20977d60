"""Signatures, against the vector of the specification's own library."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from standardwebhooks import Webhook

from trivet.delivery.signing import new_secret, signature


def test_a_signature_is_the_one_of_the_standard_webhooks_library() -> None:
    secret = new_secret()
    at = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    expected = Webhook(secret).sign("e1", at, '{"text":"Grüße"}')
    assert signature(secret, "e1", int(at.timestamp()), '{"text":"Grüße"}'.encode()) == expected


def test_a_secret_has_32_random_bytes_and_says_what_it_is() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    assert first.startswith("whsec_")
    assert len(base64.b64decode(first.removeprefix("whsec_"))) == 32

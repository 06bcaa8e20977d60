"""Signatures, against the vector of the specification's own library."""

from __future__ import annotations

import base64
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
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


def test_the_guides_own_verification_takes_what_is_signed_and_nothing_else() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "def verify" in block)
    names: dict[str, Any] = {}
    exec(code, names)
    secret, other, body, now = new_secret(), new_secret(), b'{"id":"e1"}', int(time.time())

    def headers(stamp: int) -> dict[str, str]:
        signed = " ".join(signature(each, "e1", stamp, body) for each in (secret, other))
        return {"webhook-id": "e1", "webhook-timestamp": str(stamp), "webhook-signature": signed}

    for secrets in ([secret], [other], [new_secret(), other]):
        assert names["verify"](secrets, headers(now), body) == {"id": "e1"}
    for secrets, stamp, came in (
        ([secret], now, body + b" "),
        ([new_secret()], now, body),
        ([secret], now - 400, body),
    ):
        with pytest.raises(ValueError):
            names["verify"](secrets, headers(stamp), came)

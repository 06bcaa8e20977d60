"""S3 events, or any mapped payload, by Amazon SNS: signed with a certificate that SNS publishes."""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from collections.abc import Mapping as AnyMapping
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import Field, model_validator

from trivet.errors import InvalidRequest
from trivet.hooks import Getter, Hook, Incoming, Reading, Sample, Verified
from trivet.hooks.mapping import Mapping
from trivet.hooks.options import complete, kept
from trivet.hooks.refusals import forged
from trivet.hooks.s3 import sample_records
from trivet.hooks.s3_events import S3Options, reading
from trivet.hooks.signatures import parsed, text
from trivet.hooks.sns_rules import (
    Certificates,
    is_certificate,
    is_confirmation,
    is_unambiguous,
    region_of,
    signed_bytes,
)
from trivet.values import Frozen

_CONFIRM = "SubscriptionConfirmation"
_KINDS = ("Notification", _CONFIRM, "UnsubscribeConfirmation")


class SnsOptions(Frozen):
    """Which topics, and what their messages are."""

    #: ARNs whose messages are taken, and whose subscriptions are confirmed.
    topics: tuple[str, ...] = Field(min_length=1, max_length=100)
    #: Which objects, where the messages are S3 events.
    s3: S3Options | None = None
    #: Where the sources are, where they are anything else.
    mapping: Mapping | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.s3 is None) == (self.mapping is None):
            raise ValueError("give either s3 or mapping")
        if wrong := [topic for topic in self.topics if not region_of(topic)]:
            raise ValueError(f"{wrong[0][:100]!r} is no ARN of an SNS topic")
        return self


class SnsScheme:
    """SignatureVersion 2 alone: version 1 is SHA-1. A hook has no secret, so its topics are what it trusts."""

    secret = False
    patience_seconds = 3600.0

    def __init__(self, getter: Getter, certificates: Certificates | None = None) -> None:
        self._getter = getter
        self._certificates = certificates or Certificates(getter)

    def new_secret(self) -> str:
        raise InvalidRequest("Hooks of the scheme sns have no secret: SNS signs with its own certificate.")

    def check_secret(self, secret: str) -> None:
        del secret
        self.new_secret()

    def options(self, given: AnyMapping[str, Any]) -> dict[str, Any]:
        return complete(SnsOptions, given)

    def verify(self, hook: Hook, incoming: Incoming, now: float) -> Verified:
        # What SNS signs lies inside its JSON, so this much is parsed before; nothing is done with it but this.
        message = parsed(incoming.body)
        topic, url = text(message.get("TopicArn")), text(message.get("SigningCertURL"))
        if topic not in kept(SnsOptions, hook.options).topics or message.get("Type") not in _KINDS:
            raise forged()
        if message.get("SignatureVersion") != "2":
            raise InvalidRequest(
                "The message has not SignatureVersion 2.", hint="Set the topic's attribute SignatureVersion to 2."
            )
        if not is_certificate(url, region_of(topic)):
            raise forged()
        try:
            signature = base64.b64decode(text(message.get("Signature")), validate=True)
        except (binascii.Error, ValueError):
            raise forged() from None
        if not is_unambiguous(message):
            raise forged()
        self._certificates.verify(url, signature, signed_bytes(message), now)
        if not text(message.get("MessageId")):
            raise forged()
        return Verified(text(message.get("MessageId"))[:256], _seconds(text(message.get("Timestamp"))))

    def read(self, hook: Hook, incoming: Incoming) -> Reading:
        how, message = kept(SnsOptions, hook.options), parsed(incoming.body)
        kind = text(message.get("Type"))
        if kind == _CONFIRM:
            url = text(message.get("SubscribeURL"))
            if not is_confirmation(url, text(message.get("TopicArn"))):
                raise InvalidRequest("The SubscribeURL is not one of SNS for this topic.")
            return Reading(kind, confirm=url)
        if kind != "Notification":
            return Reading(kind, ignored=("The topic's subscription has ended.",))
        payload = parsed(text(message.get("Message")).encode())
        if how.s3 is not None:
            return reading(how.s3, hook, payload)
        assert how.mapping is not None
        actions, ignored = how.mapping.actions(hook, payload)
        return Reading(kind, actions, ignored)

    def sample(self, hook: Hook, now: float, payload: bytes = b"") -> Sample:
        from trivet.hooks.sns_sample import signed_with_own_key

        how = kept(SnsOptions, hook.options)
        shown = sample_records(how.s3) if how.s3 else {"url": "https://example.com/handbook.pdf"}
        message = {
            "Type": "Notification",
            "MessageId": str(uuid.uuid4()),
            "TopicArn": how.topics[0],
            "Message": payload.decode("utf-8", "replace") if payload else json.dumps(shown),
            "Timestamp": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "SignatureVersion": "2",
        }
        body, certificates = signed_with_own_key(message, region_of(how.topics[0]), now)
        return Sample(Incoming({}, body), SnsScheme(self._getter, Certificates(self._getter, certificates)))


def _seconds(stamp: str) -> float:
    """Unix seconds of a signed time. Raises `HookRefused` for what is none."""
    try:
        at = datetime.fromisoformat(stamp)
    except ValueError:
        raise forged() from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()

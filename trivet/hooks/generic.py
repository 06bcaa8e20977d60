"""Any sender that signs with HMAC: which header, over what, in which form; and a mapping from payload to sources."""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
from collections.abc import Mapping as AnyMapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from trivet.hooks import Hook, Incoming, Reading, Sample, Verified
from trivet.hooks.mapping import Mapping
from trivet.hooks.options import complete, kept
from trivet.hooks.refusals import forged
from trivet.hooks.shared_secret import SharedSecret
from trivet.hooks.signatures import fingerprint, parsed, same
from trivet.hooks.standard import timestamp
from trivet.values import Frozen

_PART = re.compile(r"(\{(?:body|timestamp|id)\})")
_HEADER = r"[A-Za-z0-9-]{1,64}"


class HmacOptions(Frozen):
    """How the sender signs."""

    #: The header that has the signature.
    header: str = Field("X-Signature", pattern=rf"^{_HEADER}$")
    #: plain: the signature alone, after `prefix`. pairs: `t=…,v1=…`, as Stripe and Mixpeek send it.
    style: Literal["plain", "pairs"] = "plain"
    #: Before the signature, such as `sha256=`.
    prefix: str = Field("", max_length=32)
    algorithm: Literal["sha256", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    #: The header that has the time in seconds since the epoch, where it is signed too.
    timestamp_header: str = Field("", pattern=rf"^({_HEADER})?$")
    #: The header that has the delivery's id, where it is signed too.
    id_header: str = Field("", pattern=rf"^({_HEADER})?$")
    #: What is signed: `{body}`, and `{timestamp}` and `{id}` where there are such. Empty: `{body}`, or for pairs
    #: `{timestamp}.{body}`.
    signed: str = Field("", max_length=100)
    mapping: Mapping = Mapping()

    @property
    def template(self) -> str:
        """What is signed, the default put in."""
        return self.signed or ("{timestamp}.{body}" if self.style == "pairs" else "{body}")

    @model_validator(mode="after")
    def _all_is_signed(self) -> Self:
        has_time = bool(self.timestamp_header) or self.style == "pairs"
        for name, there in (("body", True), ("timestamp", has_time), ("id", bool(self.id_header))):
            count = self.template.count("{" + name + "}")
            if count != int(there):
                raise ValueError(f"what is signed has {{{name}}} {count} times, not {int(there)}")
        return self


class HmacScheme(SharedSecret):
    """Senders that are nobody's standard."""

    def options(self, given: AnyMapping[str, Any]) -> dict[str, Any]:
        return complete(HmacOptions, given)

    def verify(self, hook: Hook, incoming: Incoming, now: float) -> Verified:
        how = kept(HmacOptions, hook.options)
        given, time = _parts(how, incoming)
        stamp = timestamp(time)
        delivery = incoming.header(how.id_header) if how.id_header else ""
        if (stamp is None and "{timestamp}" in how.template) or (how.id_header and not delivery):
            raise forged()
        right = [_signature(how, secret, incoming.body, time, delivery) for secret in hook.live_secrets(now)]
        if not any(same(each, right) for each in given):
            raise forged()
        return Verified(delivery[:256] or fingerprint(incoming.body), None if stamp is None else float(stamp))

    def read(self, hook: Hook, incoming: Incoming) -> Reading:
        mapped = kept(HmacOptions, hook.options).mapping
        actions, ignored = mapped.actions(hook, parsed(incoming.body))
        return Reading("event", actions, ignored)

    def sample(self, hook: Hook, now: float, payload: bytes = b"") -> Sample:
        how = kept(HmacOptions, hook.options)
        body = payload or json.dumps({"url": "https://example.com/handbook.pdf"}).encode()
        time, delivery = str(int(now)), secrets.token_hex(12)
        signed = _signature(how, hook.live_secrets(now)[0], body, time, delivery)
        pairs = how.style == "pairs"
        headers = {how.header.lower(): f"t={time},v1={signed}" if pairs else how.prefix + signed}
        if how.timestamp_header:
            headers[how.timestamp_header.lower()] = time
        if how.id_header:
            headers[how.id_header.lower()] = delivery
        return Sample(Incoming(headers, body), self)


def _parts(how: HmacOptions, incoming: Incoming) -> tuple[list[str], str]:
    """The signatures, without their prefix, and the time as it was sent."""
    header = incoming.header(how.header)
    if how.style == "pairs":
        pairs = [part.strip().partition("=") for part in header.split(",")[:16]]
        times = [value for name, _, value in pairs if name == "t"]
        return [value for name, _, value in pairs if name == "v1"], times[0] if len(times) == 1 else ""
    given = [header.removeprefix(how.prefix)] if header.startswith(how.prefix) else []
    return given, incoming.header(how.timestamp_header) if how.timestamp_header else ""


def _signature(how: HmacOptions, secret: str, body: bytes, time: str, delivery: str) -> str:
    values = {"{body}": body, "{timestamp}": time.encode(), "{id}": delivery.encode()}
    signed = b"".join(values.get(part, part.encode()) for part in _PART.split(how.template))
    made = hmac.new(secret.encode(), signed, how.algorithm)
    return made.hexdigest() if how.encoding == "hex" else base64.b64encode(made.digest()).decode()

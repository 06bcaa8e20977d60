"""What events may be sent to; for a registration, so it loads no HTTP client."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from trivet.errors import InvalidRequest
from trivet.fetch.addresses import AddressRules, Resolver, literal
from trivet.ids import redact_url
from trivet.settings import Settings

_PORTS = {"http": 80, "https": 443}
_ARN = re.compile(
    r"arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]+):\d{12}:(?P<name>[A-Za-z0-9_-]{1,256}(?:\.fifo)?)", re.ASCII
)
_QUEUE_HOST = re.compile(r"sqs(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?", re.ASCII)
_QUEUE_PATH = re.compile(r"/\d{12}/(?P<name>[A-Za-z0-9_-]{1,80}(?:\.fifo)?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class AwsTarget:
    """A topic or queue: where it is, and whether it keeps an order."""

    #: Empty where the target does not say.
    region: str
    name: str

    @property
    def fifo(self) -> bool:
        return self.name.endswith(".fifo")


def check_target(transport: str, target: str, settings: Settings, resolve: Resolver | None = None) -> None:
    """Raises `InvalidRequest` or `SourceRefused` where events may not be sent there."""
    rules = AddressRules.of(settings.allow_addresses, settings.source_ports)
    if transport == "webhook":
        webhook_url(target, rules, resolve or look_up)
    elif transport == "sns":
        topic(target)
    elif transport == "sqs":
        queue(target, rules)
    else:
        raise InvalidRequest(f"No transport is called {transport[:40]!r}.", hint="Use webhook, sns or sqs.")


def transport_of(target: str) -> str:
    """The transport that a target looks like."""
    if target.startswith("arn:"):
        return "sns"
    try:
        parts = _split(target)
    except InvalidRequest:
        return "webhook"
    return "sqs" if _QUEUE_HOST.fullmatch((parts.hostname or "").lower()) else "webhook"


def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses of a host; `InvalidRequest` where it has none, which at a registration is a slip of the pen."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InvalidRequest(f"The host name {host!r} cannot be resolved.", hint="Check the URL.") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def webhook_url(target: str, rules: AddressRules, resolve: Resolver) -> None:
    """Raises `InvalidRequest` for what is no URL of a webhook, `SourceRefused` for an address that is not allowed."""
    parts = _split(target)
    if parts.scheme not in _PORTS:
        raise InvalidRequest(f"{redact_url(target)} is no http or https URL.", hint="Give a full URL.")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest(
            f"{redact_url(target)} has a user name or password in it.", hint="Take them out: webhooks are signed."
        )
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    rules.admit(parts.hostname or "", port, resolve, redact_url(target))


def topic(target: str) -> AwsTarget:
    """The parts of an SNS topic's ARN, or `InvalidRequest`."""
    found = _ARN.fullmatch(target)
    if not found:
        raise InvalidRequest(
            f"{target[:200]!r} is no ARN of an SNS topic.", hint="Write it as arn:aws:sns:REGION:ACCOUNT:TOPIC."
        )
    return AwsTarget(found["region"], found["name"])


def queue(target: str, rules: AddressRules) -> AwsTarget:
    """The parts of an SQS queue's URL, or `InvalidRequest`: only AWS' own hosts, and those that the settings name."""
    parts = _split(target)
    host = (parts.hostname or "").lower()
    path = _QUEUE_PATH.fullmatch(parts.path)
    at_aws = _QUEUE_HOST.fullmatch(host) if parts.scheme == "https" and parts.port in (None, 443) else None
    if not path or parts.query or parts.username is not None or not (at_aws or _named(host, parts.port, rules)):
        raise InvalidRequest(
            f"{redact_url(target)} is no URL of an SQS queue.",
            hint="Write it as https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE; "
            "the host of another server must stand in TRIVET_ALLOW_ADDRESSES.",
        )
    return AwsTarget(at_aws["region"] if at_aws else "", path["name"])


def _named(host: str, port: int | None, rules: AddressRules) -> bool:
    """Whether the settings name this very host or its address."""
    try:
        address = literal(host)
    except ValueError:
        return False
    return any(
        entry.on_port(port or 443) and (entry.host == host if address is None else entry.names(host, [address]))
        for entry in rules.entries
    )


def _split(target: str) -> SplitResult:
    try:
        parts = urlsplit(target)
        _ = parts.port
    except ValueError:
        raise InvalidRequest("The endpoint's URL cannot be read.") from None
    if not parts.hostname or any(c.isspace() or not c.isascii() or not c.isprintable() for c in target):
        raise InvalidRequest(f"{redact_url(target)} is no full URL.", hint="Give it as https://host/path.")
    return parts

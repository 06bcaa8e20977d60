"""What is believed of SNS: whose URLs, whose certificates, and which bytes a signature covers.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from trivet.hooks import Getter
from trivet.hooks.refusals import forged

_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]{3,30}):\d{12}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?", re.ASCII)
_CERTIFICATE_PATH = re.compile(r"/SimpleNotificationService-[0-9a-f]{8,64}\.pem", re.ASCII)
_MOST_BYTES = 64 << 10
_KEPT = 16
_NAME = "sns.amazonaws.com"
_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_ONE_LINE = frozenset((*_NOTIFICATION, *_CONFIRMATION)) - {"Message"}


def region_of(topic: str) -> str:
    """The region of a topic's ARN; empty for what is none."""
    found = _TOPIC.fullmatch(topic)
    return found["region"] if found else ""


def is_of_sns(url: str, region: str) -> bool:
    """Whether a URL is on the host of SNS in this region, by https, on the usual port, and nothing else is in it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    hosts = (f"sns.{region}.amazonaws.com", f"sns.{region}.amazonaws.com.cn")
    # The host as it is written: no user, no port but 443, no other way to write it.
    plain = parts.netloc in (*hosts, *(f"{host}:443" for host in hosts))
    return bool(region) and parts.scheme == "https" and plain and port in (None, 443) and not parts.fragment


def is_certificate(url: str, region: str) -> bool:
    """Whether a URL is that of one of SNS' certificates in this region."""
    parts = urlsplit(url) if is_of_sns(url, region) else None
    return parts is not None and not parts.query and bool(_CERTIFICATE_PATH.fullmatch(parts.path))


def is_confirmation(url: str, topic: str) -> bool:
    """Whether a URL confirms a subscription to this topic, and does nothing else."""
    if not is_of_sns(url, region_of(topic)):
        return False
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    asked = query.get("Action"), query.get("TopicArn")
    return parts.path in ("", "/") and asked == (["ConfirmSubscription"], [topic])


def signed_bytes(message: Mapping[str, Any]) -> bytes:
    """What SNS signs: name and value of certain fields, each on a line of its own."""
    names = _NOTIFICATION if message.get("Type") == "Notification" else _CONFIRMATION
    there = [(name, message[name]) for name in names if isinstance(message.get(name), str)]
    return "".join(f"{name}\n{value}\n" for name, value in there).encode()


def is_unambiguous(message: Mapping[str, Any]) -> bool:
    """Whether what is signed can be read in one way: a line break elsewhere than in the text would begin another field.

    Else a message could be cut into other fields under the same signature, with another id, and be taken for a new one.
    """
    return all("\n" not in message[name] for name in _ONE_LINE if isinstance(message.get(name), str))


class Certificates:
    """Public keys of SNS by the URL of their certificate; the last few are kept. Thread-safe."""

    def __init__(self, getter: Getter, kept: Mapping[str, bytes] | None = None) -> None:
        self._getter = getter
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, x509.Certificate] = OrderedDict(
            (url, x509.load_pem_x509_certificate(pem)) for url, pem in (kept or {}).items()
        )

    def verify(self, url: str, signature: bytes, signed: bytes, now: float) -> None:
        """Raises `HookRefused` unless the signature is right and the certificate is SNS' own and valid now.

        The URL must be checked before. Raises what the getter raises.
        """
        certificate = self._certificate(url)
        at = datetime.fromtimestamp(now, UTC)
        valid = certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc
        key = certificate.public_key()
        if not valid or _NAME not in _names(certificate) or not isinstance(key, rsa.RSAPublicKey):
            raise forged()
        try:
            key.verify(signature, signed, padding.PKCS1v15(), SHA256())
        except InvalidSignature:
            raise forged() from None

    def _certificate(self, url: str) -> x509.Certificate:
        with self._lock:
            if url in self._kept:
                self._kept.move_to_end(url)
                return self._kept[url]
        try:
            found = x509.load_pem_x509_certificate(self._getter.get(url, _MOST_BYTES))
        except ValueError:
            raise forged() from None
        with self._lock:
            self._kept[url] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found


def _names(certificate: x509.Certificate) -> list[str]:
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    names = [str(each.value) for each in common]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return names
    return [*names, *extension.value.get_values_for_type(x509.DNSName)]

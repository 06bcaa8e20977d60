"""A message that is signed as SNS signs, with a key of our own: SNS' is not to be had for a test."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from trivet.hooks.sns_rules import signed_bytes

_KEY_BITS = 2048


def signed_with_own_key(message: Mapping[str, str], region: str, now: float) -> tuple[bytes, dict[str, bytes]]:
    """The message's bytes, and by its URL the certificate that verifies it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    at = datetime.fromtimestamp(now, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(hours=1))
        .not_valid_after(at + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    host = f"sns.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
    url = f"https://{host}/SimpleNotificationService-{certificate.serial_number:032x}.pem"
    signature = key.sign(signed_bytes(message), padding.PKCS1v15(), hashes.SHA256())
    whole = {**message, "SigningCertURL": url, "Signature": base64.b64encode(signature).decode()}
    return json.dumps(whole).encode(), {url: certificate.public_bytes(Encoding.PEM)}

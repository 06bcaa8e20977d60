"""SNS: whose certificate, whose topic, and what a subscription is confirmed by."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.hooking import TOPIC, Desk
from trivet.errors import HookRefused, InvalidRequest, TrivetError
from trivet.hooks import Hook, Incoming
from trivet.hooks.sns_rules import is_certificate, is_confirmation, signed_bytes

CERTIFICATE = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"
CONFIRM = f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc"
RECORD = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "docs"}, "object": {"key": "a.pdf"}}}


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Sender:
    """Signs as SNS does, with a certificate that stands at a URL."""

    def __init__(self, desk: Desk, key: rsa.RSAPrivateKey) -> None:
        self.desk = desk
        self.key = key
        self.publish()

    def publish(self, name: str = "sns.amazonaws.com", *, hours: float = 1, san: str = "", key: Any = None) -> None:
        at = datetime.fromtimestamp(self.desk.clock.now(), UTC)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key((key or self.key).public_key())
            .serial_number(1)
            .not_valid_before(at - timedelta(hours=24))
            .not_valid_after(at + timedelta(hours=hours))
        )
        if san:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(san)]), critical=False)
        pem = builder.sign(key or self.key, hashes.SHA256()).public_bytes(Encoding.PEM)
        self.desk.getter.files[CERTIFICATE] = pem

    def message(self, **changes: Any) -> Incoming:
        message = {
            "Type": "Notification",
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": TOPIC,
            "Message": json.dumps({"Records": [RECORD]}),
            "Timestamp": datetime.fromtimestamp(self.desk.clock.now(), UTC).isoformat(),
            "SignatureVersion": "2",
            "SigningCertURL": CERTIFICATE,
            **changes,
        }
        algorithm = hashes.SHA1() if message["SignatureVersion"] == "1" else hashes.SHA256()
        signature = self.key.sign(signed_bytes(message), padding.PKCS1v15(), algorithm)
        message.setdefault("Signature", base64.b64encode(signature).decode())
        return Incoming({}, json.dumps(message).encode())


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def hook(desk: Desk) -> Hook:
    return desk.add("sns")


@pytest.fixture
def sender(desk: Desk, rsa_key: rsa.RSAPrivateKey) -> Sender:
    return Sender(desk, rsa_key)


def refused(desk: Desk, hook: Hook, incoming: Incoming) -> None:
    with pytest.raises((HookRefused, InvalidRequest)):
        desk.receive(hook, incoming)
    assert desk.producer.calls == []


def test_a_signed_message_is_taken_and_its_certificate_got_once(desk: Desk, hook: Hook, sender: Sender) -> None:
    assert desk.receive(hook, sender.message(Subject="Amazon S3 Notification")).ingested == 1
    assert desk.receive(hook, sender.message(MessageId="two")).ingested == 1
    assert desk.getter.got == [CERTIFICATE]


@pytest.mark.parametrize("field", ["Message", "MessageId", "Subject", "Timestamp"])
def test_no_signed_field_can_be_changed(desk: Desk, hook: Hook, sender: Sender, field: str) -> None:
    message = json.loads(sender.message(Subject="s").body)
    changed = {**message, field: message[field] + " "}
    refused(desk, hook, Incoming({}, json.dumps(changed).encode()))


def test_signature_version_1_is_refused_and_says_what_to_do(desk: Desk, hook: Hook, sender: Sender) -> None:
    with pytest.raises(InvalidRequest, match="SignatureVersion"):
        desk.receive(hook, sender.message(SignatureVersion="1"))


@pytest.mark.parametrize("topic", [TOPIC + "x", TOPIC.replace("123456789012", "999999999999"), "", 3])
def test_another_topics_message_is_refused_and_nothing_is_got(
    desk: Desk, hook: Hook, sender: Sender, topic: Any
) -> None:
    refused(desk, hook, sender.message(TopicArn=topic))
    assert desk.getter.got == []


HOSTILE = [
    "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com.evil.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://evil.com/sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com@evil.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://evil.com#sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://evil.com\\@sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://user@sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com/evil/SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem?x=1",
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem#x",
    "https://sns.eu-central-1.amazonaws.com/../SimpleNotificationService-0123456789abcdef.pem",
    "https://s3.eu-central-1.amazonaws.com/sns/SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com/",
    "https://SNS.EU-CENTRAL-1.amazonaws.com./SimpleNotificationService-0123456789abcdef.pem",
    "https://169.254.169.254/SimpleNotificationService-0123456789abcdef.pem",
    "https://[::1]/SimpleNotificationService-0123456789abcdef.pem",
    "https://[bad/SimpleNotificationService-0123456789abcdef.pem",
    "file:///SimpleNotificationService-0123456789abcdef.pem",
    "",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_certificate_from_anywhere_else_is_never_got(desk: Desk, hook: Hook, sender: Sender, url: str) -> None:
    desk.getter.files[url] = desk.getter.files[CERTIFICATE]
    assert not is_certificate(url, "eu-central-1")
    refused(desk, hook, sender.message(SigningCertURL=url))
    assert desk.getter.got == []


def test_chinas_host_is_one_of_sns() -> None:
    assert is_certificate(
        "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-0123456789abcdef.pem", "cn-north-1"
    )


def test_a_certificate_of_another_name_that_has_expired_or_is_none_is_refused(
    desk: Desk, hook: Hook, sender: Sender
) -> None:
    for publish in (
        lambda: sender.publish("evil.com"),
        lambda: sender.publish("evil.com", san="sns.amazonaws.com.evil.com"),
        lambda: sender.publish(hours=-2),
        lambda: sender.publish(key=ec.generate_private_key(ec.SECP256R1())),
        lambda: sender.publish(key=rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        lambda: desk.getter.files.update({CERTIFICATE: b"nonsense"}),
        lambda: desk.getter.files.update({CERTIFICATE: b""}),
    ):
        publish()
        desk.receiver._schemes.clear()
        refused(desk, hook, sender.message())


def test_the_name_may_stand_beside_the_subject(desk: Desk, hook: Hook, sender: Sender) -> None:
    sender.publish("Amazon", san="sns.amazonaws.com")
    assert desk.receive(hook, sender.message()).ingested == 1


def test_a_certificate_that_cannot_be_got_is_no_forgery_and_is_tried_again(
    desk: Desk, hook: Hook, sender: Sender
) -> None:
    kept = desk.getter.files.pop(CERTIFICATE)
    with pytest.raises(TrivetError) as caught:
        desk.receive(hook, sender.message())
    assert not isinstance(caught.value, HookRefused)
    desk.getter.files[CERTIFICATE] = kept
    assert desk.receive(hook, sender.message()).ingested == 1


@pytest.mark.parametrize("signature", ["", "!!!", "AAAA", 7])
def test_a_signature_that_is_none_is_refused(desk: Desk, hook: Hook, sender: Sender, signature: Any) -> None:
    refused(desk, hook, sender.message(Signature=signature))


def test_a_subscription_is_confirmed_once_and_by_sns_alone(desk: Desk, hook: Hook, sender: Sender) -> None:
    desk.getter.files[CONFIRM] = b"<ConfirmSubscriptionResponse/>"
    asked = sender.message(Type="SubscriptionConfirmation", Token="abc", SubscribeURL=CONFIRM)
    assert desk.receive(hook, asked).status == "confirmed"
    assert desk.receive(hook, asked).status == "duplicate"
    assert desk.getter.got.count(CONFIRM) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://evil.com/?Action=ConfirmSubscription",
        f"https://sns.eu-central-1.amazonaws.com.evil.com/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"https://sns.eu-central-1.amazonaws.com/?Action=DeleteTopic&TopicArn={TOPIC}",
        f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}x",
        f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Action=DeleteTopic&TopicArn={TOPIC}",
        f"https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        "",
    ],
)
def test_nothing_but_a_confirmation_of_this_topic_is_ever_got(desk: Desk, hook: Hook, sender: Sender, url: str) -> None:
    desk.getter.files[url] = b""
    assert not is_confirmation(url, TOPIC)
    refused(desk, hook, sender.message(Type="SubscriptionConfirmation", Token="abc", SubscribeURL=url))
    assert desk.getter.got == [CERTIFICATE]


def test_a_confirmation_that_failed_is_tried_again(desk: Desk, hook: Hook, sender: Sender) -> None:
    asked = sender.message(Type="SubscriptionConfirmation", Token="abc", SubscribeURL=CONFIRM)
    with pytest.raises(TrivetError):
        desk.receive(hook, asked)
    desk.getter.files[CONFIRM] = b""
    assert desk.receive(hook, asked).status == "confirmed"


def test_an_end_of_a_subscription_does_nothing(desk: Desk, hook: Hook, sender: Sender) -> None:
    ended = sender.message(Type="UnsubscribeConfirmation", Token="abc", SubscribeURL="http://169.254.169.254/")
    assert desk.receive(hook, ended).ingested == 0
    assert desk.getter.got == [CERTIFICATE]


def test_eventbridge_events_and_mapped_payloads_come_by_sns_too(desk: Desk, hook: Hook, sender: Sender) -> None:
    detail = {"bucket": {"name": "docs"}, "object": {"key": "b.pdf"}}
    event = {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}
    assert desk.receive(hook, sender.message(Message=json.dumps(event))).ingested == 1
    mapped = desk.hooks.add("sns", collection="c", options={"topics": [TOPIC], "mapping": {"url": "$.link"}})
    assert desk.receive(mapped, sender.message(Message='{"link": "https://h/a"}')).ingested == 1
    assert [call.url for call in desk.producer.calls] == ["s3://docs/b.pdf", "https://h/a"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"topics": [], "s3": {"buckets": ["b"]}},
        {"topics": ["arn:aws:s3:::b"], "s3": {"buckets": ["b"]}},
        {"topics": [TOPIC]},
        {"topics": [TOPIC], "s3": {"buckets": ["b"]}, "mapping": {}},
    ],
)
def test_options_that_cannot_be_are_refused(desk: Desk, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        desk.hooks.add("sns", collection="c", options=wrong)


def test_a_hook_of_sns_has_no_secret(desk: Desk, hook: Hook) -> None:
    assert hook.secrets == ()
    with pytest.raises(InvalidRequest):
        desk.hooks.add("sns", collection="c", options={"topics": [TOPIC], "mapping": {}}, secret="x" * 40)


def test_a_message_cut_into_other_fields_under_the_same_signature_is_not_a_new_one(sender: Sender, hook: Hook) -> None:
    whole = json.loads(sender.message(Subject="news").body)
    cut = {**whole, "MessageId": f"{whole['MessageId']}\nSubject\nnews"}
    del cut["Subject"]
    assert signed_bytes(cut) == signed_bytes(whole)
    assert sender.desk.receive(hook, Incoming({}, json.dumps(whole).encode())).status == "done"
    with pytest.raises(HookRefused):
        sender.desk.receive(hook, Incoming({}, json.dumps(cut).encode()))

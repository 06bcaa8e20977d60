"""What every transport must do, on real servers: HTTP on this machine, SNS and SQS as moto plays them."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
import trustme
from moto import mock_aws
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.web import Server, answer
from trivet.clock import Clock, ManualClock, SystemClock
from trivet.delivery import TRANSPORTS, Delivery, DeliveryState, Endpoint, Transport, open_transport
from trivet.delivery.memory import MemoryTransport
from trivet.delivery.signing import new_secret
from trivet.delivery.sns import SnsTransport
from trivet.delivery.sqs import SqsTransport
from trivet.delivery.targets import check_target, transport_of
from trivet.delivery.values import SigningSecret
from trivet.delivery.webhook import WebhookTransport, wait_asked_for
from trivet.errors import EndpointFailed, InvalidRequest, NotUnderstood, SourceRefused
from trivet.settings import Settings

BODY = json.dumps({"id": "e1", "type": "trivet.ingest.completed", "subject": "obj_1", "text": "Grüße"}).encode()
QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/q"
TOPIC = "arn:aws:sns:us-east-1:123456789012:t"


def event(event_id: str = "e1") -> Delivery:
    return Delivery(
        endpoint_id="end_1",
        event_id=event_id,
        kind="ingest.completed",
        entry="1-1",
        state=DeliveryState.LEASED,
        attempts=1,
        created_at=0.0,
    )


def endpoint(target: str, transport: str = "webhook", *secrets: SigningSecret) -> Endpoint:
    return Endpoint(
        endpoint_id="end_1",
        namespace="ns",
        transport=transport,
        target=target,
        secrets=secrets,
        changed_at=0.0,
        created_at=0.0,
        since="0-0",
    )


@dataclass
class Way:
    """A transport, an endpoint that takes what is sent, and what it took."""

    transport: Transport
    endpoint: Endpoint
    bodies: Callable[[], list[bytes]]


@dataclass
class Recorder:
    """A page that answers after it has read the body."""

    bodies: list[bytes] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    say: bytes = answer(b"thank you", 202)

    def __call__(self, connection: socket.socket, head: str) -> None:
        lines = [line.partition(": ") for line in head.split("\r\n\r\n")[0].split("\r\n")[1:]]
        named = {name.lower(): value for name, _, value in lines}
        body = head.split("\r\n\r\n", 1)[1].encode("latin-1")
        while len(body) < int(named["content-length"]):
            body += connection.recv(65536)
        self.bodies.append(body)
        self.heads.append(named)
        connection.sendall(self.say)


class Hooks(Server):
    """The server of `tests.support.web` with pages that see the request."""

    def _one(self, connection: socket.socket) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            got = connection.recv(65536)
            if not got:
                return False
            head += got
        self.requests.append(head.decode("latin-1"))
        page: Any = self.pages[head.split(b" ", 2)[1].decode()]
        if isinstance(page, Recorder):
            page(connection, head.decode("latin-1"))
        elif callable(page):
            page(connection)
        else:
            connection.sendall(page)
        return False


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def server(recorder: Recorder) -> Iterator[Hooks]:
    made = Hooks({"/hook": recorder})  # type: ignore[dict-item]  # pages of this subclass see the request
    yield made
    made.close()


def settings_for_hooks(server: Server, **more: Any) -> Settings:
    return Settings(allow_addresses=(server.place,), deliver_timeout_seconds=2.0, **more)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield


def queue(name: str = "q", **attributes: str) -> tuple[Any, str]:
    client = boto3.client("sqs", region_name="us-east-1")
    return client, client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]


def messages(client: Any, url: str) -> list[dict[str, Any]]:
    found = client.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"]
    )
    return list(found.get("Messages", []))


def topic_with_queue(name: str = "t", **attributes: str) -> tuple[str, Any, str]:
    """A topic whose messages, as they were published, land in a queue."""
    sns = boto3.client("sns", region_name="us-east-1")
    arn = sns.create_topic(Name=name, Attributes=attributes)["TopicArn"]
    fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
    sqs, url = queue(f"behind-{name}", **fifo)
    where = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=where, Attributes={"RawMessageDelivery": "true"})
    return arn, sqs, url


@pytest.fixture(params=sorted(TRANSPORTS))
def way(request: pytest.FixtureRequest, recorder: Recorder) -> Iterator[Way]:
    """Every registered transport: whoever adds one gives it an endpoint here."""
    if request.param == "webhook":
        server: Hooks = request.getfixturevalue("server")
        transport: Transport = WebhookTransport(settings_for_hooks(server))
        made = Way(transport, endpoint(server.url("/hook")), lambda: recorder.bodies)
    elif request.param == "memory":
        memory = transport = MemoryTransport()
        made = Way(transport, endpoint("memory:", "memory"), lambda: [body for _, _, body in memory.sent])
    else:
        request.getfixturevalue("aws")
        transport = open_transport(Settings(), request.param)
        target, client, url = topic_with_queue() if request.param == "sns" else ("", *queue())
        found = lambda: [m["Body"].encode() for m in messages(client, url)]  # noqa: E731 - as short as its brothers
        made = Way(transport, endpoint(target or url, request.param), found)
    yield made
    transport.close()


def test_the_event_arrives_byte_for_byte(way: Way) -> None:
    outcome = way.transport.send(way.endpoint, event(), BODY)
    assert (outcome.taken, outcome.error, outcome.gone) == (True, "", False)
    assert outcome.status in ("200", "202")
    assert way.bodies() == [BODY]


def test_a_transport_that_nobody_knows_is_left_for_a_newer_worker() -> None:
    with pytest.raises(NotUnderstood):
        open_transport(Settings(), "pigeon")


# ------------------------------------------------------------ webhooks: what is sent


def test_a_webhook_is_signed_as_standard_webhooks_says(server: Hooks, recorder: Recorder) -> None:
    secret, old, ended = new_secret(), new_secret(), new_secret()
    now = SystemClock().now()
    transport = WebhookTransport(settings_for_hooks(server))
    transport.send(
        endpoint(
            server.url("/hook"),
            "webhook",
            SigningSecret(value=SecretStr(secret)),
            SigningSecret(value=SecretStr(old), expires_at=now + 60),
            SigningSecret(value=SecretStr(ended), expires_at=now - 1),
        ),
        event(),
        BODY,
    )
    transport.close()
    head = recorder.heads[0]
    assert head["content-type"].startswith("application/cloudevents+json")
    assert head["webhook-id"] == "e1"
    for live in (secret, old):
        assert Webhook(live).verify(recorder.bodies[0], head)["id"] == "e1"
    with pytest.raises(WebhookVerificationError):
        Webhook(ended).verify(recorder.bodies[0], head)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(recorder.bodies[0] + b" ", head)


def test_nothing_of_the_environment_enters_a_request(
    server: Hooks, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    transport = WebhookTransport(settings_for_hooks(server))
    assert transport.send(endpoint(server.url("/hook")), event(), BODY).taken
    transport.close()
    assert not {"cookie", "authorization"} & set(recorder.heads[0])


# ------------------------------------------------------------ webhooks: what comes back


def answered(server: Hooks, page: object, clock: Clock | None = None) -> Any:
    server.pages["/hook"] = page  # type: ignore[assignment]  # pages of this subclass see the request
    transport = WebhookTransport(settings_for_hooks(server), clock=clock)
    try:
        return transport.send(endpoint(server.url("/hook") + "?token=hidden"), event(), BODY)
    finally:
        transport.close()


@pytest.fixture(autouse=True)
def _query_pages(server: Hooks) -> None:
    class Pages(dict[str, Any]):
        def __missing__(self, path: str) -> Any:
            return self[path.partition("?")[0]]

    server.pages = Pages(server.pages)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_is_taken(server: Hooks, status: int) -> None:
    outcome = answered(server, Recorder(say=answer(b"", status)))
    assert (outcome.taken, outcome.status) == (True, str(status))


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 409, 429, 500, 503])
def test_anything_else_is_not_and_says_why_without_the_query(server: Hooks, status: int) -> None:
    outcome = answered(server, Recorder(say=answer(b"secret of the endpoint", status)))
    assert (outcome.taken, outcome.status, outcome.gone) == (False, str(status), False)
    assert f"answered {status}" in outcome.error
    assert "hidden" not in outcome.error
    assert "secret" not in outcome.error


def test_410_says_that_the_endpoint_is_gone(server: Hooks) -> None:
    assert answered(server, Recorder(say=answer(b"", 410))).gone


def test_a_redirect_is_not_followed(server: Hooks) -> None:
    elsewhere = Recorder()
    server.pages["/elsewhere"] = elsewhere  # type: ignore[assignment]  # pages of this subclass see the request
    outcome = answered(server, Recorder(say=answer(b"", 307, Location=server.url("/elsewhere"))))
    assert not outcome.taken
    assert elsewhere.bodies == []


def test_retry_after_is_passed_on(server: Hooks) -> None:
    assert answered(server, Recorder(say=answer(b"", 503, Retry_After="17"))).retry_after == 17
    assert answered(server, Recorder(say=answer(b"", 503))).retry_after is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0.0), ("120", 120.0), ("-1", None), ("soon", None), ("", None), ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0)],
)
def test_retry_after_is_read_in_both_forms(header: str, seconds: float | None) -> None:
    assert wait_asked_for(header, 10.0) == seconds


def test_a_silent_endpoint_ends_with_the_time_out(server: Hooks) -> None:
    def silent(connection: socket.socket) -> None:
        server.over.wait(30)

    with pytest.raises(EndpointFailed, match=r"did not answer within 2 s"):
        answered(server, silent)


def test_a_dripping_endpoint_ends_with_the_time_out(server: Hooks) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not server.over.wait(0.05):
            connection.sendall(b".")

    with pytest.raises(EndpointFailed, match=r"did not answer within 2 s"):
        answered(server, drip)


def test_an_endless_answer_is_not_read_to_its_end(server: Hooks) -> None:
    def pour(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not server.over.is_set():
            connection.sendall(b"." * 65536)

    assert answered(server, pour).taken


def test_a_broken_connection_is_a_failure_without_the_query(server: Hooks) -> None:
    with pytest.raises(EndpointFailed, match="broke off") as caught:
        answered(server, lambda connection: None)
    assert "hidden" not in str(caught.value)


def test_a_port_where_nobody_listens_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    transport = WebhookTransport(Settings(allow_addresses=(f"127.0.0.1:{port}",)))
    with pytest.raises(EndpointFailed, match="refused the connection"):
        transport.send(endpoint(f"http://127.0.0.1:{port}/"), event(), BODY)
    transport.close()


# ------------------------------------------------------------ webhooks: where they may not go


def resolver(*addresses: str) -> Callable[[str, int], list[str]]:
    return lambda host, port: list(addresses)


PRIVATE = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "100.64.0.1", "64:ff9b::7f00:1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_with_a_private_address_is_refused_at_registration_and_when_sending(address: str) -> None:
    resolve = resolver("93.184.216.34", address)
    with pytest.raises(SourceRefused):
        check_target("webhook", "https://hooks.example/path", Settings(), resolve)
    transport = WebhookTransport(Settings(), resolve=resolve)
    with pytest.raises(EndpointFailed, match="was refused"):
        transport.send(endpoint("https://hooks.example/path"), event(), BODY)
    transport.close()


def test_a_name_that_becomes_private_after_its_registration_is_not_connected_to(server: Hooks) -> None:
    url = f"http://hooks.example:{server.port}/hook"
    settings = Settings(source_ports=(server.port,))
    check_target("webhook", url, settings, resolver("93.184.216.34"))
    transport = WebhookTransport(settings, resolve=resolver("127.0.0.1"))
    with pytest.raises(EndpointFailed, match="was refused"):
        transport.send(endpoint(url), event(), BODY)
    transport.close()
    assert server.connections == 0


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://[::ffff:127.0.0.1]/",
        "https://hooks.example:22/",
        "https://hooks.example:0/",
        "http://0x7f.1/",
    ],
)
def test_addresses_and_ports_that_sources_may_not_use_are_refused(target: str) -> None:
    with pytest.raises(SourceRefused):
        check_target("webhook", target, Settings(), resolver("93.184.216.34"))


@pytest.mark.parametrize(
    "target",
    [
        "ftp://host/",
        "https://user:hunter2@host/",
        "https:///path",
        "host/path",
        "https://host/a b",
        "https://host/\n",
        "",
    ],
)
def test_what_is_no_url_of_a_webhook_is_refused(target: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_target("webhook", target, Settings(), resolver("93.184.216.34"))
    assert "hunter2" not in str(caught.value)


def test_a_name_that_does_not_exist_is_told_at_registration() -> None:
    with pytest.raises(InvalidRequest, match="cannot be resolved"):
        check_target("webhook", "https://hooks.invalid/", Settings())


def test_the_settings_may_allow_an_address(server: Hooks) -> None:
    check_target("webhook", server.url("/hook"), settings_for_hooks(server))


def test_a_certificate_for_another_name_is_refused(tmp_path: Any) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    secure = Hooks({"/hook": answer()}, tls=context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    settings = Settings(allow_addresses=(f"hooks.example:{secure.port}",))
    transport = WebhookTransport(settings, resolve=resolver("127.0.0.1"), tls=trusting)
    with pytest.raises(EndpointFailed, match="certificate"):
        transport.send(endpoint(secure.url("/hook", "hooks.example")), event(), BODY)
    transport.close()
    secure.close()


# ------------------------------------------------------------ SNS and SQS


def test_a_queue_gets_the_kind_and_the_id_as_attributes(aws: None) -> None:
    client, url = queue()
    transport = SqsTransport(Settings())
    transport.send(endpoint(url, "sqs"), event(), BODY)
    transport.close()
    (message,) = messages(client, url)
    found = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert found == {"type": "trivet.ingest.completed", "id": "e1"}


def test_a_fifo_queue_keeps_an_objects_order_and_drops_a_redelivery(aws: None) -> None:
    client, url = queue("q.fifo", FifoQueue="true")
    transport = SqsTransport(Settings())
    for event_id in ("e1", "e1", "e2"):
        assert transport.send(endpoint(url, "sqs"), event(event_id), BODY).taken
    transport.close()
    found = [message["Attributes"] for message in messages(client, url)]
    assert [(a["MessageGroupId"], a["MessageDeduplicationId"]) for a in found] == [("obj_1", "e1"), ("obj_1", "e2")]


def test_a_topic_passes_the_attributes_on(aws: None) -> None:
    arn, client, url = topic_with_queue()
    transport = SnsTransport(Settings())
    transport.send(endpoint(arn, "sns"), event(), BODY)
    transport.close()
    (message,) = messages(client, url)
    found = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert found == {"type": "trivet.ingest.completed", "id": "e1"}


def test_a_fifo_topic_drops_a_redelivery(aws: None) -> None:
    arn, client, url = topic_with_queue("t.fifo", FifoTopic="true")
    transport = SnsTransport(Settings())
    for event_id in ("e1", "e1", "e2"):
        assert transport.send(endpoint(arn, "sns"), event(event_id), BODY).taken
    transport.close()
    found = [message["Attributes"]["MessageDeduplicationId"] for message in messages(client, url)]
    assert sorted(set(found)) == ["e1", "e2"]


@pytest.mark.parametrize(("name", "target"), [("sqs", QUEUE + "-none"), ("sns", TOPIC + "-none")])
def test_a_topic_or_queue_that_does_not_exist_is_gone(aws: None, name: str, target: str) -> None:
    transport = open_transport(Settings(), name)
    outcome = transport.send(endpoint(target, name), event(), BODY)
    transport.close()
    assert (outcome.taken, outcome.gone) == (False, True)
    assert outcome.status in outcome.error


def test_without_credentials_it_is_a_failure_and_not_gone() -> None:
    transport = SqsTransport(Settings())
    with pytest.raises(EndpointFailed, match="NoCredentials"):
        transport.send(endpoint(QUEUE, "sqs"), event(), BODY)
    transport.close()


@pytest.mark.parametrize(
    "target",
    [
        "https://sqs.us-east-1.amazonaws.com.evil.example/123456789012/q",
        "https://evil.example/123456789012/q",
        "http://sqs.us-east-1.amazonaws.com/123456789012/q",
        "https://sqs.us-east-1.amazonaws.com:8443/123456789012/q",
        "https://user@sqs.us-east-1.amazonaws.com/123456789012/q",
        "https://sqs.us-east-1.amazonaws.com/q",
        "http://169.254.169.254/123456789012/q",
    ],
)
def test_a_queue_on_a_host_that_nobody_named_is_refused(target: str) -> None:
    with pytest.raises(InvalidRequest):
        check_target("sqs", target, Settings())


def test_a_queue_on_a_host_that_the_settings_name_is_allowed() -> None:
    settings = Settings(allow_addresses=("127.0.0.1:4566", "localstack"))
    check_target("sqs", "http://127.0.0.1:4566/000000000000/q", settings)
    check_target("sqs", "http://localstack:4566/000000000000/q", settings)


@pytest.mark.parametrize("target", ["arn:aws:sns:us-east-1:12:t", "arn:aws:sqs:us-east-1:123456789012:q", "t", ""])
def test_what_is_no_topic_is_refused(target: str) -> None:
    with pytest.raises(InvalidRequest):
        check_target("sns", target, Settings())


@pytest.mark.parametrize(
    ("target", "name"), [(TOPIC, "sns"), (QUEUE, "sqs"), ("https://host/", "webhook"), ("", "webhook")]
)
def test_a_target_tells_its_transport(target: str, name: str) -> None:
    assert transport_of(target) == name


def test_no_other_transport_can_be_registered() -> None:
    with pytest.raises(InvalidRequest):
        check_target("memory", "memory:", Settings())


def test_a_webhooks_timestamp_is_the_time_of_its_sending(server: Hooks, recorder: Recorder) -> None:
    transport = WebhookTransport(settings_for_hooks(server), clock=ManualClock(1_700_000_000.7))
    transport.send(endpoint(server.url("/hook")), event(), BODY)
    transport.close()
    assert recorder.heads[0]["webhook-timestamp"] == "1700000000"

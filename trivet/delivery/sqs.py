"""SQS: one message with the CloudEvent's text."""

from __future__ import annotations

from urllib.parse import urlsplit

from trivet.delivery.aws import AwsClients, attributes, ordered, sent
from trivet.delivery.reading import subject_of
from trivet.delivery.targets import queue
from trivet.delivery.values import Delivery, Endpoint, Outcome
from trivet.fetch.addresses import AddressRules
from trivet.settings import Settings


class SqsTransport:
    """Queues, FIFO or not. Thread-safe; close it."""

    def __init__(self, settings: Settings) -> None:
        self._clients = AwsClients(settings, "sqs")
        self._rules = AddressRules.of(settings.allow_addresses, settings.source_ports)

    def close(self) -> None:
        """Close all connections."""
        self._clients.close()

    def send(self, endpoint: Endpoint, event: Delivery, body: bytes) -> Outcome:
        """One message; the boto3 client does not retry."""
        target = queue(endpoint.target, self._rules)
        parts = urlsplit(endpoint.target)
        # A queue that is not AWS' own is on a server that is not either.
        client = self._clients.of(target, None if target.region else f"{parts.scheme}://{parts.netloc}")
        more = ordered(target, event, subject_of(body))
        return sent(
            f"SQS queue {target.name}",
            lambda: client.send_message(
                QueueUrl=endpoint.target, MessageBody=body.decode(), MessageAttributes=attributes(event), **more
            ),
        )

"""SNS: one publish of the CloudEvent's text."""

from __future__ import annotations

from trivet.delivery.aws import AwsClients, attributes, ordered, sent
from trivet.delivery.reading import subject_of
from trivet.delivery.targets import topic
from trivet.delivery.values import Delivery, Endpoint, Outcome
from trivet.settings import Settings


class SnsTransport:
    """Topics, FIFO or not. Thread-safe; close it."""

    def __init__(self, settings: Settings) -> None:
        self._clients = AwsClients(settings, "sns")

    def close(self) -> None:
        """Close all connections."""
        self._clients.close()

    def send(self, endpoint: Endpoint, event: Delivery, body: bytes) -> Outcome:
        """One publish; the boto3 client does not retry."""
        target = topic(endpoint.target)
        client = self._clients.of(target)
        more = ordered(target, event, subject_of(body))
        return sent(
            f"SNS topic {target.name}",
            lambda: client.publish(
                TopicArn=endpoint.target, Message=body.decode(), MessageAttributes=attributes(event), **more
            ),
        )

"""What SNS and SQS have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from trivet.delivery.targets import AwsTarget
from trivet.delivery.values import Delivery, Outcome
from trivet.errors import EndpointFailed
from trivet.settings import Settings

_GONE = frozenset({"NotFound", "NotFoundException", "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"})


class AwsClients:
    """One client per region, credentials and endpoint from boto3's own chain. Thread-safe."""

    def __init__(self, settings: Settings, service: Literal["sns", "sqs"]) -> None:
        self._settings = settings
        self._service: Literal["sns", "sqs"] = service
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def of(self, target: AwsTarget, endpoint_url: str | None = None) -> Any:
        """The client for a target's region; where it names none, the one of the settings."""
        region = target.region or self._settings.s3_region
        with self._lock:
            key = f"{region} {endpoint_url or ''}"
            if key not in self._clients:
                seconds = self._settings.deliver_timeout_seconds
                # The book retries, with patience and a log; boto3 may not.
                config = Config(
                    retries={"total_max_attempts": 1},
                    connect_timeout=seconds,
                    read_timeout=seconds,
                    max_pool_connections=self._settings.deliver_threads,
                )
                self._clients[key] = boto3.session.Session().client(
                    self._service, region_name=region, endpoint_url=endpoint_url, config=config
                )
            return self._clients[key]

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()


def attributes(event: Delivery) -> dict[str, dict[str, str]]:
    """What a subscription filters by, without reading the message."""
    return {
        "type": {"DataType": "String", "StringValue": f"trivet.{event.kind}"},
        "id": {"DataType": "String", "StringValue": event.event_id},
    }


def ordered(target: AwsTarget, event: Delivery, subject: str) -> dict[str, str]:
    """For FIFO: an object's events are one group, and AWS drops a redelivery within five minutes."""
    if not target.fifo:
        return {}
    return {"MessageGroupId": subject[:128] or event.event_id, "MessageDeduplicationId": event.event_id[:128]}


def sent(where: str, call: Callable[[], Any]) -> Outcome:
    """The outcome of a call to AWS. Raises `EndpointFailed` where there was no answer."""
    try:
        call()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "")) or "unknown"
        return Outcome(False, code, f"{where} answered {code}.", gone=code in _GONE)
    except BotoCoreError as error:
        raise EndpointFailed(f"{where} cannot be reached: {type(error).__name__}.") from error
    return Outcome(True, "200")

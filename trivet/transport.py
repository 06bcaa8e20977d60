"""Kombu's Redis transport, behind a sieve: no element of a queue can end or wedge the worker that pops it.

Kombu takes every element for a message that a Celery wrote, and a `ValueError` from one that is none ends the process.
Here an element is looked at before anything is done with it. What no worker can run goes onto a list of dead letters,
without having cost the worker any credit; what this worker does not know yet is put off for one that does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from time import time
from typing import Any

import structlog
from kombu.exceptions import KombuError
from kombu.serialization import loads as deserialise
from kombu.transport import redis as kombu_redis
from kombu.transport.virtual import QoS as VirtualQoS
from kombu.utils.json import dumps, loads
from redis.exceptions import RedisError, ResponseError

from trivet.clock import Clock, SystemClock
from trivet.logs import redact_text

log = structlog.get_logger(__name__)

#: The list of dead letters, below the prefix of all Celery keys.
DEAD_LIST = "dead"
#: Dead letters that are kept, and how much of each.
DEAD_LETTERS = 1000
DEAD_BYTES = 64 * 1024
#: An accept request with the longest data URL that is allowed is far below this.
MOST_BYTES = 4 << 20
#: How long a message that nobody here knows is left alone, about.
PUT_OFF_SECONDS = 10.0
#: Between two looks at a queue that Redis does not let us read.
_REFUSED_PAUSE_SECONDS = 1.0
_HEAD_BYTES = 120

#: A body in base64, which may hold anything.
_ENCODED = re.compile(r"[A-Za-z0-9+/=]{24,}")
#: What Kombu can undo.
_ENCODINGS = (None, "", "utf-8", "base64")


class Unreadable(Exception):
    """Why an element is no message that a worker could run."""


def sift(element: bytes) -> dict[str, Any]:
    """The message in an element of a queue, or `Unreadable`. What a sender has no say in is taken off it."""
    if len(element) > MOST_BYTES:
        raise Unreadable(f"it has {len(element)} bytes, and {MOST_BYTES} are allowed")
    try:
        message = loads(element.decode())
    except Exception as error:  # noqa: BLE001 - Kombu's JSON has hooks, which raise anything on a stranger's values
        raise Unreadable(f"it is no JSON ({type(error).__name__})") from None
    headers = _envelope(message)
    try:
        body = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = kombu_redis.virtual.Base64().decode(body)
        content = deserialise(
            body if isinstance(body, bytes) else body.encode(),
            message.get("content-type"),
            message.get("content-encoding"),
            accept=["application/json"],
        )
    except Exception as error:  # noqa: BLE001 - as above
        raise Unreadable(f"its body cannot be read ({type(error).__name__})") from None
    _call(headers, content)
    # Celery would enforce these on the pool: a stranger could have its processes killed.
    headers.pop("timelimit", None)
    return dict(message)


def _envelope(message: object) -> dict[str, Any]:
    """The headers of a message that has all that Kombu takes for granted."""
    if not isinstance(message, dict):
        raise Unreadable(f"it is a JSON {type(message).__name__}, not an object")
    properties = message.get("properties")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_tag"), str):
        raise Unreadable("it has no delivery tag")
    info = properties.get("delivery_info")
    if not isinstance(info, dict) or not all(isinstance(info.get(key), str) for key in ("exchange", "routing_key")):
        raise Unreadable("it does not say where it was sent to")
    encoding = properties.get("body_encoding")
    if not isinstance(message.get("body"), str) or encoding not in _ENCODINGS:
        raise Unreadable("it has no body, or one of an unknown encoding")
    headers = message.get("headers") or {}
    if not isinstance(headers, dict):
        raise Unreadable("its headers are no object")
    if headers.get("compression"):
        raise Unreadable("it is compressed")
    message["headers"] = headers
    return headers


def _call(headers: dict[str, Any], content: object) -> None:
    """Whether body and headers say what to call with what, in version 2 or 1 of Celery's protocol."""
    if "task" in headers:
        call, arguments = headers, content
        if not isinstance(arguments, list) or len(arguments) != 3:
            raise Unreadable("its body does not hold arguments")
        args, kwargs, _ = arguments
    else:
        if not isinstance(content, dict):
            raise Unreadable("it names no task")
        call, args, kwargs = content, content.get("args", []), content.get("kwargs", {})
        content.pop("timelimit", None)
    if not isinstance(call.get("task"), str) or not isinstance(call.get("id"), str):
        raise Unreadable("it names no task, or has no id")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise Unreadable("its arguments are no list and no object")


class QoS(kombu_redis.QoS):  # type: ignore[misc] # Kombu ships no types
    """Messages in work. What cannot be put back is buried, and what is put back comes after all that waits."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Take it on; where a full Redis cannot note that, it is worked on all the same."""
        try:
            super().append(message, delivery_tag)
        except ResponseError as error:
            log.warning("message.unnoted", error=str(error))
            VirtualQoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Done with it."""
        with self._credited(delivery_tag):
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Done with it too, or back into its queue."""
        with self._credited(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)

    @contextmanager
    def _credited(self, delivery_tag: str) -> Iterator[None]:
        """Where Redis cannot be told, the message is one that was left behind, and no longer this worker's.

        Kombu would go on counting it as in work. A worker without credit listens to no queue, and so never learns that
        its connection is gone: one that was cut at this moment made an embed worker deaf for good.
        """
        try:
            yield
        except (RedisError, OSError) as error:
            log.warning("message.not_told", error=str(error))
            VirtualQoS.ack(self, delivery_tag)

    def put_off(self, delivery_tag: str, seconds: float) -> None:
        """Leave a message to whoever looks for messages left behind, in so many seconds. It costs no credit."""
        with self.channel.conn_or_acquire() as client:
            client.zadd(self.unacked_index_key, {delivery_tag: time() - self.visibility_timeout + seconds})
        VirtualQoS.ack(self, delivery_tag)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        try:
            super().restore_visible(start=start, num=num, interval=interval)
        except ResponseError as error:
            log.warning("restore.refused", error=str(error))

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = True) -> None:  # noqa: ARG002 - Kombu's signature
        try:
            # To the back: what was left behind may be what ends every worker that takes it.
            super().restore_by_tag(tag, client=client, leftmost=True)
        except Exception as error:
            if _of_the_connection(error, self.channel.connection_errors) or isinstance(error, ResponseError):
                raise
            self._bury_restored(tag, str(error) if isinstance(error, Unreadable) else type(error).__name__)

    def _bury_restored(self, tag: Any, why: str) -> None:
        with self.channel.conn_or_acquire() as client:
            element = client.hget(self.unacked_key, tag)
            self._remove_from_indices(tag).execute()
        self.channel.bury(element or b"", f"it was left behind and cannot be put back ({why})")


class Channel(kombu_redis.Channel):  # type: ignore[misc] # as above
    """Pops elements through the sieve."""

    QoS = QoS
    clock: Clock = SystemClock()

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous=asynchronous)
        if asynchronous:
            client.set_response_callback("BRPOP", self._sifted)
        return client

    def _sifted(self, answer: Any, **_: Any) -> tuple[Any, Any] | None:
        """The answer to BRPOP; an element that is no message counts as none."""
        if not answer:
            return None
        key, element = answer
        try:
            return key, dumps(sift(element))
        except Unreadable as why:
            self.bury(element, str(why))
            return None

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except ResponseError as error:
            # A key of another kind: the others are served again once it is gone.
            log.error("queue.refused", error=str(error))
            self.clock.sleep(_REFUSED_PAUSE_SECONDS)
            raise kombu_redis.Empty from None

    def _do_restore_message(
        self, payload: Any, exchange: Any, routing_key: Any, pipe: Any, leftmost: bool = False
    ) -> None:
        # Kombu would drop what it cannot put back.
        _envelope(payload)
        super()._do_restore_message(payload, exchange, routing_key, pipe, leftmost)

    def _size(self, queue: str) -> int:
        try:
            return int(super()._size(queue))
        except ResponseError:
            # Said when it is read; a worker declares queues before that.
            return 0

    def bury(self, element: bytes | str, why: str) -> None:
        """Put an element onto the list of dead letters, which keeps the newest, and say so."""
        raw = element.encode("utf-8", "replace") if isinstance(element, str) else element
        log.error("message.dead", why=why, bytes=len(raw), head=head(raw))
        try:
            with self.conn_or_acquire() as client, client.pipeline() as pipe:
                pipe.lpush(DEAD_LIST, raw[:DEAD_BYTES])
                # Kombu's own prefix is not put before this command's key.
                pipe.ltrim(f"{self.global_keyprefix}{DEAD_LIST}", 0, DEAD_LETTERS - 1)
                pipe.execute()
        except RedisError as error:
            log.warning("message.not_kept", error=str(error))

    def bury_message(self, message: Any, why: str) -> None:
        """The same for a message that was taken on; whatever state it is in, it holds no credit afterwards."""
        self.bury(dumps(message._raw), why)  # noqa: SLF001 - Kombu itself restores from there
        if message.delivery_tag in self.qos._delivered:  # noqa: SLF001 - no other way to know
            self.qos.reject(message.delivery_tag, requeue=False)


class Transport(kombu_redis.Transport):  # type: ignore[misc] # as above
    """Hands messages on; an error of one message is no error of the connection."""

    Channel = Channel

    def _deliver(self, message: dict[str, Any], queue: str) -> None:
        try:
            super()._deliver(message, queue)
        except Exception as error:
            if _of_the_connection(error, self.connection_errors):
                raise
            self._discard(message, f"it cannot be handed on ({type(error).__name__}: {error})")

    def _discard(self, message: dict[str, Any], why: str) -> None:
        tag = message["properties"]["delivery_tag"]
        channels = [channel for channel in self.channels if channel]
        for channel in channels:
            if tag in channel.qos._delivered:  # noqa: SLF001 - no other way to know
                channel.qos.reject(tag, requeue=False)
        if channels:
            channels[0].bury(dumps(message), why)


def _of_the_connection(error: Exception, kinds: tuple[type[Exception], ...]) -> bool:
    """Kombu counts every `KeyError` as a lost connection; one from a message is the message's."""
    return isinstance(error, kinds) and not isinstance(error, KeyError | KombuError)


def head(element: bytes) -> str:
    """The beginning of an element, fit for a log: without what may be secret in it."""
    # Cut only once it is redacted: half a URL is not known for one.
    text = element[: 8 * _HEAD_BYTES].decode("utf-8", "backslashreplace")
    return _ENCODED.sub("…", redact_text(text))[:_HEAD_BYTES]

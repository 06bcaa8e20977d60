"""A connection that is cut at the worst moment makes no worker deaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from infra.faults.redis_proxy import RedisProxy
from trivet.broker import make_app, queue_names
from trivet.names import ANY, EMBED_TASK, Stage, celery_queue
from trivet.settings import Settings

ENDS: dict[str, Callable[[Any], None]] = {
    "ack": lambda message: message.ack(),
    "reject": lambda message: message.reject(),
    "requeue": lambda message: message.requeue(),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_message_that_redis_cannot_be_told_of_costs_no_credit_and_is_not_lost(
    settings: Settings, end: Callable[[Any], None]
) -> None:
    queue = celery_queue(Stage.EMBED, ANY)
    with RedisProxy(settings.redis_url) as proxy:
        app = make_app(settings.model_copy(update={"redis_url": proxy.url}), queues=queue_names([Stage.EMBED], [ANY]))
        app.send_task(EMBED_TASK, kwargs={"door": ANY, "bell": ""}, queue=queue)
        connection = app.connection()
        channel = connection.channel()
        channel.basic_qos(0, 1, False)
        message = channel.basic_get(queue)
        assert message is not None
        assert not channel.qos.can_consume()
    # From here on nothing listens at the proxy's address.
    end(message)
    assert channel.qos.can_consume()
    # Whoever looks for messages left behind finds it.
    with redis.Redis.from_url(settings.redis_url) as client:
        assert client.hlen(f"{settings.redis_prefix}celery:unacked") == 1
    connection.collect()
    app.close()

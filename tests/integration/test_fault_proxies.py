"""The proxies by which servers are made to fail: nothing else may change on the way through them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from random import Random

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from infra.faults.outages import Doorbells
from infra.faults.redis_proxy import RedisProxy, commands
from infra.faults.s3_proxy import S3Proxy, refusing, sometimes
from trivet.errors import StoreUnavailable
from trivet.settings import Settings
from trivet.stores import open_store


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=0.5, retry=Retry(NoBackoff(), 0))


@pytest.fixture
def key(settings: Settings) -> str:
    return f"{settings.redis_prefix}celery:trivet.prepare"


def test_bytes_pass_as_they_are(valkey_url: str, key: str) -> None:
    body = bytes(range(256)) * 1000
    with RedisProxy(valkey_url) as proxy, _client(proxy.url) as client:
        client.set(key, body)
        assert client.get(key) == body


def test_through_a_rewriting_proxy_pipelines_and_scripts_work_as_ever(valkey_url: str, key: str) -> None:
    with RedisProxy(valkey_url, lambda words: words) as proxy, _client(proxy.url) as client:
        with client.pipeline(transaction=True) as pipe:
            pipe.set(key, b"\r\n*1\r\n")
            pipe.get(key)
            assert pipe.execute() == [True, b"\r\n*1\r\n"]
        assert client.eval("return ARGV[1]", 0, "") == b""


@pytest.mark.parametrize(("lost", "doubled", "found"), [(1.0, 0.0, 0), (0.0, 1.0, 2), (0.0, 0.0, 1)])
def test_doorbells_are_lost_or_doubled_and_nothing_else_is(
    valkey_url: str, key: str, lost: float, doubled: float, found: int
) -> None:
    bells = Doorbells(lost, doubled)
    with RedisProxy(valkey_url, bells.rewriter(Random(1))) as proxy, _client(proxy.url) as client:
        assert isinstance(client.lpush(key, b"bell"), int)
        assert client.llen(key) == found
        client.lpush(f"{key}:other".replace("celery:", ""), b"no bell")
        assert client.llen(f"{key}:other".replace("celery:", "")) == 1
    assert bells.struck == (found != 1)


def test_in_a_blackhole_nothing_answers_and_no_connection_breaks(valkey_url: str, key: str) -> None:
    with RedisProxy(valkey_url) as proxy, _client(proxy.url) as client:
        client.set(key, "before")
        proxy.blackhole(True)
        with pytest.raises(redis.exceptions.TimeoutError):
            client.get(key)
        proxy.blackhole(False)
        assert client.get(key) == b"before"


def test_a_cut_ends_every_connection(valkey_url: str) -> None:
    with RedisProxy(valkey_url) as proxy:
        port = int(proxy.url.rpartition(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"*1\r\n$4\r\nPING\r\n")
            assert client.recv(7) == b"+PONG\r\n"
            proxy.cut()
            assert client.recv(1) == b""


def test_a_command_may_come_in_any_pieces() -> None:
    ours, theirs = socket.socketpair()
    sent = b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n" * 3

    def send() -> None:
        for at in range(0, len(sent), 5):
            theirs.sendall(sent[at : at + 5])
        theirs.close()

    thread = threading.Thread(target=send)
    thread.start()
    seen: list[list[bytes]] = []

    def rewrite(words: list[bytes]) -> list[bytes]:
        seen.append(words)
        return words

    with ours:
        assert b"".join(commands(ours, rewrite)) == sent
    thread.join()
    assert seen == [[b"GET", b"a\r\nb"]] * 3


@pytest.fixture
def s3_proxy(settings: Settings) -> Iterator[S3Proxy]:
    with S3Proxy(settings.s3_endpoint) as proxy:
        yield proxy


def test_s3_works_through_its_proxy_and_not_in_an_outage(settings: Settings, s3_proxy: S3Proxy) -> None:
    store = open_store(settings.model_copy(update={"s3_endpoint": s3_proxy.url}))
    key = f"{settings.s3_prefix}/key"
    store.put(key, b"body")
    assert store.get(key)[0] == b"body"
    s3_proxy.policy = refusing
    with pytest.raises(StoreUnavailable):
        store.get(key)
    assert s3_proxy.struck > 0


def test_a_share_of_the_requests_meets_a_mishap() -> None:
    policy = sometimes(0.1, "503", Random(1), frozenset({"PUT"}))
    assert {policy("GET") for _ in range(100)} == {"ok"}
    struck = sum(policy("PUT") == "503" for _ in range(1000))
    assert 50 < struck < 150

"""S3 when things go wrong: no server, a silent one, wrong credentials, no bucket, a fork, lost answers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from pydantic import SecretStr

from tests.support.s3_proxy import S3Proxy
from trivet.errors import InvalidRequest, NotInStore, StoreConflict, StoreForbidden, StoreUnavailable
from trivet.settings import Settings
from trivet.stores.s3 import ATTEMPTS, S3Store


@pytest.fixture
def proxy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    with S3Proxy(settings.s3_endpoint) as proxy:
        proxy.without_pauses(monkeypatch)
        yield proxy


@pytest.fixture
def proxied(settings: Settings, proxy: S3Proxy) -> S3Store:
    return S3Store(settings.model_copy(update={"s3_endpoint": proxy.url}))


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def test_a_server_that_is_not_there_is_unavailable_and_named(settings: Settings) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    store = S3Store(settings.model_copy(update={"s3_endpoint": endpoint}), attempts=1)
    with pytest.raises(StoreUnavailable, match=endpoint) as caught:
        store.put("key", b"")
    assert "TRIVET_S3_ENDPOINT" in caught.value.hint


def test_an_upload_goes_to_the_name_that_clients_outside_have_for_the_store(settings: Settings) -> None:
    public = settings.s3_endpoint.replace("127.0.0.1", "localhost")
    store = S3Store(settings.model_copy(update={"s3_public_endpoint": public}))
    url = store.upload_url("sent", seconds=60)
    assert url.startswith(f"{public}/{settings.s3_bucket}/sent?")
    assert httpx2.put(url, content=b"some bytes", trust_env=False).is_success
    assert store.get("sent")[0] == b"some bytes"


def test_a_server_that_never_answers_is_unavailable(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = S3Store(settings.model_copy(update={"s3_endpoint": endpoint}), attempts=1, read_seconds=0.2)
        for call in (store.get, store.head, store.open, lambda key: next(store.list(key))):
            with pytest.raises(StoreUnavailable):
                call("key")


@pytest.mark.parametrize("wrong", [{"s3_access_key": "nobody"}, {"s3_secret_key": SecretStr("hunter2")}])
def test_wrong_credentials_are_forbidden_and_never_shown(settings: Settings, wrong: dict[str, object]) -> None:
    store = S3Store(settings.model_copy(update=wrong))
    for call in (lambda: store.put("k", b""), lambda: store.get("k"), lambda: store.head("k"), store.ensure_bucket):
        with pytest.raises(StoreForbidden) as caught:
            call()
        assert settings.s3_bucket in caught.value.message
        for secret in ("hunter2", settings.s3_access_key, settings.s3_secret_key.get_secret_value()):
            assert secret not in str(caught.value)


def test_no_credentials_at_all_are_forbidden(settings: Settings) -> None:
    store = S3Store(settings.model_copy(update={"s3_access_key": "", "s3_secret_key": SecretStr("")}))
    with pytest.raises(StoreForbidden, match="credentials"):
        store.get("k")


def test_a_bucket_that_is_not_there_is_forbidden_by_name(settings: Settings) -> None:
    store = S3Store(settings.model_copy(update={"s3_bucket": "nowhere-to-be-found"}))
    for call in (store.get, store.head, store.open):
        with pytest.raises(StoreForbidden, match="nowhere-to-be-found"):
            call("k")


def test_a_missing_bucket_is_created_on_demand(settings: Settings) -> None:
    store = S3Store(settings.model_copy(update={"s3_bucket": f"{settings.s3_prefix}-new"}))
    store.ensure_bucket()
    with pytest.raises(NotInStore):
        store.head("k")
    assert list(store.list("")) == []


def test_a_bucket_name_that_cannot_be_is_refused(settings: Settings) -> None:
    with pytest.raises((InvalidRequest, StoreForbidden)):
        S3Store(settings.model_copy(update={"s3_bucket": "No Bucket!"})).get("k")


def test_a_forked_child_and_its_parent_both_go_on(store: S3Store, settings: Settings) -> None:
    key = f"{settings.s3_prefix}/fork"
    store.put(key, b"parent")
    client, lock = store._client, store._lock
    # A lock that another thread holds at the fork would never be released in the child.
    lock.acquire()
    child = os.fork()
    if child == 0:
        try:
            assert store._opened is None
            store.put(key, store.get(key)[0] + b" child")
            os._exit(0 if store._client is not client else 1)
        except BaseException:  # noqa: BLE001 # nothing may leave the child but its status
            os._exit(2)
    lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store._client is client
    assert store.get(key)[0] == b"parent child"


def test_threads_that_start_at_once_share_one_client(settings: Settings) -> None:
    store = S3Store(settings)
    barrier = threading.Barrier(8)

    def first(_: int) -> int:
        barrier.wait()
        return id(store._client)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(first, range(8)))) == 1


def test_a_key_that_is_replaced_while_it_is_read_is_a_conflict(store: S3Store, settings: Settings) -> None:
    key = f"{settings.s3_prefix}/replaced"
    store.put(key, b"a" * 1_000_000)
    with store.open(key) as file:
        assert file.read(10) == b"a" * 10
        store.put(key, b"b" * 1_000_000)
        with pytest.raises(StoreConflict):
            file.read()


def test_a_write_whose_answer_is_lost_once_conflicts_with_itself(proxied: S3Store, proxy: S3Proxy) -> None:
    proxy.mishaps = ["drop after"]
    with pytest.raises(StoreConflict):
        proxied.put("lost-answer", b"mine", if_none_match=True)
    assert proxied.get("lost-answer")[0] == b"mine"
    assert proxy.writes == 2


def test_a_write_whose_answer_is_always_lost_is_unavailable_although_it_was_done(
    proxied: S3Store, proxy: S3Proxy
) -> None:
    proxy.mishaps = ["drop after"] * ATTEMPTS
    with pytest.raises(StoreUnavailable):
        proxied.put("lost-answers", b"mine", if_none_match=True)
    assert proxied.get("lost-answers")[0] == b"mine"
    assert proxy.writes == ATTEMPTS


@pytest.mark.parametrize("mishap", ["drop before", "500", "503"])
def test_a_request_that_fails_all_but_once_is_done(proxied: S3Store, proxy: S3Proxy, mishap: str) -> None:
    proxy.mishaps = [mishap] * (ATTEMPTS - 1)
    proxied.put(f"retried-{mishap}", b"mine", if_none_match=True)
    assert proxy.writes == ATTEMPTS


@pytest.mark.parametrize("mishap", ["drop before", "500", "503"])
def test_a_request_that_fails_every_time_is_unavailable(proxied: S3Store, proxy: S3Proxy, mishap: str) -> None:
    proxy.mishaps = [mishap] * ATTEMPTS
    with pytest.raises(StoreUnavailable):
        proxied.put(f"failed-{mishap}", b"mine")
    with pytest.raises(NotInStore):
        proxied.get(f"failed-{mishap}")


def test_a_409_is_a_conflict_and_is_not_sent_again(proxied: S3Store, proxy: S3Proxy) -> None:
    proxy.mishaps = ["409"]
    with pytest.raises(StoreConflict):
        proxied.put("conflicting", b"mine", if_none_match=True)
    assert proxy.writes == 1


def test_an_answer_that_is_cut_off_in_its_body_is_unavailable(proxied: S3Store, proxy: S3Proxy) -> None:
    proxied.put("cut", b"x" * 100_000)
    proxy.cut_reads = True
    with pytest.raises(StoreUnavailable):
        proxied.get("cut")

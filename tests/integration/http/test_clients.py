"""The Python client over HTTP: what it does over Redis, it does here."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.api import Api, free_port
from trivet import AsyncTrivet, Trivet
from trivet.errors import (
    IdempotencyConflict,
    InvalidRequest,
    LedgerUnavailable,
    NotRetryable,
    TrivetError,
    UnknownCollection,
    UnknownTask,
)
from trivet.remote import calls
from trivet.remote.client import HttpTrivet
from trivet.settings import Settings
from trivet.values import Chunking, Outputs, Pipeline, TaskState

PIPELINE = Pipeline(chunking=Chunking(target_tokens=64, max_tokens=96), outputs=Outputs(colbert="int8"))


def test_a_client_over_http_does_what_one_over_redis_does(running: Api, live: Settings) -> None:
    with Trivet(settings=live) as over_redis, over_http(running.url) as client:
        _both(client, over_redis)


def test_a_client_leaves_no_connection_behind(running: Api, live: Settings) -> None:
    with Trivet(settings=live) as over_redis:
        over_redis.collections()
        connections = list(over_redis._ledger._client.connection_pool._available_connections)
        assert [connection.is_connected for connection in connections] == [True]
    assert [connection.is_connected for connection in connections] == [False]
    with over_http(running.url) as client:
        client.collections()
    assert client._api._http.is_closed


def over_http(url: str) -> HttpTrivet:
    """What `Trivet` makes of an address."""
    client = Trivet(url)
    assert isinstance(client, HttpTrivet)
    return client


def _both(over_http: HttpTrivet, over_redis: Trivet) -> None:
    made = over_http.create_collection("client", pipeline=PIPELINE)
    assert made == over_redis.collection("client") == over_http.collection("client")
    assert over_http.create_collection("client", exist_ok=True) == made
    with pytest.raises(InvalidRequest, match="Collection 'client' exists already"):
        over_http.create_collection("client")
    task = over_http.ingest("data:,Hello%20there", collection="client", object_id="o", idempotency_key="k")
    again = over_redis.ingest("data:,Hello%20there", collection="client", object_id="o", idempotency_key="k")
    assert (again.task_id, again.new, task.new) == (task.task_id, False, True)
    with pytest.raises(IdempotencyConflict):
        over_http.ingest("data:,Other", collection="client", object_id="o", idempotency_key="k")
    view = task.wait(timeout=60)
    assert view.state is TaskState.COMPLETED
    assert view == over_redis.task(task.task_id).status()
    assert over_http.tasks("client") == over_redis.tasks("client")
    assert task.why().reason == "Committed and visible."
    assert task.cancel().state is TaskState.COMPLETED
    with pytest.raises(NotRetryable):
        task.retry()
    assert over_http.delete("o", collection="client").wait(timeout=60).state is TaskState.DELETED
    failed = over_http.ingest("https://127.0.0.1:1/", collection="client").wait(timeout=60)
    assert failed.error is not None
    assert failed.task_id in {one.task_id for one in over_http.dead()}
    with pytest.raises(UnknownCollection):
        over_http.ingest("data:,x", collection="none")
    with pytest.raises(UnknownTask):
        over_http.task("task_none").status()
    assert "client" in {one.name for one in over_http.collections()}
    with pytest.raises(InvalidRequest, match=r"backlog\(\) is not served over HTTP"):
        over_http.backlog()


def test_the_client_for_asyncio_does_the_same(running: Api) -> None:
    async def use() -> None:
        async with AsyncTrivet(f"{running.url}/v1/") as trivet:
            made = await trivet.create_collection("async", pipeline=PIPELINE)
            assert await trivet.create_collection("async", exist_ok=True) == made == await trivet.collection("async")
            tasks = await asyncio.gather(
                *(trivet.ingest(f"data:,Text%20{n}", collection="async", object_id=f"o{n}") for n in range(10))
            )
            views = await asyncio.gather(*(task.wait(timeout=60) for task in tasks))
            assert {view.state for view in views} == {TaskState.COMPLETED}
            assert len(await trivet.tasks("async")) == 10
            assert (await (await trivet.delete("o1", collection="async")).wait(60)).state is TaskState.DELETED
            assert "async" in {one.name for one in await trivet.collections()}
            with pytest.raises(UnknownTask):
                await trivet.task("task_none").status()

    asyncio.run(use())


def test_where_nobody_answers_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_PAUSE", 0.0)
    url = f"http://127.0.0.1:{free_port()}"
    with over_http(url) as client, pytest.raises(LedgerUnavailable, match="does not answer"):
        client.collection("c")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"error": {"code": "unknown_task", "message": "No task."}}, UnknownTask),
        (400, {"error": {"code": "new_one", "message": "Other."}}, InvalidRequest),
        (502, None, TrivetError),
        (503, "busy", LedgerUnavailable),
    ],
)
def test_an_answer_that_is_an_error_is_the_librarys_own(status: int, body: object, kind: type[TrivetError]) -> None:
    assert type(calls.error_of(status, body)) is kind


def test_a_key_without_an_http_address_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="An API key is for an http"):
        Trivet("redis://127.0.0.1:1/0", api_key="sk_x")

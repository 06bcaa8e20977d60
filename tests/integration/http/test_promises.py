"""What every route promises: idempotency, cursors, entity tags, one error envelope, one description of it all."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.support.api import Api, serving
from trivet.ledger import open_ledger
from trivet.settings import Settings

BUCKET = {"bucket_name": "b", "bucket_schema": {"properties": {"content": {"type": "text"}}}}
WEBHOOK: dict[str, object] = {
    "webhook_name": "w",
    "event_types": ["document.created"],
    "channels": [{"channel": "webhook", "configs": {"url": "https://93.184.216.34/hook"}}],
}


@pytest.fixture
def place(api: Api) -> dict[str, str]:
    """Headers of a namespace of its own."""
    made = api.made("/v1/namespaces", {"namespace_name": f"n{uuid.uuid4().hex[:12]}"})
    return {"X-Namespace": str(made["namespace_id"])}


CREATING: dict[str, dict[str, Any]] = {
    "/v1/buckets": BUCKET,
    "/v1/collections": {"collection_name": "c"},
    "/v1/retrievers": {
        "retriever_name": "r",
        "stages": [{"type": "feature_search", "query": "{{INPUT.query}}", "limit": 3}],
    },
    "/v1/organizations/webhooks": WEBHOOK,
}


class TestAnIdempotencyKey:
    @pytest.mark.parametrize("path", CREATING)
    def test_gives_the_same_answer_again_and_refuses_another_request(
        self, api: Api, place: dict[str, str], path: str
    ) -> None:
        headers = {**place, "Idempotency-Key": "key-1"}
        first = api.post(path, CREATING[path], headers=headers)
        again = api.post(path, CREATING[path], headers=headers)
        assert first.is_success, first.text
        shown = {name: None if name == "signing_secrets" else value for name, value in first.json().items()}
        assert (again.status_code, again.json()) == (first.status_code, shown)
        assert again.headers["Idempotency-Replayed"] == "true"
        other = api.post(path, {**CREATING[path], "description": "another"}, headers=headers)
        assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_conflict")
        assert api.get(path, headers=place).json()["total_count"] == 1

    def test_makes_one_thing_of_requests_at_the_same_time(self, api: Api, place: dict[str, str]) -> None:
        headers = {**place, "Idempotency-Key": "at once"}
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: api.post("/v1/buckets", BUCKET, headers=headers), range(8)))
        assert {one.status_code for one in answers} <= {200, 409}
        assert len({one.json()["bucket_id"] for one in answers if one.is_success}) == 1
        assert api.get("/v1/buckets", headers=place).json()["total_count"] == 1

    def test_keeps_no_secret_that_an_answer_shows_once(self, api: Api, live: Settings, place: dict[str, str]) -> None:
        headers = {**place, "Idempotency-Key": "hooked"}
        made = api.made("/v1/organizations/webhooks", WEBHOOK, headers=headers)
        again = api.made("/v1/organizations/webhooks", WEBHOOK, headers=headers)
        (secret,) = made["signing_secrets"]
        assert again == {**made, "signing_secrets": None}
        with closing(redis.Redis.from_url(live.redis_url)) as client:
            answers = [key for key in client.scan_iter(f"{live.redis_prefix}*answer*") if client.type(key) == b"hash"]
            kept = b"".join(value for key in answers for value in client.hgetall(key).values())  # type: ignore[misc]  # redis-py types hgetall as text
        assert made["webhook_id"].encode() in kept
        assert secret.encode() not in kept

    def test_is_held_while_its_request_is_on_its_way_and_free_soon_after_its_process_was_killed(
        self, settings_for: Callable[..., Settings], tmp_path: Path
    ) -> None:
        # Of its own: no worker may be there, so that the answer waits for as long as it may.
        own = settings_for(tmp_path, "held", model_aliases={"BAAI/bge-m3": "fake"})
        hasty = own.model_copy(update={"idempotency_reserved_seconds": 5.0})
        once = {"Idempotency-Key": "killed"}
        body = {"source": {"text": "Once."}}
        with serving(own) as api, serving(hasty) as first, ThreadPoolExecutor(1) as pool:
            api.made("/v1/collections", {"collection_name": "c"})
            waiting = pool.submit(first.post, "/v1/collections/c/ingest", body, headers={**once, "Prefer": "wait=50"})
            _wait_until_renewed(own)
            assert api.post("/v1/collections/c/ingest", body, headers=once).status_code == 409
            first.kill()
            with pytest.raises(httpx2.TransportError):
                waiting.result(30)
            killed = time.monotonic()
            while (found := api.post("/v1/collections/c/ingest", body, headers=once)).status_code == 409:
                assert time.monotonic() < killed + 20
                time.sleep(0.1)
            assert found.status_code == 202, found.text
            assert "Idempotency-Replayed" not in found.headers
            assert len(api.get("/v1/tasks").json()["results"]) == 1

    def test_of_an_ingest_makes_one_task(self, api: Api, place: dict[str, str]) -> None:
        api.made("/v1/collections", {"collection_name": "c"}, headers=place)
        headers = {**place, "Idempotency-Key": "order-1"}
        body = {"source": {"text": "Once."}}
        first = api.made("/v1/collections/c/ingest", body, headers=headers)
        assert api.made("/v1/collections/c/ingest", body, headers=headers) == first
        many = {"sources": [{"text": f"Text {n}."} for n in range(5)]}
        several = api.made("/v1/collections/c/ingest", many, headers={**place, "Idempotency-Key": "order-2"})
        assert api.made("/v1/collections/c/ingest", many, headers={**place, "Idempotency-Key": "order-2"}) == several
        assert len(api.get("/v1/tasks", headers=place).json()["results"]) == 6

    def test_stands_for_a_new_request_once_its_answer_is_no_longer_kept(
        self, settings_for: Callable[..., Settings], tmp_path: Path
    ) -> None:
        own = settings_for(tmp_path, "short", model_aliases={"BAAI/bge-m3": "fake"}, idempotency_hours=2 / 3600)
        nightly = {"Idempotency-Key": "nightly"}
        with serving(own) as api:
            bucket = f"/v1/buckets/{api.made('/v1/buckets', BUCKET)['bucket_id']}/objects"
            api.made("/v1/collections", {"collection_name": "c", "source": {"bucket_ids": [bucket.split("/")[3]]}})
            for count in (1, 2):
                api.made(bucket, {"blobs": [{"data": f"Text {count}."}]})
                batch_id = api.made("/v1/collections/c/trigger", {}, headers=nightly)["batch_id"]
                assert api.get(f"/v1/batches/{batch_id}").json()["progress"]["total"] == count
                time.sleep(2.5)

    def test_of_a_form_holds_whatever_boundary_it_is_sent_with(self, api: Api, place: dict[str, str]) -> None:
        api.made("/v1/buckets", BUCKET, headers=place)

        def send(boundary: str, text: str) -> httpx2.Response:
            part = (
                'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n'
                f"Content-Type: text/plain\r\n\r\n{text}"
            )
            headers = {
                **place,
                "Idempotency-Key": "form",
                "Content-Type": f"multipart/form-data; boundary={boundary}",
            }
            body = f"--{boundary}\r\n{part}\r\n--{boundary}--\r\n"
            return api.http.post("/v1/buckets/b/objects/upload", content=body.encode(), headers=headers)

        first, again = send("one-of-many", "Once."), send("another", "Once.")
        assert first.is_success, first.text
        assert (again.status_code, again.text) == (200, first.text)
        assert send("one-of-many", "Twice.").status_code == 422
        assert api.get("/v1/buckets/b/objects", headers=place).json()["total_count"] == 1

    def test_is_free_again_where_the_request_failed(self, api: Api, place: dict[str, str]) -> None:
        headers = {**place, "Idempotency-Key": "late"}
        body = {"source": {"text": "Once."}}
        assert api.post("/v1/collections/c/ingest", body, headers=headers).status_code == 404
        api.made("/v1/collections", {"collection_name": "c"}, headers=place)
        assert api.post("/v1/collections/c/ingest", body, headers=headers).status_code == 202


def test_a_list_is_read_page_by_page_and_each_thing_comes_once(api: Api, place: dict[str, str]) -> None:
    home = api.made("/v1/buckets", BUCKET, headers=place)["bucket_id"]
    for number in range(7):
        api.made("/v1/collections", {"collection_name": f"c{number}"}, headers=place)
        api.made("/v1/collections/c0/ingest", {"source": {"text": f"{number}"}}, headers=place)
        blob = {"property": "content", "type": "text", "data": f"{number}"}
        api.made(f"/v1/buckets/{home}/objects", {"blobs": [blob]}, headers=place)
        api.made(f"/v1/buckets/{home}/batches", {}, headers=place)
    for path, name, count in (
        ("/v1/collections", "collection_id", 7),
        (f"/v1/buckets/{home}/objects", "object_id", 7),
        (f"/v1/buckets/{home}/batches", "batch_id", 7),
        ("/v1/tasks", "task_id", 7),
    ):
        seen, cursor = [], None
        while True:
            page = api.get(path, params={"limit": 3, **({"cursor": cursor} if cursor else {})}, headers=place).json()
            assert len(page["results"]) <= 3
            seen += [one[name] for one in page["results"]]
            cursor = page["pagination"]["next_cursor"]
            if cursor is None:
                break
            wrong = api.get("/v1/buckets", params={"cursor": cursor}, headers=place)
            assert wrong.status_code == 400
        assert len(seen) == len(set(seen)) == count, path
        body = {"page_size": 1000, "note": "no JSON body provided"}
        assert [one[name] for one in api.made(f"{path}/list", body, headers=place)["results"]] == seen


def test_a_list_that_is_asked_for_with_get_knows_its_size_by_either_name(api: Api, place: dict[str, str]) -> None:
    for name in "abc":
        api.made("/v1/buckets", {**BUCKET, "bucket_name": name}, headers=place)
    for asked in ("limit=2", "page_size=2"):
        found = api.get(f"/v1/buckets?{asked}", headers=place).json()
        assert (len(found["results"]), found["pagination"]["page_size"]) == (2, 2)


def test_what_has_not_changed_is_not_sent_again(api: Api, place: dict[str, str]) -> None:
    api.made("/v1/collections", {"collection_name": "c"}, headers=place)
    first = api.get("/v1/collections/c", headers=place)
    again = api.get("/v1/collections/c", headers={**place, "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    api.http.patch("/v1/collections/c", json={"description": "new"}, headers=place)
    changed = api.get("/v1/collections/c", headers={**place, "If-None-Match": first.headers["ETag"]})
    assert (changed.status_code, changed.json()["description"]) == (200, "new")


def test_nothing_of_one_namespace_is_there_in_another(api: Api, place: dict[str, str]) -> None:
    home = api.made("/v1/buckets", BUCKET, headers=place)["bucket_id"]
    where = api.made("/v1/collections", {"collection_name": "own"}, headers=place)["collection_id"]
    task = api.made("/v1/collections/own/ingest", {"source": {"text": "x"}}, headers=place)["task_id"]
    for path in (f"/v1/buckets/{home}", f"/v1/collections/{where}", "/v1/collections/own", f"/v1/tasks/{task}"):
        assert api.get(path, headers=place).status_code == 200
        found = api.get(path)
        assert (found.status_code, found.json()["error"]["type"]) == (404, "NotFoundError")
    assert api.get("/v1/buckets", headers={"X-Namespace": "never-made"}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("GET", "/v1/collections/none", None, 404, "NotFoundError"),
        ("GET", "/v1/nowhere", None, 404, "NotFoundError"),
        ("PUT", "/v1/collections", None, 405, "BadRequestError"),
        ("POST", "/v1/collections", {}, 422, "ValidationError"),
        ("POST", "/v1/collections", {"collection_name": "a/b"}, 400, "BadRequestError"),
        ("POST", "/v1/collections", b"{", 422, "ValidationError"),
        ("GET", "/v1/tasks/task_none", None, 404, "NotFoundError"),
        ("GET", "/v1/collections?limit=0", None, 422, "ValidationError"),
        ("GET", "/v1/collections?cursor=%00%ff", None, 400, "BadRequestError"),
    ],
)
def test_every_error_has_the_same_envelope(
    api: Api, method: str, path: str, body: object, status: int, kind: str
) -> None:
    how = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    headers = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
    found = api.http.request(method, path, headers=headers, **how)
    answered = found.json()
    assert (found.status_code, answered["success"], answered["status"]) == (status, False, status)
    assert answered["error"]["type"] == kind
    assert answered["error"]["message"]
    assert answered["error"]["code"]


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/v1/collections", "GET, POST"), ("/v1/collections/one", "DELETE, GET, PATCH"), ("/v1/collections/list", "POST")],
)
def test_a_method_that_a_path_has_not_is_answered_with_those_that_it_has(api: Api, path: str, methods: str) -> None:
    found = api.http.request("PUT", path)
    assert (found.status_code, found.headers["Allow"]) == (405, methods)


def test_the_description_says_which_operations_know_a_namespace_and_an_idempotency_key(api: Api) -> None:
    paths = api.get("/openapi.json").json()["paths"]

    def headers(method: str, path: str) -> set[str]:
        return {one["name"] for one in paths[path][method].get("parameters", []) if one["in"] == "header"}

    assert headers("post", "/v1/collections") == {"X-Namespace", "Idempotency-Key"}
    assert headers("get", "/v1/collections") == {"X-Namespace"}
    assert headers("post", "/v1/keys") == {"X-Namespace"}
    assert headers("get", "/health/live") == set()


def test_the_description_names_every_operation_with_an_example_and_its_errors(api: Api) -> None:
    described = api.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    operations = [
        (method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) > 60
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(set(names)) == len(names)
    for method, path, operation in operations:
        assert operation["summary"], path
        assert operation["responses"]["503"]["content"]["application/json"]["schema"], path
        answers = {code: one for code, one in operation["responses"].items() if code.startswith("2")}
        assert answers, path
        assert all("example" in content for one in answers.values() for content in one["content"].values()), path
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body:
            schema = body["schema"]
            wanted = [schema, *schema.get("anyOf", [])]
            named = [schemas[one["$ref"].rsplit("/", 1)[-1]] for one in wanted if "$ref" in one]
            assert any("example" in one for one in (body, *named)), (method, path)


def test_the_api_is_ready_while_all_that_it_needs_answers(api: Api, live: Settings, tmp_path: Path) -> None:
    found = api.get("/health/ready")
    assert (found.status_code, found.json()["status"]) == (200, "ready")
    assert found.json()["dependencies"]["redis"]["status"] == "ok"
    assert api.get("/v1/health").json()["data"]["object_storage"] is True
    away = live.model_copy(update={"redis_url": "redis://127.0.0.1:1/0", "state_dir": tmp_path})
    with serving(away) as alone:
        assert alone.get("/health/live").status_code == 200
        down = alone.get("/health/ready")
        assert (down.status_code, down.json()["dependencies"]["redis"]["status"]) == (503, "down")
        refused = alone.get("/v1/collections")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
        assert refused.headers["Retry-After"]


def _wait_until_renewed(settings: Settings) -> None:
    """For the one reservation that there is."""
    with closing(redis.Redis.from_url(settings.redis_url)) as client:
        deadline, lowest = time.monotonic() + 30, 1 << 60
        while time.monotonic() < deadline:
            for name in client.scan_iter(f"{settings.redis_prefix}*answer*", count=1000):
                left = int(client.pttl(name))
                if left > lowest:
                    return
                lowest = left
            time.sleep(0.02)
    raise AssertionError("The reservation was not renewed.")


def test_no_accepted_source_is_lost_when_the_api_is_killed_under_load(
    settings_for: Callable[..., Settings], tmp_path: Path
) -> None:
    own = settings_for(tmp_path, "killed", model_aliases={"BAAI/bge-m3": "fake"})
    accepted: list[str] = []
    with serving(own) as api:
        api.made("/v1/collections", {"collection_name": "c"})
        over = threading.Event()

        def send(number: int) -> None:
            count = 0
            while not over.is_set():
                count += 1
                try:
                    done = api.post("/v1/collections/c/ingest", {"source": {"text": f"{number}-{count}"}})
                    accepted.append(done.json()["task_id"])
                except Exception:  # noqa: BLE001 - whatever a dead server looks like
                    return

        with ThreadPoolExecutor(8) as pool:
            sending = [pool.submit(send, number) for number in range(8)]
            while len(accepted) < 150:
                over.wait(0.02)
            api.kill()
            over.set()
            for one in sending:
                one.result(60)
    ledger = open_ledger(own)
    assert len(accepted) >= 150
    assert [task_id for task_id in accepted if ledger.task(task_id) is None] == []

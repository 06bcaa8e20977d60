"""OWASP API Security Top 10 (2023) against the real app: objects, authentication, properties, functions, inventory."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from typing import Any

import httpx2
import pytest

from producers.http.edge.scopes import rule_for, scope_for
from tests.security.conftest import Guarded, Tenant
from tests.support.api import serving
from trivet import AsyncTrivet, Trivet
from trivet.errors import Forbidden, TrivetError
from trivet.keys import EVERY_NAMESPACE, KeyLimits, Scope
from trivet.keys.secrets import joined, new_key

#: What anybody may ask.
PUBLIC = {
    "health_v1",
    "list_feature_extractors",
    "get_feature_extractor",
    # Signed by its sender.
    "receive_hook",
}
#: A search whose collections are still to be named.
SEARCH = {
    "stages": [
        {
            "stage_name": "s",
            "config": {
                "stage_id": "feature_search",
                "parameters": {
                    "searches": [
                        {
                            "feature_uri": "mixpeek://text_extractor@v1/baai_bge_m3_v1",
                            "query": {"input_mode": "text", "value": "secret"},
                        }
                    ]
                },
            },
        }
    ],
    "inputs": {"query": "secret"},
}
_NOBODYS = {"namespace_identifier": "ns_0000000000", "task_id": "task_" + "0" * 32, "key_id": "sk_" + "0" * 16}


def filled(path: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{([a-z_]+)\}", lambda found: ids.get(found[1], _NOBODYS.get(found[1], "x_0123456789")), path)


def example_of(operation: dict[str, Any], openapi: dict[str, Any]) -> Any:
    """A body that the route itself gives as an example."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "example" in content:
        return content["example"]
    reference = str(content.get("schema", {}))
    found = re.search(r"#/components/schemas/([A-Za-z0-9_.-]+)", reference)
    schema = openapi["components"]["schemas"].get(found[1], {}) if found else {}
    return schema.get("example", {})


# ------------------------------------------------------------ API1: other people's objects


def test_no_request_reaches_another_tenants_objects(guarded: Guarded, alice: Tenant, mallory: Tenant) -> None:
    """Every route with an id in it, called with Mallory's key and Alice's ids: unknown, as if there were none."""
    openapi, tried = guarded.openapi(), 0
    for method, path, operation in guarded.routes():
        if "{" not in path or operation["operationId"] in PUBLIC:
            continue
        body = example_of(operation, openapi) if method in ("POST", "PUT", "PATCH") else None
        ids = {**alice.ids, "collection_identifier": alice.ids["collection_identifier"]}
        answer = guarded.ask(method, filled(path, ids), mallory.key, body)
        assert answer.status_code in (404, 422), (method, path, answer.status_code, answer.text)
        assert alice.namespace not in answer.text.replace(filled(path, ids), ""), (method, path, answer.text)
        tried += answer.status_code == 404
    assert tried > 40
    for path in ("/v1/buckets/{bucket_identifier}", "/v1/collections/{collection_identifier}", "/v1/tasks/{task_id}"):
        assert guarded.ask("GET", filled(path, alice.ids), alice.key).status_code == 200, path


def test_two_keys_of_one_namespace_may_use_the_same_idempotency_key(guarded: Guarded, alice: Tenant) -> None:
    objects = f"/v1/buckets/{alice.ids['bucket_identifier']}/objects"
    texts = ("of the first", "of the second")
    ids = []
    for text, key in zip(texts, (alice.key, guarded.key(alice.namespace, "ingest", "read")), strict=True):
        body = {"blobs": [{"data": text, "property": text}]}
        made = guarded.ask("POST", objects, key, body, headers={"Idempotency-Key": "1"})
        assert made.is_success, made.text
        ids.append(made.json()["object_id"])
        assert made.json()["blobs"][0]["property"] == text
    assert len(set(ids)) == 2


def test_anothers_object_and_none_at_all_are_answered_alike(guarded: Guarded, alice: Tenant, mallory: Tenant) -> None:
    for path, name in (
        ("/v1/buckets/{}", "bucket_identifier"),
        ("/v1/collections/{}", "collection_identifier"),
        ("/v1/tasks/{}", "task_id"),
        ("/v1/retrievers/{}", "retriever_id"),
        ("/v1/keys/{}", "key_id"),
        ("/v1/hooks/{}", "hook_id"),
        ("/v1/organizations/webhooks/{}", "webhook_id"),
        ("/v1/namespaces/{}", "namespace_identifier"),
    ):
        theirs = alice.ids[name]
        nobodys = theirs[:-4] + ("0000" if not theirs.endswith("0000") else "1111")
        first, second = (guarded.ask("GET", path.format(each), mallory.key) for each in (theirs, nobodys))
        assert first.status_code == second.status_code == 404, path
        assert first.text.replace(theirs, "ID") == second.text.replace(nobodys, "ID"), path


@pytest.mark.parametrize("header", ["alice", "id"])
def test_a_key_cannot_name_another_namespace(guarded: Guarded, alice: Tenant, mallory: Tenant, header: str) -> None:
    named = alice.ids["namespace_identifier"] if header == "id" else "alice"
    for method, path in (("GET", "/v1/buckets"), ("POST", "/v1/buckets/list"), ("GET", "/v1/tasks")):
        answer = guarded.ask(method, path, mallory.key, headers={"X-Namespace": named})
        nobodys = guarded.ask(method, path, mallory.key, headers={"X-Namespace": "nobody"})
        assert answer.status_code == nobodys.status_code == 404
        assert answer.text.replace(named, "N") == nobodys.text.replace("nobody", "N")


def test_lists_hold_ones_own_alone(guarded: Guarded, alice: Tenant, mallory: Tenant) -> None:
    for _, path, operation in guarded.routes():
        if operation["operationId"].startswith("list_") and "{" not in path and path.count("/list") == 0:
            # The audit log has what Mallory has tried, in her own words.
            if operation["operationId"] in PUBLIC | {"list_audit_log"}:
                continue
            answer = guarded.ask("GET", path, mallory.key)
            if answer.status_code == 405:
                continue
            assert answer.status_code == 200, (path, answer.text)
            for name, theirs in alice.ids.items():
                # Both have a collection of the same name, which has another id.
                assert theirs not in answer.text, (path, name)


def test_one_cannot_point_to_anothers_objects_in_a_body(guarded: Guarded, alice: Tenant, mallory: Tenant) -> None:
    hers = alice.ids
    extractor = {"feature_extractor_name": "text_extractor", "version": "v1", "input_mappings": {"text": "t"}}
    for path, body in (
        (
            "/v1/collections",
            {
                "collection_name": "steal",
                "source": {"type": "bucket", "bucket_ids": [hers["bucket_identifier"]]},
                "feature_extractor": extractor,
            },
        ),
        (f"/v1/buckets/{mallory.ids['bucket_identifier']}/batches", {"object_ids": [hers["object_id"]]}),
        (
            f"/v1/buckets/{mallory.ids['bucket_identifier']}/objects",
            {"blobs": [{"property": "t", "type": "text", "upload_id": hers["upload_id"]}]},
        ),
        (f"/v1/collections/{mallory.ids['collection_identifier']}/trigger", {"object_ids": [hers["object_id"]]}),
        (
            f"/v1/collections/{mallory.ids['collection_identifier']}/trigger",
            {"include_buckets": [hers["bucket_identifier"]]},
        ),
        ("/v1/retrievers/execute", {**SEARCH, "collection_identifiers": [hers["collection_identifier"]]}),
        ("/v1/hooks", {"scheme": "hmac", "collection": hers["collection_identifier"]}),
    ):
        answer = guarded.ask("POST", path, mallory.key, body)
        assert answer.status_code in (400, 404, 422), (path, answer.status_code, answer.text)


@pytest.mark.parametrize("name", ["../../alice/x", "/etc/passwd", "..%2f..%2falice", "a/../../b", "x\\..\\y"])
def test_no_name_of_an_upload_leads_out_of_its_bucket(guarded: Guarded, mallory: Tenant, name: str) -> None:
    path = f"/v1/buckets/{mallory.ids['bucket_identifier']}/uploads"
    made = guarded.ask("POST", path, mallory.key, {"filename": name, "content_type": "text/plain"})
    assert made.status_code in (200, 201, 400, 422)
    if made.is_success:
        key, signed = made.json()["s3_key"], made.json()["presigned_url"]
        assert "mallory" in key.split("/")
        assert not [word for word in ("..", "alice", "passwd", "%2f") if word in key + signed.partition("?")[0]]


def test_the_same_idempotency_key_of_two_tenants_is_two(guarded: Guarded, alice: Tenant, mallory: Tenant) -> None:
    made = [
        guarded.ask("POST", "/v1/buckets", tenant.key, {"bucket_name": "once"}, headers={"Idempotency-Key": "k-1"})
        for tenant in (alice, mallory)
    ]
    assert [answer.status_code for answer in made] == [made[0].status_code] * 2
    assert made[0].json()["bucket_id"] != made[1].json()["bucket_id"]


# ------------------------------------------------------------ API2: authentication


def test_without_a_key_nothing_but_the_public_routes_answers(guarded: Guarded) -> None:
    for method, path, operation in guarded.routes():
        if operation["operationId"] in PUBLIC:
            continue
        # Whatever the body: who asks is known before it is read.
        hows: list[dict[str, Any]] = [{}, {"content": b"{nonsense", "headers": {"Content-Type": "application/json"}}]
        for how in hows:
            answer = guarded.ask(method, filled(path, {}), **how)
            assert answer.status_code == 401, (method, path, answer.status_code)
            assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_only_a_whole_key_in_the_right_place_opens(guarded: Guarded, alice: Tenant) -> None:
    key = alice.key
    stranger, secret = new_key()
    wrong: list[dict[str, Any]] = [
        {"headers": {"Authorization": key}},
        {"headers": {"Authorization": f"Basic {key}"}},
        {"headers": {"Authorization": f"Bearer {key[:-1]}"}},
        {"headers": {"Authorization": f"Bearer {key}0"}},
        {"headers": {"Authorization": f"Bearer {key.upper()}"}},
        {"headers": {"Authorization": f"Bearer {key.split('_')[1]}"}},
        {"headers": {"Authorization": f"Bearer {joined(stranger, secret)}"}},
        {"headers": {"Authorization": f"Bearer {key}, Bearer {key}"}},
        {"headers": {"Authorization": "Bearer"}},
        {"headers": {"X-API-Key": key}},
        {"params": {"api_key": key, "access_token": key, "key": key}},
        {"headers": {"Cookie": f"Authorization={key}; api_key={key}"}},
    ]
    for how in wrong:
        assert guarded.ask("GET", "/v1/buckets", **how).status_code == 401, how
    twice = [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")]
    assert guarded.api.http.get("/v1/buckets", headers=twice).status_code == 401
    assert guarded.ask("GET", "/v1/buckets", key).status_code == 200
    assert guarded.ask("GET", "/v1/buckets", headers={"Authorization": f"bearer {key}"}).status_code == 200


def test_every_refusal_is_in_the_same_words(guarded: Guarded, alice: Tenant) -> None:
    made, text = guarded.keys.create("alice")
    guarded.keys.revoke(made.key_id)
    said = {
        guarded.ask("GET", "/v1/buckets", key).text for key in ("", text, "sk_x", joined(*new_key()), alice.key[:-2])
    }
    assert len(said) == 1


def test_a_revoked_key_is_refused_at_once_and_a_rotated_one_keeps_its_overlap(guarded: Guarded, alice: Tenant) -> None:
    made = guarded.ask("POST", "/v1/keys", alice.key, {"scopes": ["read"]}).json()
    key = made["api_key"]
    assert guarded.ask("GET", "/v1/buckets", key).status_code == 200
    path = f"/v1/keys/{made['key_id']}"
    rotated = guarded.ask("POST", f"{path}/rotate", alice.key, {"overlap_seconds": 60}).json()
    assert [guarded.ask("GET", "/v1/buckets", each).status_code for each in (key, rotated["api_key"])] == [200, 200]
    rotated = guarded.ask("POST", f"{path}/rotate", alice.key, {"overlap_seconds": 0}).json()
    assert guarded.ask("GET", "/v1/buckets", rotated["api_key"]).status_code == 200
    assert guarded.ask("DELETE", path, alice.key).json()["state"] == "revoked"
    assert guarded.ask("GET", "/v1/buckets", rotated["api_key"]).status_code == 401


def test_guessing_is_slowed_down_by_address_and_locks_nobody_out(guarded: Guarded, alice: Tenant) -> None:
    from trivet.limits.redis import RedisLimiter

    few = guarded.settings.model_copy(update={"unauthenticated_per_minute": 5})
    limiter = RedisLimiter(few)
    address = limiter._key("rate", "unauthenticated:127.0.0.1")
    with serving(few) as api, closing(limiter):
        limiter._client.delete(address)

        def ask(key: str) -> httpx2.Response:
            return api.get("/v1/buckets", headers={"Authorization": f"Bearer {key}"})

        answers = [ask(joined(*new_key())) for _ in range(12)]
        statuses = [answer.status_code for answer in answers]
        assert statuses[:5] == [401] * 5
        assert statuses[-1] == 429
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert ask(alice.key).status_code == 200
        limiter._client.delete(address)


def test_the_clients_of_the_library_bring_their_keys(guarded: Guarded, alice: Tenant, mallory: Tenant) -> None:
    def client(key: str | None) -> Any:
        return closing(Trivet(guarded.api.url, api_key=key))

    with client(alice.key) as hers:
        task = hers.ingest("https://example.com/by-client.pdf", collection="docs")
    assert guarded.ask("GET", f"/v1/tasks/{task.task_id}", alice.key).status_code == 200
    for key in (None, "sk_nonsense", guarded.key("alice", "read")):
        with client(key) as refused, pytest.raises(TrivetError):
            refused.ingest("https://example.com/b.pdf", collection="docs")
    with client(mallory.key) as stranger, pytest.raises(TrivetError):
        stranger.task(task.task_id).status()


# ------------------------------------------------------------ API3: properties


def test_a_key_that_may_make_no_collection_uses_one_that_is_there(guarded: Guarded, alice: Tenant) -> None:
    key = guarded.key(alice.namespace, "ingest", "read")
    with Trivet(guarded.api.url, api_key=key) as client:
        assert client.create_collection("docs", exist_ok=True).name == "docs"
        with pytest.raises(Forbidden):
            client.create_collection("others", exist_ok=True)

    async def as_a_web_app_does() -> None:
        async with AsyncTrivet(guarded.api.url, api_key=key) as client:
            assert (await client.create_collection("docs", exist_ok=True)).name == "docs"
            for exist_ok in (True, False):
                with pytest.raises(Forbidden):
                    await client.create_collection("others", exist_ok=exist_ok)

    asyncio.run(as_a_web_app_does())


def test_no_answer_shows_a_secret_again(guarded: Guarded, alice: Tenant) -> None:
    hook = guarded.ask("POST", "/v1/hooks", alice.key, {"scheme": "github", "collection": "docs"}).json()
    key = guarded.ask("POST", "/v1/keys", alice.key, {}).json()
    secrets = [hook["secret"], key["api_key"], key["api_key"].rpartition("_")[2]]
    assert all(secrets)
    for path in ("/v1/hooks", f"/v1/hooks/{hook['hook_id']}", "/v1/keys", f"/v1/keys/{key['key_id']}", "/v1/audit-log"):
        answer = guarded.ask("GET", path, alice.key)
        assert answer.status_code == 200
        assert not [secret for secret in secrets if secret in answer.text], path
        assert "hashes" not in answer.text


def test_what_only_the_server_decides_cannot_be_sent_along(guarded: Guarded, mallory: Tenant) -> None:
    bodies: list[dict[str, Any]] = [
        {"namespace": "alice"},
        {"key_id": "sk_0123456789abcdef"},
        {"hashes": []},
        {"every_namespace": True},
        {"limits": {"requests_per_minute": -1}},
        {"scopes": ["root"]},
    ]
    for body in bodies:
        assert guarded.ask("POST", "/v1/keys", mallory.key, body).status_code in (403, 422), body
    for body in ({"namespace": "alice"}, {"hook_id": "hook_1"}):
        body = {"scheme": "hmac", "collection": "docs", **body}
        assert guarded.ask("POST", "/v1/hooks", mallory.key, body).status_code == 422, body
    answer = guarded.ask(
        "POST",
        "/v1/buckets",
        mallory.key,
        {"bucket_name": "mass", "bucket_id": "bkt_mine", "namespace_id": "alice", "object_count": 99},
    )
    if answer.is_success:
        assert answer.json()["bucket_id"] != "bkt_mine"
        assert answer.json()["object_count"] == 0


# ------------------------------------------------------------ API5: functions


def test_every_route_has_a_scope_of_its_own_in_the_table(guarded: Guarded) -> None:
    missing = [
        (method, path)
        for method, path, operation in guarded.routes()
        if operation["operationId"] not in PUBLIC and rule_for(method, path) is None
    ]
    assert missing == []


def test_each_scope_opens_its_own_routes_and_no_other(guarded: Guarded) -> None:
    for scope in Scope:
        key = guarded.key(EVERY_NAMESPACE, scope)
        for method, path, operation in guarded.routes():
            if operation["operationId"] in PUBLIC:
                continue
            needed = scope_for(method, path)
            answer = guarded.ask(method, filled(path, {}), key)
            if scope in (needed, Scope.ADMIN):
                assert answer.status_code not in (401, 403), (scope, method, path, answer.text)
            else:
                assert answer.status_code == 403, (scope, method, path, answer.status_code, answer.text)
                assert needed in answer.text


def test_looking_changes_nothing_and_changing_needs_more_than_looking() -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("/v1/buckets", "/v1/buckets/{b}", "/v1/collections/{c}", "/v1/keys", "/v1/anything/new"):
            assert scope_for(method, path) not in (Scope.READ, Scope.SEARCH), (method, path)
    assert scope_for("GET", "/v1/keys") is Scope.ADMIN
    assert scope_for("POST", "/v2/unknown") is Scope.ADMIN


def test_only_a_key_for_all_namespaces_makes_one_for_all(guarded: Guarded, alice: Tenant, operator: str) -> None:
    body = {"scopes": ["read"], "every_namespace": True}
    assert guarded.ask("POST", "/v1/keys", alice.key, body).status_code == 403
    made = guarded.ask("POST", "/v1/keys", operator, body)
    assert made.status_code == 201
    assert made.json()["namespace"] == EVERY_NAMESPACE


def test_an_operators_key_works_in_every_namespace_and_a_tenants_in_one(
    guarded: Guarded, alice: Tenant, operator: str
) -> None:
    for name in ("alice", alice.ids["namespace_identifier"]):
        answer = guarded.ask("GET", "/v1/buckets", operator, headers={"X-Namespace": name})
        assert alice.ids["bucket_identifier"] in answer.text
    assert alice.ids["bucket_identifier"] not in guarded.ask("GET", "/v1/buckets", operator).text
    assert guarded.ask("POST", "/v1/namespaces", alice.key, {"namespace_name": "more"}).status_code in (403, 404)


# ------------------------------------------------------------ the audit log


def test_who_changed_and_was_refused_what_is_in_the_audit_log(guarded: Guarded) -> None:
    admin, reader = guarded.key("audited"), guarded.key("audited", "read")
    bucket = guarded.ask("POST", "/v1/buckets", admin, {"bucket_name": "b"}).json()["bucket_id"]
    guarded.ask("GET", "/v1/buckets?token=hidden", admin)
    guarded.ask("DELETE", f"/v1/buckets/{bucket}?token=hidden", reader)
    guarded.ask("DELETE", f"/v1/buckets/{bucket}", admin)
    entries = guarded.ask("GET", "/v1/audit-log", admin).json()["results"]
    assert [(each["who"], each["action"], each["target"], each["outcome"]) for each in entries] == [
        (admin[:19], "delete_bucket", bucket, "200"),
        (reader[:19], "delete_bucket", bucket, "403"),
        (admin[:19], "create_bucket", "", "200"),
    ]
    assert {each["address"] for each in entries} == {"127.0.0.1"}
    assert "hidden" not in str(entries)


# ------------------------------------------------------------ API9: inventory


def test_every_route_is_in_the_openapi_file_with_its_errors(guarded: Guarded) -> None:
    from fastapi.routing import iter_route_contexts

    from producers.http.app import create_app

    app = create_app(guarded.settings)
    served = {
        (method, route.path)
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }
    told = {(method, path) for method, path, _ in guarded.routes()}
    own = {path for _, path in served - told}
    assert own <= {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/health", "/health/live", "/health/ready"}
    ids = [operation["operationId"] for _, _, operation in guarded.routes()]
    assert len(ids) == len(set(ids))
    for method, path, operation in guarded.routes():
        assert {"401", "403", "404", "429"} <= set(operation["responses"]), (method, path)
        if operation["operationId"] not in PUBLIC:
            assert operation.get("security"), (method, path)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND"])
def test_methods_that_nobody_serves_are_refused(guarded: Guarded, alice: Tenant, method: str) -> None:
    assert httpx2.request(
        method, f"{guarded.api.url}/v1/buckets", headers={"Authorization": f"Bearer {alice.key}"}
    ).status_code in (400, 404, 405)


@pytest.mark.parametrize("path", ["/v0/buckets", "/v2/buckets", "/buckets", "/v1/../v1/admin", "/debug", "/metrics"])
def test_old_and_debugging_paths_are_not_there(guarded: Guarded, operator: str, path: str) -> None:
    assert guarded.ask("GET", path, operator).status_code == 404


def test_keys_have_limits_of_their_own(guarded: Guarded) -> None:
    key = guarded.key("limited", "read", limits=KeyLimits(requests_per_minute=3))
    answers = [guarded.ask("GET", "/v1/buckets", key) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    last = answers[-1]
    assert last.headers["X-RateLimit-Limit"] == "3"
    assert 1 <= int(last.headers["Retry-After"]) <= 20
    assert last.json()["error"]["type"] == "TooManyRequestsError"
    assert last.json()["error"]["details"]["retry_after_seconds"] == int(last.headers["Retry-After"])
    other = guarded.key("limited", "read", limits=KeyLimits(requests_per_minute=3))
    assert guarded.ask("GET", "/v1/buckets", other).status_code == 200

"""The real app as a process of its own, asking for API keys, with two tenants and an operator."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from tests.support.api import Api, serving
from trivet.keys import EVERY_NAMESPACE, KeyLimits
from trivet.keys.service import Keys
from trivet.settings import Settings

#: Small enough that going over it is quick, large enough for every honest request here.
MAX_BODY = 64 << 10


@dataclass
class Guarded:
    """A running API, and whoever may be asked for a key."""

    api: Api
    settings: Settings
    keys: Keys
    #: One per test process and namespace, made once.
    _made: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)

    def key(self, namespace: str, *scopes: str, limits: KeyLimits | None = None) -> str:
        """A key's whole text. Without limits of its own it has so many requests that no test meets them."""
        wanted = (namespace, scopes or ("admin",))
        if limits is not None:
            return self.keys.create(namespace, scopes=wanted[1], limits=limits)[1]
        if wanted not in self._made:
            many = KeyLimits(requests_per_minute=1_000_000, burst=1_000_000, sources_per_day=0)
            self._made[wanted] = self.keys.create(namespace, scopes=wanted[1], limits=many)[1]
        return self._made[wanted]

    def ask(self, method: str, path: str, key: str = "", body: Any = None, **how: Any) -> httpx2.Response:
        """One request; with `body` as JSON."""
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **how.pop("headers", {})}
        if body is not None:
            how["json"] = body
        return self.api.http.request(method, path, headers=headers, **how)

    def openapi(self) -> dict[str, Any]:
        """What the app says of itself."""
        found: dict[str, Any] = self.api.get("/openapi.json").json()
        return found

    def routes(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(method, path, operation) of every route of version 1."""
        return [
            (method.upper(), path, operation)
            for path, methods in self.openapi()["paths"].items()
            for method, operation in methods.items()
            if path.startswith("/v1/")
        ]


@pytest.fixture(scope="session")
def guarded(settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    settings = settings_for(
        folder,
        f"s{uuid.uuid4().hex[:12]}",
        api_keys="always",
        api_origins=("https://app.example.com",),
        api_max_body_bytes=MAX_BODY,
        hook_max_bytes=MAX_BODY,
        api_body_seconds=1.0,
        api_waits=4,
        api_waits_per_key=2,
        unauthenticated_per_minute=10_000,
        event_stream_length=1000,
    )
    keys = Keys(settings)
    with serving(settings) as api:
        yield Guarded(api, settings, keys)
    keys.close()


@pytest.fixture(scope="session")
def operator(guarded: Guarded) -> str:
    """A key for all namespaces."""
    return guarded.key(EVERY_NAMESPACE)


@dataclass(frozen=True)
class Tenant:
    """A namespace with one of everything in it."""

    namespace: str
    key: str
    #: Parameter of a path → an id of this tenant's.
    ids: dict[str, str]


@pytest.fixture(scope="session")
def alice(guarded: Guarded, operator: str) -> Tenant:
    return _tenant(guarded, operator, "alice")


@pytest.fixture(scope="session")
def mallory(guarded: Guarded, operator: str) -> Tenant:
    return _tenant(guarded, operator, "mallory")


def _tenant(guarded: Guarded, operator: str, name: str) -> Tenant:
    def made(path: str, body: Any, key: str) -> dict[str, Any]:
        answer = guarded.ask("POST", path, key, body)
        assert answer.is_success, (path, answer.status_code, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    namespace_id = made("/v1/namespaces", {"namespace_name": name}, operator)["namespace_id"]
    key = guarded.key(name)
    bucket = made(
        "/v1/buckets", {"bucket_name": "papers", "bucket_schema": {"properties": {"t": {"type": "text"}}}}, key
    )
    bucket_id = bucket["bucket_id"]
    thing = made(
        f"/v1/buckets/{bucket_id}/objects", {"blobs": [{"property": "t", "type": "text", "data": f"I am {name}."}]}, key
    )
    extractor = {"feature_extractor_name": "text_extractor", "version": "v1", "input_mappings": {"text": "t"}}
    collection = made(
        "/v1/collections",
        {
            "collection_name": "docs",
            "source": {"type": "bucket", "bucket_ids": [bucket_id]},
            "feature_extractor": extractor,
        },
        key,
    )["collection_id"]
    task = made(f"/v1/collections/{collection}/ingest", {"source": {"url": "https://example.com/a.pdf"}}, key)
    batch = made(f"/v1/buckets/{bucket_id}/batches", {"object_ids": [thing["object_id"]]}, key)
    upload = made(f"/v1/buckets/{bucket_id}/uploads", {"filename": "a.txt", "content_type": "text/plain"}, key)
    stage = {
        "stage_name": "s",
        "config": {
            "stage_id": "feature_search",
            "parameters": {
                "searches": [
                    {
                        "feature_uri": "mixpeek://text_extractor@v1/baai_bge_m3_v1",
                        "query": {"input_mode": "text", "value": "{{INPUT.query}}"},
                    }
                ]
            },
        },
    }
    retriever = made(
        "/v1/retrievers", {"retriever_name": "r", "stages": [stage], "collection_identifiers": [collection]}, key
    )
    channel = {"channel": "webhook", "configs": {"url": "https://93.184.216.34/events"}}
    webhook = made(
        "/v1/organizations/webhooks",
        {"webhook_name": "w", "event_types": ["object.created"], "channels": [channel]},
        key,
    )
    hook = made("/v1/hooks", {"scheme": "hmac", "collection": "docs"}, key)
    own = made("/v1/keys", {"name": "another", "scopes": ["read"]}, key)
    return Tenant(
        name,
        key,
        {
            "namespace_identifier": namespace_id,
            "bucket_identifier": bucket_id,
            "object_id": thing["object_id"],
            "collection_identifier": collection,
            "task_id": task["task_id"],
            "batch_id": batch["batch_id"],
            "upload_id": upload["upload_id"],
            "retriever_id": retriever["retriever_id"],
            "webhook_id": webhook["webhook_id"],
            "hook_id": hook["hook_id"],
            "key_id": own["key_id"],
            "document_id": "doc_0123456789abcdef01234567",
        },
    )

"""Resources that made-up requests can name: whoever only makes up ids never gets past a 404."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

#: How often a request names what is there, rather than something made up.
_OFTEN = 0.7
_SECONDS = 60.0
#: Where webhooks go: a port that nobody listens on.
NOBODY = "127.0.0.1:9"
_UPLOAD = "POST /v1/buckets/{bucket_identifier}/objects/upload"


def sow(base: str, key: str) -> dict[str, list[str]]:
    """Make one or two of each kind; gives the parameters of the OpenAPI document and what they may be.

    Raises `HTTPStatusError` where one is refused.
    """
    with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=_SECONDS) as http:

        def post(path: str, body: Any, **headers: str) -> Any:
            return http.post(f"/v1{path}", json=body, headers=headers).raise_for_status().json()

        made: dict[str, list[str]] = {"header.X-Namespace": ["default"]}
        bucket = post("/buckets", {"bucket_name": "fuzz", "bucket_schema": {"properties": {"text": {"type": "text"}}}})
        bucket_id = bucket["bucket_id"]
        blob = {"property": "text", "type": "text", "data": "A lighthouse warns ships off the rocks."}
        objects = [post(f"/buckets/{bucket_id}/objects", {"blobs": [blob]})["object_id"] for _ in range(2)]
        batch = post(f"/buckets/{bucket_id}/batches", {"object_ids": objects})["batch_id"]
        upload = post(f"/buckets/{bucket_id}/uploads", {"filename": "a.txt", "content_type": "text/plain"})["upload_id"]
        collection = post("/collections", {"collection_name": "fuzz"})["collection_id"]
        source = {"text": "A lighthouse warns ships off the rocks.", "object_id": "lighthouse"}
        task = post(f"/collections/{collection}/ingest", {"source": source}, Prefer="wait=30")["task_id"]
        documents = post(f"/collections/{collection}/documents/list", {})["results"]
        stages = [{"type": "feature_search", "query": "{{INPUT.query}}", "limit": 5}]
        retriever = post(
            "/retrievers", {"retriever_name": "fuzz", "collection_identifiers": [collection], "stages": stages}
        )["retriever_id"]
        hook = post("/hooks", {"collection": "fuzz", "scheme": "standard"})["hook_id"]
        webhook = post(
            "/organizations/webhooks",
            {
                "webhook_name": "fuzz",
                "event_types": ["object.created"],
                "channels": [{"configs": {"url": f"http://{NOBODY}/hook"}}],
            },
        )["webhook_id"]
        spare = post("/keys", {"name": "spare"})["key_id"]
    made |= {
        "path.namespace_identifier": ["default"],
        "path.bucket_identifier": [bucket_id, "fuzz"],
        "path.object_id": [*objects, "lighthouse"],
        "path.batch_id": [batch],
        "path.upload_id": [upload],
        "path.collection_identifier": [collection, "fuzz"],
        "path.task_id": [task],
        "path.document_id": [document["document_id"] for document in documents],
        "path.retriever_id": [retriever],
        "path.hook_id": [hook],
        "path.webhook_id": [webhook],
        "path.key_id": [spare],
        "query.collection_id": [collection],
        "query.object_id": ["lighthouse"],
    }
    return made


def write_config(path: Path, made: Mapping[str, Sequence[str]]) -> None:
    """A `schemathesis.toml` by which those parameters often have these values."""
    lines: list[str] = []
    for number, values in enumerate(made.values()):
        lines += [f"[dictionaries.d{number}]", f"values = {json.dumps(list(values))}", ""]
    # A body may be too large, or come too slowly, as well as wrong.
    refusals = ["400", "401", "403", "404", "405", "406", "408", "409", "413", "415", "422", "428", "429", "5xx"]
    lines += ["[checks]", f"negative_data_rejection.expected-statuses = {json.dumps(refusals)}", ""]
    lines.append("[parameters]")
    lines += [
        f'{json.dumps(name)} = {{ dictionary = "d{number}", probability = {_OFTEN} }}'
        for number, name in enumerate(made)
    ]
    # Whatever a form has in place of a file is a file of those bytes.
    lines += ["", "[[operations]]", f'include-name = "{_UPLOAD}"', "checks.negative_data_rejection.enabled = false"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

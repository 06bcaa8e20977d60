"""The product page's call, which no published client has: sent as it is printed there."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from checks import BASE, DOCUMENTS, KEY, ranked_right, shown, until, url

NAMES = list(DOCUMENTS)


def send(method: str, path: str, body: Any = None) -> Any:
    """A request without a namespace, as the page's snippet has none."""
    request = urllib.request.Request(
        BASE + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


collection = send("POST", "/v1/collections", {"collection_name": "compat-page"})["collection_id"]
EXTRACTORS = [{"name": "text_embedding", "version": "v1", "params": {"model_id": "BAAI/bge-m3"}}]
for name in NAMES:
    accepted = send(
        "POST",
        f"/v1/collections/{collection}/ingest",
        {"source": {"url": url(name)}, "feature_extractors": EXTRACTORS},
    )
    task = accepted["task_id"]
    status = until(lambda task=task: send("GET", f"/v1/tasks/{task}")["status"], "COMPLETED")
    shown(f"ingest {name}", status == "COMPLETED", status)
listed = send("POST", f"/v1/collections/{collection}/documents/list")["results"]
shown("documents", sorted(one["text"] for one in listed) == sorted(DOCUMENTS.values()), listed)
shown("the model named is the one that ran", {one["model"] for one in listed} != {"BAAI/bge-m3"}, listed[0]["model"])
STAGES = [{"type": "feature_search", "query": "{{INPUT.query}}", "limit": 5}]


def ask(query: str) -> list[str]:
    """Texts, best first."""
    body = {"stages": STAGES, "collection_identifiers": [collection], "inputs": {"query": query}}
    return [one["text"] for one in send("POST", "/v1/retrievers/execute", body)["documents"]]


ranked_right("execute", ask)

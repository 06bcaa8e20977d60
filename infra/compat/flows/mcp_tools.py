"""mixpeek-mcp: a tool for every operation of the OpenAPI file, called as an agent would."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from checks import BASE, DOCUMENTS, KEY, ranked_right, shown, url

NAMES = list(DOCUMENTS)
os.environ.update(
    MIXPEEK_API_BASE=BASE, MIXPEEK_API_KEY=KEY, MIXPEEK_NAMESPACE="compat-mcp", MCP_RATE_MAX_CALLS="100000"
)
import urllib.request  # noqa: E402 - what follows reads the environment when it is imported

import server  # noqa: E402 - as above

request = urllib.request.Request(
    f"{BASE}/v1/namespaces",
    data=b'{"namespace_name": "compat-mcp"}',
    headers={"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
)
with urllib.request.urlopen(request) as made:
    shown("namespace", made.status == 200)

loop = asyncio.new_event_loop()
endpoints = server.extract_endpoints(loop.run_until_complete(server.fetch_openapi()))
tools = {endpoint.operation_id: server.create_tool(endpoint) for endpoint in endpoints}
shown(f"{len(tools)} tools from the OpenAPI file", len(tools) > 40, list(tools))


def call(name: str, **given: Any) -> Any:
    """Call a tool. Ends the flow where it answers with an error."""
    tool = tools[name]
    answer = loop.run_until_complete(tool(**given))
    shown(name, not (isinstance(answer, dict) and "error" in answer and answer["error"]), answer)
    return answer


bucket = call(
    "create_bucket",
    body={"bucket_name": "texts", "bucket_schema": {"properties": {"content": {"type": "text"}}}},
)["bucket_id"]
for number, name in enumerate(NAMES):
    blob = {"property": "content", "type": "text", "data": url(name) if number % 2 else DOCUMENTS[name]}
    call("create_object", bucket_identifier=bucket, body={"blobs": [blob]})
collection = call(
    "create_collection",
    body={
        "collection_name": "texts",
        "source": {"type": "bucket", "bucket_ids": [bucket]},
        "feature_extractor": {
            "feature_extractor_name": "text_extractor",
            "version": "v1",
            "input_mappings": {"text": "content"},
        },
    },
)["collection_id"]
# Without a body it sends a note of its own in its place.
triggered = call("trigger_collection", collection_identifier=collection)
for _ in range(600):
    if loop.run_until_complete(tools["get_task"](task_id=triggered["task_id"]))["status"] == "COMPLETED":
        break
    loop.run_until_complete(asyncio.sleep(0.3))
call("get_task", task_id=triggered["task_id"])
shown("list_documents", len(call("list_documents", collection_identifier=collection)["results"]) == len(NAMES))
retriever = call(
    "create_retriever",
    body={
        "retriever_name": "texts",
        "stages": [
            {
                "stage_name": "search",
                "config": {
                    "stage_id": "feature_search",
                    "parameters": {
                        "searches": [{"feature_uri": "mixpeek://text_extractor@v1", "query": "{{INPUT.query}}"}],
                        "final_top_k": 5,
                    },
                },
            }
        ],
        "collection_identifiers": [collection],
    },
)["retriever_id"]
for name in ("list_buckets_post", "list_collections_post", "list_retrievers_post", "list_tasks_post", "get_usage"):
    call(name)


def ask(query: str) -> list[str]:
    """Texts, best first."""
    found = loop.run_until_complete(
        tools["execute_retriever"](retriever_id=retriever, body={"inputs": {"query": query}})
    )
    return [one["text"] for one in found["documents"]]


ranked_right("execute_retriever", ask)

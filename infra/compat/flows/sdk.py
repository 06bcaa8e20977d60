"""The hand-written class of the published SDK: mixpeek.Mixpeek."""

from __future__ import annotations

from checks import BASE, DOCUMENTS, KEY, ranked_right, shown, until, url
from mixpeek import Mixpeek

NAMES = list(DOCUMENTS)
client = Mixpeek(KEY, base_url=f"{BASE}/v1")
namespace = client.namespaces.create(name="compat-sdk")
shown("namespaces.create", namespace["namespace_id"].startswith("ns_"), namespace)
mp = Mixpeek(KEY, base_url=f"{BASE}/v1", namespace=namespace["namespace_id"])
shown("namespaces.list", any(one["namespace_name"] == "compat-sdk" for one in mp.namespaces.list()["results"]))

bucket = mp.buckets.create(name="texts", bucket_schema={"properties": {"content": {"type": "text"}}})
bucket_id = bucket["bucket_id"]
shown("buckets.create", bucket_id.startswith("bkt_"), bucket)
for number, name in enumerate(NAMES):
    given = {"url": url(name)} if number % 2 else {"data": DOCUMENTS[name]}
    made = mp.buckets.upload(bucket_id, metadata={"topic": name}, **given)
    shown(f"buckets.upload {'by URL' if number % 2 else 'inline'}", made["object_id"].startswith("obj_"), made)
shown("buckets.list_objects", len(mp.buckets.list_objects(bucket_id)["results"]) == len(NAMES))
shown("buckets.list", mp.buckets.list()["results"][0]["object_count"] == len(NAMES))

collection = mp.collections.create(
    name="texts",
    source={"type": "bucket", "bucket_ids": [bucket_id]},
    feature_extractor={
        "feature_extractor_name": "text_extractor",
        "version": "v1",
        "input_mappings": {"text": "content"},
        "parameters": {"embedding_model": "BAAI/bge-m3"},
    },
)
collection_id = collection["collection_id"]
shown("collections.create", collection_id.startswith("col_"), collection)
shown("collections.list", mp.collections.list()["total_count"] == 1)
triggered = mp.collections.trigger(collection_id)
shown("collections.trigger", triggered["batch_id"].startswith("btch_"), triggered)
status = until(lambda: mp.tasks.get(triggered["task_id"])["status"], "COMPLETED")
shown("tasks.get until COMPLETED", status == "COMPLETED", status)
batch = mp.batches.get(bucket_id, triggered["batch_id"])
shown("batches.get", batch["status"] == "COMPLETED", batch)
audit = mp.batches.audit(bucket_id, triggered["batch_id"])
shown("batches.audit", audit["all_balanced"] and not audit["has_lost_objects"], audit)
failed = mp.batches.failed_documents(bucket_id, triggered["batch_id"], limit=10)
shown("batches.failed_documents", failed["total"] == 0, failed)
shown("tasks.list", len(mp.tasks.list()["results"]) == len(NAMES))

documents = mp.documents.list(collection_id)["results"]
shown("documents.list", sorted(one["text"] for one in documents) == sorted(DOCUMENTS.values()), documents)
one = mp.documents.get(collection_id, documents[0]["document_id"])
shown("documents.get", one["text"] == documents[0]["text"], one)

feature_uri = mp.collections.get(collection_id)["vector_indexes"][0]["feature_uri"]
stage = {
    "stage_name": "search",
    "stage_type": "filter",
    "config": {
        "stage_id": "feature_search",
        "parameters": {
            "searches": [
                {"feature_uri": feature_uri, "query": {"input_mode": "text", "value": "{{INPUT.query}}"}, "top_k": 50}
            ],
            "final_top_k": 5,
        },
    },
}
retriever = mp.retrievers.create(
    name="texts", stages=[stage], collection_identifiers=[collection_id], input_schema={"query": {"type": "text"}}
)
shown("retrievers.create", retriever["retriever_id"].startswith("ret_"), retriever)
ranked_right(
    "retrievers.execute",
    lambda query: [
        found["text"]
        for found in mp.retrievers.execute(retriever["retriever_id"], inputs={"query": query})["documents"]
    ],
)
ranked_right("search", lambda query: [one["text"] for one in mp.search(query, collection=collection_id)["results"]])
filtered = mp.search("bread", collection=collection_id, filters={"topic": "chess"})
shown("search with filters", [one["metadata"]["topic"] for one in filtered["documents"]] == ["chess"], filtered)

indexed = mp.index(url("taxes"), collection=collection_id, metadata={"topic": "again"})
shown("index", indexed["object_id"].startswith("obj_"), indexed)
clone = mp.collections.clone(collection_id, name="texts-copy")
shown("collections.clone", clone["source_collection_id"] == collection_id, clone)
shown("documents.delete", mp.documents.delete(collection_id, documents[0]["document_id"])["success"])
shown("retrievers.delete", mp.retrievers.delete(retriever["retriever_id"])["success"])
shown("collections.delete", mp.collections.delete(collection_id)["success"])
shown("buckets.delete", mp.buckets.delete(bucket_id)["success"])

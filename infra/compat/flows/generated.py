"""The generated classes of the published SDK, whose models are strict about what an answer has."""

from __future__ import annotations

import time

import mixpeek
from checks import BASE, DOCUMENTS, KEY, ranked_right, shown, until, url
from mixpeek import models as m

NAMES = list(DOCUMENTS)
api = mixpeek.ApiClient(mixpeek.Configuration(host=BASE, access_token=KEY))

extractors = mixpeek.FeatureExtractorsApi(api).list_feature_extractors()
shown("list_feature_extractors", "text_extractor" in {one.feature_extractor_name for one in extractors}, extractors)
health = mixpeek.HealthApi(api).healthcheck_health()
shown("healthcheck_health", (health if isinstance(health, dict) else health.to_dict())["status"] == "OK", health)

namespace = mixpeek.NamespacesApi(api).create_namespace(
    m.CreateNamespaceRequest.from_dict({"namespace_name": "compat-generated"})
)
api.set_default_header("X-Namespace", namespace.namespace_id)
shown("list_namespaces", mixpeek.NamespacesApi(api).list_namespaces().total_count >= 1)

buckets = mixpeek.BucketsApi(api)
bucket = buckets.create_bucket(
    m.BucketCreateRequest.from_dict(
        {"bucket_name": "texts", "bucket_schema": {"properties": {"content": {"type": "text"}}}}
    )
)
objects, ids = mixpeek.BucketObjectsApi(api), []
for number, name in enumerate(NAMES):
    data = url(name) if number % 2 else DOCUMENTS[name]
    made = objects.create_object_buckets(
        bucket.bucket_id,
        m.CreateObjectRequest.from_dict(
            {"blobs": [{"property": "content", "type": "text", "data": data}], "metadata": {"topic": name}}
        ),
    )
    ids.append(made.object_id)
shown("create_object_buckets", all(each.startswith("obj_") for each in ids), ids)
shown("list_objects_buckets", len(objects.list_objects_buckets(bucket.bucket_id).results) == len(NAMES))
shown("get_bucket", buckets.get_bucket(bucket.bucket_id).object_count == len(NAMES))
shown("list_buckets", buckets.list_buckets().total_count == 1)

collections = mixpeek.CollectionsApi(api)
collection = collections.create_collection(
    m.CreateCollectionRequest.from_dict(
        {
            "collection_name": "texts",
            "source": {"type": "bucket", "bucket_ids": [bucket.bucket_id]},
            "feature_extractor": {
                "feature_extractor_name": "text_extractor",
                "version": "v1",
                "input_mappings": {"text": "content"},
                "params": {"model_id": "BAAI/bge-m3"},
            },
        }
    )
)
shown("create_collection", collection.collection_id.startswith("col_"), collection)
shown("list_collections", collections.list_collections().total_count == 1)

batches = mixpeek.BucketBatchesApi(api)
batch = batches.create_batch_buckets_batches(
    bucket.bucket_id, m.CreateBatchRequest.from_dict({"object_ids": ids, "collection_ids": [collection.collection_id]})
)
shown("create_batch", batch.status.value == "DRAFT", batch)
task = batches.submit_batch_buckets_batches(bucket.bucket_id, batch.batch_id)
shown("submit_batch", task.task_type.value == "api_buckets_batches_process", task)
tasks = mixpeek.TasksApi(api)
status = until(lambda: tasks.get_task(task.task_id).status.value, "COMPLETED")
shown("get_task until COMPLETED", status == "COMPLETED", status)
again = batches.get_batch_buckets_batches(bucket.bucket_id, batch.batch_id)
shown("get_batch", again.status.value == "COMPLETED", again)
shown("list_tasks", len(tasks.list_tasks().results) == len(NAMES))
shown("list_batches", batches.list_batches_buckets(bucket.bucket_id).total_count == 1)

documents = mixpeek.CollectionDocumentsApi(api)
listed = documents.list_documents(
    collection.collection_id, list_documents_request=m.ListDocumentsRequest.from_dict({"limit": 100})
).results
texts = sorted(one.additional_properties["text"] for one in listed)
shown("list_documents", texts == sorted(DOCUMENTS.values()), texts)
first = documents.list_documents(collection.collection_id, limit=2)
rest = documents.list_documents(collection.collection_id, cursor=first.pagination.next_cursor)
shown("list_documents page by page", len(first.results) == 2 and len(rest.results) == len(NAMES) - 2, rest)
one = documents.get_document(collection.collection_id, listed[0].document_id)
shown("get_document", one.document_id == listed[0].document_id, one)

retrievers = mixpeek.RetrieversApi(api)
stage = {
    "stage_name": "search",
    "stage_type": "filter",
    "config": {
        "stage_id": "feature_search",
        "parameters": {
            "searches": [
                {
                    "feature_uri": collection.vector_indexes[0].feature_uri,
                    "query": {"input_mode": "text", "value": "{{INPUT.query}}"},
                    "top_k": 50,
                }
            ],
            "final_top_k": 5,
        },
    },
}
made = retrievers.create_retriever(
    m.CreateRetrieverRequest.from_dict(
        {
            "retriever_name": "texts",
            "stages": [stage],
            "collection_identifiers": [collection.collection_id],
            "input_schema": {"query": {"type": "text"}},
        }
    )
)
retriever_id = made["retriever_id"] if isinstance(made, dict) else made.retriever_id
shown("get_retriever", retrievers.get_retriever(retriever_id).retriever_name == "texts")
shown("list_retrievers", len(retrievers.list_retrievers().results) == 1)


def ask(query: str) -> list[str]:
    found = retrievers.execute_retriever(
        retriever_id, m.ExecuteRetrieverRequest.from_dict({"inputs": {"query": query}, "limit": 5})
    )
    return [document["text"] for document in found.documents]


ranked_right("execute_retriever", ask)

uploads = mixpeek.BucketUploadsApi(api)
upload = uploads.create_upload_buckets(
    bucket.bucket_id,
    m.CreateUploadRequest.from_dict({"filename": "more.txt", "content_type": "text/plain", "blob_property": "content"}),
)
import urllib.request  # noqa: E402 - only this step needs it

request = urllib.request.Request(upload.presigned_url, data=b"An upload to a presigned URL.", method="PUT")
with urllib.request.urlopen(request) as done:
    shown("PUT to the presigned URL", done.status == 200)
confirmed = uploads.confirm_upload_buckets(bucket.bucket_id, upload.upload_id)
shown("confirm_upload", confirmed.object_id.startswith("obj_"), confirmed)
triggered = collections.trigger_collection(collection.collection_id)
status = until(lambda: tasks.get_task(triggered.task_id).status.value, "COMPLETED")
shown("trigger_collection", status == "COMPLETED", status)

webhooks = mixpeek.WebhooksApi(api)
hook = webhooks.create_webhook_organizations(
    m.WebhookInput.from_dict(
        {
            "webhook_name": "ingested",
            "event_types": ["collection.documents.written"],
            "channels": [{"channel": "webhook", "configs": {"url": "https://93.184.216.34/hook"}}],
        }
    )
)
shown("create_webhook", hook.webhook_id.startswith("wh_"), hook)
shown("list_webhooks", webhooks.list_webhooks_organizations().total == 1)
webhooks.delete_webhook_organizations(hook.webhook_id)
mixpeek.OrganizationUsageApi(api).get_org_usage_organizations()
shown("get_org_usage", True)
shown("delete_document", documents.delete_document(collection.collection_id, listed[0].document_id) is not None)
shown("delete_retriever", retrievers.delete_retriever(retriever_id) is not None)
time.sleep(0.5)
shown("delete_collection", collections.delete_collection(collection.collection_id) is not None)
shown("delete_bucket", buckets.delete_bucket(bucket.bucket_id) is not None)

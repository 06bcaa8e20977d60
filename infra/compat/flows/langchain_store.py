"""langchain-mixpeek: vector store, retriever and tool."""

from __future__ import annotations

import json

from checks import BASE, DOCUMENTS, KEY, ranked_right, shown, until, url
from langchain_mixpeek import MixpeekRetriever, MixpeekTool, MixpeekVectorStore
from mixpeek import Mixpeek

NAMES = list(DOCUMENTS)
# It has no other way to be told where the API is.
Mixpeek.DEFAULT_BASE_URL = f"{BASE}/v1"
NAMESPACE = "compat-langchain"
Mixpeek(KEY).namespaces.create(name=NAMESPACE)
mp = Mixpeek(KEY, namespace=NAMESPACE)
bucket = mp.buckets.create(name="texts", bucket_schema={"properties": {"content": {"type": "text"}}})
collection = mp.collections.create(
    name="texts",
    source={"type": "bucket", "bucket_ids": [bucket["bucket_id"]]},
    feature_extractor={
        "feature_extractor_name": "text_extractor",
        "version": "v1",
        "input_mappings": {"text": "content"},
    },
)
stage = {
    "stage_name": "search",
    "config": {
        "stage_id": "feature_search",
        "parameters": {
            "searches": [
                {
                    "feature_uri": "mixpeek://text_extractor@v1/baai_bge_m3_v1",
                    "query": {"input_mode": "text", "value": "{{INPUT.query}}"},
                }
            ],
            "final_top_k": 5,
        },
    },
}
retriever = mp.retrievers.create(
    name="texts", stages=[stage], collection_identifiers=[collection["collection_id"]], input_schema={}
)
store = MixpeekVectorStore(
    api_key=KEY,
    namespace=NAMESPACE,
    bucket_id=bucket["bucket_id"],
    collection_id=collection["collection_id"],
    retriever_id=retriever["retriever_id"],
)
store._base_url = f"{BASE}/v1"
half = len(NAMES) // 2
ids = store.add_texts([DOCUMENTS[name] for name in NAMES[:half]], metadatas=[{"topic": name} for name in NAMES[:half]])
ids += store.add_urls([url(name) for name in NAMES[half:]], blob_type="text")
shown("add_texts, add_urls", len(set(ids)) == len(NAMES) and all(each.startswith("obj_") for each in ids), ids)
triggered = store.trigger_processing()
status = until(lambda: mp.tasks.get(triggered["task_id"])["status"], "COMPLETED")
shown("trigger_processing", status == "COMPLETED", status)

ranked_right("similarity_search", lambda query: [one.page_content for one in store.similarity_search(query, k=3)])
scored = store.similarity_search_with_score("sourdough", k=3)
shown("similarity_search_with_score", [s for _, s in scored] == sorted((s for _, s in scored), reverse=True), scored)
shown("metadata", scored[0][0].metadata["topic"] == "bread", scored[0][0].metadata)
asked = MixpeekRetriever(api_key=KEY, retriever_id=retriever["retriever_id"], namespace=NAMESPACE, top_k=3)
ranked_right("retriever.invoke", lambda query: [one.page_content for one in asked.invoke(query)])
tool = MixpeekTool(api_key=KEY, retriever_id=retriever["retriever_id"], namespace=NAMESPACE)
answered = tool.invoke("sourdough bread")
shown("tool.invoke", "sourdough" in (answered if isinstance(answered, str) else json.dumps(answered)), answered)

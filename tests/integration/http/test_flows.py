"""What clients do, from the first bucket to the ranked answer, through the served API and real workers."""

from __future__ import annotations

import base64
import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.support.api import Api
from tests.support.web import Server, answer
from trivet import Trivet
from trivet.settings import Settings

LIGHTHOUSE = "The lighthouse keeper trims the lantern every evening before the fog comes in."
BREAD = "Knead the sourdough, let the dough rest overnight, and bake the bread in a hot oven."
TAXES = "The tax return must be filed with the revenue office by the end of July."
SEARCH = {
    "stage_name": "search",
    "config": {
        "stage_id": "feature_search",
        "parameters": {
            "searches": [
                {
                    "feature_uri": "mixpeek://text_extractor@v1",
                    "query": {"input_mode": "text", "value": "{{INPUT.query}}"},
                    "top_k": 50,
                }
            ],
            "final_top_k": 5,
        },
    },
}


def bucket(api: Api, name: str) -> str:
    schema = {"properties": {"content": {"type": "text"}}}
    return str(api.made("/v1/buckets", {"bucket_name": name, "bucket_schema": schema})["bucket_id"])


def collection(api: Api, name: str, *bucket_ids: str) -> str:
    body = {
        "collection_name": name,
        "source": {"type": "bucket", "bucket_ids": list(bucket_ids)},
        "feature_extractor": {
            "feature_extractor_name": "text_extractor",
            "version": "v1",
            "input_mappings": {"text": "content"},
        },
    }
    return str(api.made("/v1/collections", body)["collection_id"])


def put(api: Api, bucket_id: str, data: object, **more: object) -> str:
    body = {"blobs": [{"property": "content", "type": "text", "data": data}], **more}
    return str(api.made(f"/v1/buckets/{bucket_id}/objects", body)["object_id"])


def ended(api: Api, task_id: object, headers: dict[str, str] | None = None) -> dict[str, object]:
    found: dict[str, object] = api.get(f"/v1/tasks/{task_id}", headers={"Prefer": "wait=50", **(headers or {})}).json()
    return found


def texts(api: Api, collection_id: str, **asked: object) -> list[str]:
    listed = api.made(f"/v1/collections/{collection_id}/documents/list", asked)["results"]
    assert isinstance(listed, list)
    return [document["text"] for document in listed]


class TestObjectsOfABucket:
    def test_become_documents_that_are_found_in_the_right_order(self, running: Api, source: Server) -> None:
        source.pages["/lighthouse.txt"] = answer(LIGHTHOUSE.encode(), Content_Type="text/plain")
        home = bucket(running, "all-kinds")
        where = collection(running, "all-kinds", home)
        packed = base64.b64encode(TAXES.encode()).decode()
        ids = {
            "url": put(running, home, source.url("/lighthouse.txt"), kind="beacon", metadata={"year": 1920}),
            "inline": put(running, home, BREAD, metadata={"year": 2020}),
            "base64": put(running, home, {"base64": packed, "mime_type": "text/plain"}),
            "data URI": put(running, home, "data:text/plain;charset=utf-8,Gr%C3%BC%C3%9Fe%20aus%20Basel"),
        }
        triggered = running.post(f"/v1/collections/{where}/trigger", headers={"Prefer": "wait=50"})
        assert triggered.status_code == 202
        assert triggered.headers["Preference-Applied"] == "wait=50"
        task = ended(running, triggered.json()["task_id"])
        assert (task["status"], task["task_type"]) == ("COMPLETED", "api_buckets_batches_process")
        assert triggered.json()["object_count"] == 4
        assert sorted(texts(running, where)) == sorted([LIGHTHOUSE, BREAD, TAXES, "Grüße aus Basel"])

        (found,) = running.made(f"/v1/collections/{where}/documents/list", {"object_id": ids["url"]})["results"]
        assert found["metadata"] == {"kind": "beacon", "year": 1920}
        assert found["source_url"] == source.url("/lighthouse.txt")
        # The fake encoder ran, and answers say so, although bge-m3 was asked for.
        assert found["model"] == "fake"
        assert running.get(f"/v1/collections/{where}/documents/{found['document_id']}").json() == found

        retriever = running.made(
            "/v1/retrievers",
            {"retriever_name": "all", "stages": [SEARCH], "collection_identifiers": [where], "input_schema": {}},
        )
        path = f"/v1/retrievers/{retriever['retriever_id']}/execute"
        for query, best in (("lighthouse lantern keeper", "url"), ("sourdough bread oven", "inline")):
            answered = running.made(path, {"inputs": {"query": query}})
            documents = answered["documents"]
            assert isinstance(documents, list)
            assert documents[0]["object_id"] == ids[best]
            assert [one["score"] for one in documents] == sorted((one["score"] for one in documents), reverse=True)
            assert answered["results"] == documents
            assert answered["model"] == "fake"
        filtered = running.made(path, {"inputs": {"query": "lantern"}, "filters": {"metadata.year": 2020}})
        assert [one["object_id"] for one in filtered["documents"]] == [ids["inline"]]

    def test_come_as_files_and_through_presigned_urls_and_are_ingested_whole(self, running: Api) -> None:
        home = bucket(running, "files")
        where = collection(running, "files", home)
        long = "\n\n".join(f"Paragraph {n} of a long story about harbours and ships." for n in range(3000))
        sent = running.http.post(
            f"/v1/buckets/{home}/objects/upload", files={"file": ("long.txt", long.encode(), "text/plain")}
        )
        assert sent.is_success, sent.text
        upload = running.made(f"/v1/buckets/{home}/uploads", {"filename": "b.txt", "content_type": "text/plain"})
        request = urllib.request.Request(str(upload["presigned_url"]), data=BREAD.encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=30) as done:
            assert done.status == 200
        path = f"/v1/buckets/{home}/uploads/{upload['upload_id']}/confirm"
        for wrong in ({"file_size_bytes": 1}, {"etag": '"0123456789abcdef0123456789abcdef"'}):
            assert running.post(path, wrong).status_code == 400, wrong
        confirmed = running.made(path, {"etag": done.headers["ETag"], "file_size_bytes": len(BREAD)})
        assert running.made(path)["object_id"] == confirmed["object_id"]
        assert (confirmed["status"], confirmed["file_size_bytes"]) == ("COMPLETED", len(BREAD))
        assert running.get(f"/v1/buckets/{home}").json()["object_count"] == 2
        triggered = running.made(f"/v1/collections/{where}/trigger")
        assert ended(running, triggered["task_id"])["status"] == "COMPLETED"
        assert texts(running, where, object_id=confirmed["object_id"]) == [BREAD]
        # What was deleted since does not come back.
        kept = f"/v1/buckets/{home}/objects/{confirmed['object_id']}"
        assert running.http.delete(kept).is_success
        assert running.made(path)["status"] == "COMPLETED"
        assert running.get(kept).status_code == 404
        chunks = texts(running, where, object_id=sent.json()["object_id"], limit=1000)
        assert len(chunks) > 100
        assert "Paragraph 2999 of" in chunks[-1]

    def test_that_fail_are_named_and_run_again_once_the_cause_is_gone(self, running: Api, source: Server) -> None:
        home = bucket(running, "failing")
        where = collection(running, "failing", home)
        good, bad = put(running, home, BREAD), put(running, home, source.url("/not-yet"))
        none = running.made(f"/v1/buckets/{home}/objects", {"blobs": [{"property": "title", "data": "Other"}]})
        batch = running.made(f"/v1/buckets/{home}/batches", {"batch_name": "first"})
        path = f"/v1/buckets/{home}/batches/{batch['batch_id']}"
        assert (batch["status"], batch["object_count"]) == ("DRAFT", 3)
        task = running.made(f"{path}/submit", {})
        assert ended(running, task["task_id"])["status"] == "COMPLETED_WITH_ERRORS"
        failed = {one["object_id"]: one for one in running.get(f"{path}/failed-documents").json()["results"]}
        assert failed.keys() == {bad, none["object_id"]}
        assert (failed[bad]["error_type"], failed[bad]["stage"]) == ("source_not_found", "prepare")
        assert failed[str(none["object_id"])]["error_type"] == "invalid_request"
        audit = running.get(f"{path}/audit").json()
        assert (audit["all_balanced"], audit["has_lost_objects"], audit["total_objects"]) == (True, False, 3)
        source.pages["/not-yet"] = answer(LIGHTHOUSE.encode(), Content_Type="text/plain")
        running.made(f"{path}/retry")
        assert ended(running, task["task_id"])["additional_data"]["counts"] == {"completed": 2, "refused": 1}  # type: ignore[index] # a task of many has counts
        assert sorted(texts(running, where)) == sorted([LIGHTHOUSE, BREAD])
        assert running.get(path).json()["failed_object_count"] == 1
        assert good in running.get(path).json()["object_ids"]


PAYLOAD = {
    "feature_extractors": [{"name": "text_embedding", "version": "v1", "params": {"model_id": "BAAI/bge-m3"}}],
}


class TestIngest:
    def test_takes_exactly_the_payload_of_the_product_page(self, running: Api, source: Server) -> None:
        source.pages["/page"] = answer(TAXES.encode(), Content_Type="text/plain")
        where = running.made("/v1/collections", {"collection_name": "page"})["collection_id"]
        body = {"source": {"url": source.url("/page")}, **PAYLOAD}
        accepted = running.post(f"/v1/collections/{where}/ingest", body)
        assert accepted.status_code == 202
        task = ended(running, accepted.json()["task_id"])
        assert (task["status"], task["object_id"]) == ("COMPLETED", accepted.json()["object_id"])
        assert texts(running, str(where)) == [TAXES]

    def test_waits_for_the_end_where_that_is_preferred(self, running: Api) -> None:
        running.made("/v1/collections", {"collection_name": "waits"})
        body = {"source": {"text": BREAD}, **PAYLOAD}
        done = running.post("/v1/collections/waits/ingest", body, headers={"Prefer": "wait=50"})
        assert done.json()["status"] == "COMPLETED"
        again = running.post("/v1/collections/waits/ingest", body, headers={"Prefer": "wait=50"})
        assert again.json()["status"] == "SKIPPED"
        assert again.json()["object_id"] == done.json()["object_id"]

    def test_of_many_sources_says_of_each_what_became_of_it(self, running: Api) -> None:
        running.made("/v1/collections", {"collection_name": "many"})
        sources: list[dict[str, object]] = [{"text": f"Text number {n}.", "object_id": f"t{n}"} for n in range(40)]
        sources[7] = {"url": "not a url"}
        sources[9] = {"url": "file:///etc/passwd"}
        sources[11] = {"text": "x", "url": "https://example.com/"}
        sources[13] = {"text": "x", "object_id": "no/slash"}
        done = running.made("/v1/collections/many/ingest", {"sources": sources, **PAYLOAD})
        results = done["results"]
        assert isinstance(results, list)
        assert [one["index"] for one in results] == list(range(40))
        assert {one["index"]: one["code"] for one in results if one["status"] == "refused"} == {
            7: "invalid_request",
            9: "source_refused",
            11: "invalid_request",
            13: "invalid_request",
        }
        assert (done["accepted"], done["refused"]) == (36, 4)
        assert ended(running, done["task_id"])["additional_data"]["counts"] == {"completed": 36, "refused": 4}  # type: ignore[index] # a task of many has counts
        assert running.get(f"/v1/batches/{done['batch_id']}").json()["status"] == "COMPLETED_WITH_ERRORS"
        assert len(texts(running, "many", limit=100)) == 36

    def test_keeps_the_model_of_a_collection_that_has_objects(self, running: Api) -> None:
        running.made("/v1/collections", {"collection_name": "fixed"})
        other = {"feature_extractors": [{"name": "text_embedding", "params": {"model_id": "fake"}}]}
        free = running.post("/v1/collections/fixed/ingest", {"source": {"text": BREAD}, **other})
        assert free.json()["model"] == "fake"
        refused = running.post("/v1/collections/fixed/ingest", {"source": {"text": TAXES}, **PAYLOAD})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
        body = {"feature_extractor": {"name": "text_extractor", "params": {"model_id": "BAAI/bge-m3"}}}
        assert running.http.patch("/v1/collections/fixed", json=body).status_code == 409
        assert ended(running, free.json()["task_id"])["status"] == "COMPLETED"

    def test_takes_two_models_at_once_into_no_collection(self, api: Api) -> None:
        """First ingests that meet: what is accepted is all of one model, and the others are told so."""
        models = ("BAAI/bge-m3", "fake")
        for n in range(12):
            name, barrier = f"met{n}", threading.Barrier(4)
            api.made("/v1/collections", {"collection_name": name})

            def first(k: int, name: str = name, barrier: threading.Barrier = barrier) -> httpx2.Response:
                named = {"name": "text_embedding", "params": {"model_id": models[k % 2]}}
                body = {"source": {"text": f"Text {k}."}, "feature_extractors": [named]}
                barrier.wait(30)
                return api.post(f"/v1/collections/{name}/ingest", body)

            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(first, range(4)))
            assert {each.status_code for each in answers} <= {202, 409}
            (model,) = {each.json()["model"] for each in answers if each.status_code == 202}
            kept = api.get(f"/v1/collections/{name}").json()
            assert kept["feature_extractors"][0]["params"]["model_id"] == model


def test_other_extractors_say_something_of_every_document_beside_its_embedding(running: Api) -> None:
    extractors = [{"name": "text_embedding", "version": "v1"}, {"name": "language_extractor", "version": "v1"}]
    made = running.made("/v1/collections", {"collection_name": "several", "feature_extractors": extractors})
    assert [one["feature_extractor_name"] for one in made["feature_extractors"]] == [
        "text_embedding",
        "language_extractor",
    ]
    german = "Der Leuchtturmwärter putzt jeden Abend die Laterne, bevor der Nebel vom Meer hereinzieht."
    sources = [
        {"text": german, "object_id": "de"},
        {"text": "すべて人は、教育を受ける権利を有する。", "object_id": "ja"},
    ]
    ended(running, running.made("/v1/collections/several/ingest", {"sources": sources})["task_id"])
    listed = running.made("/v1/collections/several/documents/list", {})["results"]
    features = {one["object_id"]: one["features"] for one in listed}
    assert features["de"] == {"language_extractor": {"language": "de", "script": "latin"}}
    assert features["ja"]["language_extractor"]["script"] == "japanese"
    assert [one["metadata"] for one in listed] == [{}, {}]
    unknown = {"collection_name": "x", "feature_extractors": [*extractors, {"name": "face_extractor"}]}
    assert running.post("/v1/collections", unknown).status_code == 400
    named = {one["feature_extractor_name"] for one in running.get("/v1/collections/features/extractors").json()}
    assert named >= {"text_extractor", "text_embedding", "language_extractor"}


class TestATask:
    def test_is_followed_to_its_end(self, running: Api) -> None:
        running.made("/v1/collections", {"collection_name": "followed"})
        task = running.made("/v1/collections/followed/ingest", {"source": {"text": BREAD}})["task_id"]
        events = []
        with running.http.stream("GET", f"/v1/tasks/{task}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    events.append(line.removeprefix("event: "))
                elif line.startswith("data: "):
                    last = json.loads(line.removeprefix("data: "))
        assert events[-1] == "end"
        assert set(events[:-1]) <= {"progress"}
        assert (last["task_id"], last["status"]) == (task, "COMPLETED")

    def test_that_has_ended_stays_as_it_is(self, running: Api) -> None:
        running.made("/v1/collections", {"collection_name": "ended"})
        task = running.made("/v1/collections/ended/ingest", {"source": {"text": BREAD}})["task_id"]
        assert ended(running, task)["status"] == "COMPLETED"
        assert running.made(f"/v1/tasks/{task}/cancel")["status"] == "COMPLETED"
        assert running.post(f"/v1/tasks/{task}/retry").status_code == 409
        assert running.get(f"/v1/tasks/{task}/why").json()["reason"] == "Committed and visible."


def test_documents_go_with_their_object(running: Api) -> None:
    running.made("/v1/collections", {"collection_name": "going"})
    long = "\n\n".join(f"Paragraph {n} of a story about trains." for n in range(200))
    sources = [{"text": long, "object_id": "long"}, {"text": BREAD, "object_id": "short"}]
    done = running.made("/v1/collections/going/ingest", {"sources": sources})
    ended(running, done["task_id"])
    listed = running.made("/v1/collections/going/documents/list", {"limit": 1000})["results"]
    assert isinstance(listed, list)
    one = {document["object_id"]: document["document_id"] for document in listed}
    refused = running.http.delete(f"/v1/collections/going/documents/{one['long']}")
    assert refused.status_code == 409
    for path in (f"documents/{one['short']}", "objects/long"):
        gone = running.http.delete(f"/v1/collections/going/{path}")
        assert ended(running, gone.json()["task_ids"][0])["status"] == "COMPLETED"
    assert texts(running, "going") == []
    assert running.get(f"/v1/collections/going/documents/{one['short']}").status_code == 404


def test_a_deleted_collection_is_gone_and_another_may_have_its_name(running: Api) -> None:
    where = running.made("/v1/collections", {"collection_name": "brief"})["collection_id"]
    ended(running, running.made("/v1/collections/brief/ingest", {"source": {"text": BREAD}})["task_id"])
    gone = running.http.delete(f"/v1/collections/{where}")
    assert gone.json()["success"] is True
    for task in gone.json()["task_ids"]:
        assert ended(running, task)["status"] == "COMPLETED"
    assert running.get(f"/v1/collections/{where}").status_code == 404
    assert running.made("/v1/collections", {"collection_name": "brief"})["collection_id"] == where
    assert texts(running, str(where)) == []


@pytest.mark.parametrize("stages", [[SEARCH], [{"type": "feature_search", "query": "bread", "limit": 3}]])
def test_a_search_needs_no_retriever(running: Api, stages: list[dict[str, object]]) -> None:
    if running.get("/v1/collections/adhoc").status_code == 404:
        running.made("/v1/collections", {"collection_name": "adhoc"})
        done = running.made("/v1/collections/adhoc/ingest", {"sources": [{"text": BREAD}, {"text": TAXES}]})
        ended(running, done["task_id"])
    body = {"stages": stages, "collection_identifiers": ["adhoc"], "inputs": {"query": "bread"}}
    found: httpx2.Response = running.post("/v1/retrievers/execute", body)
    assert found.is_success, found.text
    assert found.json()["documents"][0]["text"] == BREAD


def test_what_a_request_gets_wrong_is_refused_in_a_sentence_and_leaves_nothing_behind(running: Api) -> None:
    home = bucket(running, "wrongs")
    running.made("/v1/collections", {"collection_name": "wrongs", "source": {"bucket_ids": [home]}})
    running.made(f"/v1/buckets/{home}/objects", {"blobs": [{"property": "content", "data": BREAD}]})
    listed = {"config": {"stage_id": "feature_search", "parameters": [1]}}
    wrong = [
        ("/v1/collections/wrongs/trigger", {"object_ids": []}, 422),
        ("/v1/retrievers/execute", {"stages": [listed], "inputs": {}}, 400),
        ("/v1/collections", {"collection_name": "w2", "feature_extractor": {"params": {"model_id": "../../etc"}}}, 400),
        ("/v1/collections", {"collection_name": "w2", "feature_extractor": {"field_passthrough": [5]}}, 422),
    ]
    for path, body, status in wrong:
        answer = running.post(path, body)
        assert (answer.status_code, answer.json()["success"]) == (status, False), answer.text
    assert running.get("/v1/collections/w2").status_code == 404
    for identifier in ("%2e%2e", "%00", ".x"):
        found = running.get(f"/v1/collections/wrongs/documents/doc_0123456789abcdef01234567.{identifier}")
        assert (found.status_code, found.json()["error"]["code"]) == (404, "unknown_resource"), found.text


def test_a_collection_that_is_not_enabled_takes_nothing_in(running: Api) -> None:
    home = bucket(running, "asleep")
    running.made("/v1/collections", {"collection_name": "asleep", "source": {"bucket_ids": [home]}, "enabled": False})
    object_id = running.made(f"/v1/buckets/{home}/objects", {"blobs": [{"property": "content", "data": BREAD}]})[
        "object_id"
    ]
    batch_id = running.made(f"/v1/buckets/{home}/batches", {"object_ids": [object_id]})["batch_id"]
    assert running.post("/v1/collections/asleep/ingest", {"source": {"text": BREAD}}).status_code == 409
    assert running.post("/v1/collections/asleep/trigger", {}).status_code == 409
    submit = f"/v1/buckets/{home}/batches/{batch_id}/submit"
    assert running.post(submit, {"collection_ids": ["asleep"]}).status_code == 409
    assert running.post(submit, {}).status_code == 400
    assert running.http.patch("/v1/collections/asleep", json={"enabled": True}).is_success
    assert running.post(submit, {}).is_success


def test_a_batch_whose_tasks_are_run_again_one_by_one_is_no_longer_what_it_ended_as(
    running: Api, live: Settings
) -> None:
    running.made("/v1/collections", {"collection_name": "again"})
    with Trivet(settings=live) as client:
        client.pause("again", reason="so that nothing is done before it is cancelled")
        made = running.made("/v1/collections/again/ingest", {"sources": [{"text": TAXES}, {"text": BREAD}]})
        running.made(f"/v1/tasks/{made['task_id']}/cancel")
        batch = f"/v1/batches/{made['batch_id']}"
        assert running.get(batch).json()["status"] == "CANCELED"
        client.resume("again")
    for left, one in zip(("COMPLETED_WITH_ERRORS", "COMPLETED"), made["results"], strict=True):
        running.made(f"/v1/tasks/{one['task_id']}/retry")
        ended(running, one["task_id"])
        assert running.get(batch).json()["status"] == left

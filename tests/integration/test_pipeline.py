"""The whole way of a task, on real servers and real worker processes, with the fake encoder."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from celery import Celery

from infra.prose import prose
from tests.corpus.pdf import page_of, pdf
from tests.support.fleet import Fleet, fleet, terminal_events, wait_for_all
from tests.support.web import Server, answer
from trivet.broker import make_app
from trivet.client import Trivet
from trivet.commit import read_manifest, read_pointer
from trivet.errors import UnknownCollection
from trivet.names import ACCEPT_QUEUE, ACCEPT_TASK
from trivet.parts.reader import read_parts
from trivet.retrieval import SearchRequest, open_retriever
from trivet.retrieval.query import QueryEncoder
from trivet.settings import Settings
from trivet.stores import open_store
from trivet.stores.layout import Layout
from trivet.values import Chunking, Outputs, Pipeline, TaskState, TaskView


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    """A web server whose pages tests add to."""
    server = Server({})
    yield server
    server.close()


@pytest.fixture(scope="module")
def live(settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory, source: Server) -> Settings:
    """Settings of the fleet that all tests of this module share."""
    return settings_for(
        tmp_path_factory.mktemp("pipeline"),
        "pipeline",
        model_aliases={"BAAI/bge-m3": "fake"},
        allow_addresses=(source.place,),
        lease_seconds=3.0,
        heartbeat_seconds=0.5,
        sweep_seconds=0.2,
        retry_base_seconds=0.02,
        source_read_seconds=1.0,
        source_max_bytes=200_000,
    )


@pytest.fixture(scope="module")
def workers(live: Settings) -> Iterator[Fleet]:
    with fleet(live) as made:
        made.start_all()
        yield made


@pytest.fixture(scope="module")
def client(live: Settings, workers: Fleet) -> Trivet:
    made = Trivet(settings=live)
    made.create_collection("docs")
    return made


def ingest(client: Trivet, source: Server, path: str, body: bytes, kind: str = "text/plain", **how: object) -> TaskView:
    """Serve a body, ingest its URL, and wait for the end."""
    source.pages[path] = answer(body, Content_Type=kind)
    task = client.ingest(source.url(path), collection="docs", **how)  # type: ignore[arg-type]  # test input
    return task.wait(timeout=60)


class TestAnObject:
    def test_what_was_ingested_is_what_readers_find(self, client: Trivet, source: Server, live: Settings) -> None:
        text = "# Über uns\n\n日本語のテキスト。\n\n## نص عربي\n\nمرحبا بالعالم\n" * 20
        view = ingest(client, source, "/a.md", text.encode(), "text/markdown", object_id="a.md", metadata={"k": "v"})
        assert view.state is TaskState.COMPLETED, view
        layout, store = Layout.of(live, "default", "docs"), open_store(live)
        current = read_pointer(store, layout, "a.md")
        assert current is not None
        manifest = read_manifest(store, layout, "a.md", current.generation)
        assert manifest is not None
        groups = list(read_parts("docs", object_ids=["a.md"], settings=live, store=store))
        texts = [str(value) for group in groups for value in group.table.column("text").to_pylist()]
        assert texts[0].startswith("# Über uns")
        assert sum(text.count("日本語のテキスト。") for text in texts) == 20
        assert all(group.dense is not None and group.colbert(0) is not None and group.sparse(0) for group in groups)
        assert manifest.receipt.chunks == view.chunks == len(texts)
        assert manifest.receipt.tokens_embedded == view.tokens
        assert manifest.passports[0].model == "fake"
        assert manifest.passports[0].requested_model == "BAAI/bge-m3"
        assert manifest.metadata == {"k": "v"}

    def test_colbert_is_stored_and_found_as_its_collection_asks(
        self, client: Trivet, source: Server, live: Settings
    ) -> None:
        small = Outputs(colbert="int8", colbert_pooling=2, colbert_dimensions=48, dense_dimensions=32)
        text = ("The lighthouse keeper trims the lantern. " + prose(3, 900)).encode()
        source.pages["/small"] = answer(text, Content_Type="text/plain")
        tasks = []
        for name, outputs in (("small", small), ("whole", Outputs())):
            client.create_collection(name, pipeline=Pipeline(outputs=outputs, chunking=Chunking(target_tokens=100)))
            tasks.append(client.ingest(source.url("/small"), collection=name, object_id="o").task_id)
        assert [view.state for view in wait_for_all(client, tasks)] == [TaskState.COMPLETED] * 2
        store = open_store(live)
        (stored,), (whole,) = ([*read_parts(name, settings=live, store=store)] for name in ("small", "whole"))
        assert len(stored) == len(whole) > 2
        assert [group.dense is not None and group.dense.shape[1] for group in (stored, whole)] == [32, 64]
        for row in range(len(stored)):
            pooled, tokens = stored.colbert(row), whole.colbert(row)
            assert pooled is not None
            assert tokens is not None
            assert pooled.shape == (-(-len(tokens) // 2), 48)
            assert np.abs(np.linalg.norm(pooled, axis=1) - 1).max() < 0.02
        encoder = QueryEncoder.load(live, "fake")
        query = encoder.encode("lighthouse lantern").legs
        for name in ("small", "whole"):
            hit = open_retriever(live).search("default", name, query, SearchRequest(top_k=1)).hits[0]
            assert (hit.ordinal, hit.colbert is not None) == (0, True)

    def test_more_dimensions_than_the_model_has_fail_the_task_with_a_sentence(
        self, client: Trivet, source: Server
    ) -> None:
        source.pages["/wide"] = answer(b"Too wide.", Content_Type="text/plain")
        client.create_collection("wide", pipeline=Pipeline(outputs=Outputs(colbert_dimensions=65)))
        view = client.ingest(source.url("/wide"), collection="wide").wait(timeout=60)
        assert view.state is TaskState.FAILED
        assert view.error is not None
        assert view.error.code == "invalid_request"
        assert view.error.message == "The collection asks for colbert_dimensions 65, and fake has 64."

    def test_unchanged_content_is_skipped_and_changed_content_is_a_new_generation(
        self, client: Trivet, source: Server
    ) -> None:
        first = ingest(client, source, "/same", b"The same text again.")
        assert (first.state, first.generation) == (TaskState.COMPLETED, 1)
        assert ingest(client, source, "/same", b"The same text again.").state is TaskState.SKIPPED
        changed = ingest(client, source, "/same", b"Another text now.")
        assert (changed.state, changed.generation) == (TaskState.COMPLETED, 3)

    def test_an_idempotency_key_is_one_task(self, client: Trivet, source: Server) -> None:
        source.pages["/idem"] = answer(b"Once.", Content_Type="text/plain")
        tasks = {
            client.ingest(source.url("/idem"), collection="docs", idempotency_key="once").task_id for _ in range(5)
        }
        assert len(tasks) == 1
        assert client.task(tasks.pop()).wait(timeout=30).state is TaskState.COMPLETED

    def test_a_query_string_is_fetched_with_and_shown_nowhere(
        self, client: Trivet, source: Server, live: Settings, workers: Fleet
    ) -> None:
        source.pages["/signed"] = answer(b"A private text.", Content_Type="text/plain")
        task = client.ingest(source.url("/signed?signature=hidden-value"), collection="docs", object_id="signed")
        assert task.wait(timeout=30).state is TaskState.COMPLETED
        assert any("hidden-value" in request for request in source.requests)
        manifest = read_manifest(open_store(live), Layout.of(live, "default", "docs"), "signed", 1)
        seen = repr(task.status()) + repr(client.events(count=10_000)) + repr(manifest)
        seen += "".join(workers.log(name) for name in ("cpu", "embed"))
        assert "hidden-value" not in seen

    def test_an_app_that_only_has_celery_enqueues_by_task_name(
        self, client: Trivet, source: Server, live: Settings
    ) -> None:
        source.pages["/celery"] = answer(b"Sent by name.", Content_Type="text/plain")
        app: Celery = make_app(live)
        request = {"url": source.url("/celery"), "collection": "docs", "object_id": "by-celery"}
        for _ in range(2):  # the same message twice, as a redelivery would be
            app.send_task(ACCEPT_TASK, args=[request], queue=ACCEPT_QUEUE, task_id="message-1")
        app.send_task(ACCEPT_TASK, args=[{"url": "nonsense", "collection": "docs"}], queue=ACCEPT_QUEUE)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            mine = [task for task in client.tasks(limit=1000) if task.object_id == "by-celery"]
            if mine and all(task.state.terminal for task in mine):
                break
            time.sleep(0.1)
        assert [task.state for task in mine] == [TaskState.COMPLETED]


class TestAtTheSameTime:
    def test_two_ingests_of_one_object_give_two_generations_one_after_the_other(
        self, client: Trivet, source: Server
    ) -> None:
        bodies = iter([b"Version one.", b"Version two.", b"Version three."])
        source.pages["/twice"] = lambda s: s.sendall(answer(next(bodies), Content_Type="text/plain"))
        first = client.ingest(source.url("/twice"), collection="docs")
        second = client.ingest(source.url("/twice"), collection="docs")
        views = wait_for_all(client, [first.task_id, second.task_id])
        assert [view.state for view in views] == [TaskState.COMPLETED, TaskState.COMPLETED]
        assert [view.generation for view in views] == [1, 2]

    def test_a_collection_changed_while_its_tasks_run_changes_none_of_them(
        self, client: Trivet, source: Server, live: Settings
    ) -> None:
        go = threading.Event()

        def slow(connection: socket.socket) -> None:
            go.wait(20)
            connection.sendall(answer(prose(1, 900).encode(), Content_Type="text/plain"))

        client.create_collection("changing", pipeline=Pipeline(chunking=Chunking(target_tokens=50, max_tokens=64)))
        source.pages["/slow"] = slow
        running = client.ingest(source.url("/slow"), collection="changing", object_id="running")
        client.update_collection("changing", Pipeline(outputs=Outputs(colbert="off")))
        later = client.ingest(source.url("/slow"), collection="changing", object_id="later")
        go.set()
        before, after = wait_for_all(client, [running.task_id, later.task_id])
        assert before.chunks > after.chunks >= 1
        store, layout = open_store(live), Layout.of(live, "default", "changing")
        specs = []
        for view in (before, after):
            manifest = read_manifest(store, layout, view.object_id, 1)
            assert manifest is not None
            specs.append(json.loads(store.get(layout.spec(manifest.spec_hash))[0])["pipeline"])
        assert [spec["outputs"]["colbert"] for spec in specs] == ["float16", "off"]
        assert [spec["chunking"]["max_tokens"] for spec in specs] == [64, 512]

    def test_cancel_while_preparing_stops_the_task_and_leaves_nothing_visible(
        self, client: Trivet, source: Server, live: Settings
    ) -> None:
        started, go = threading.Event(), threading.Event()

        def slow(connection: socket.socket) -> None:
            started.set()
            go.wait(20)
            connection.sendall(answer(b"Too late.", Content_Type="text/plain"))

        source.pages["/cancel"] = slow
        task = client.ingest(source.url("/cancel"), collection="docs", object_id="cancelled")
        assert started.wait(20)
        assert task.cancel().state is TaskState.CANCELLED
        go.set()
        time.sleep(1.0)
        assert task.status().state is TaskState.CANCELLED
        assert read_pointer(open_store(live), Layout.of(live, "default", "docs"), "cancelled") is None
        assert terminal_events(client)[task.task_id] == ["cancelled"]


def _cut(body: bytes) -> bytes:
    return body[: len(body) // 8]


_PDF = pdf([page_of([prose(n, 200)]) for n in range(3)])
_CONTENT = {
    "unsupported type": (answer(bytes(range(256)) * 40, Content_Type="application/octet-stream"), "unsupported_type"),
    "empty file": (answer(b"", Content_Type="text/plain"), "empty_document"),
    "white space alone": (answer(b" \n\t " * 50, Content_Type="text/plain"), "empty_document"),
    "truncated PDF": (answer(_cut(_PDF), Content_Type="application/pdf"), "corrupt_document"),
    "encrypted PDF": (
        answer(pdf([page_of(["Nobody may read this."])], encrypted=True), Content_Type="application/pdf"),
        "encrypted_document",
    ),
    "over the size limit": (answer(b"a " * 200_000, Content_Type="text/plain"), "source_too_large"),
    "404": (answer(b"no", 404), "source_not_found"),
    "403": (answer(b"no", 403), "source_forbidden"),
    "500": (answer(b"no", 500), "source_unavailable"),
}


class TestBadInput:
    @pytest.mark.parametrize("case", _CONTENT)
    def test_the_task_fails_with_one_clear_error_and_its_event_says_the_same(
        self, client: Trivet, source: Server, case: str
    ) -> None:
        page, code = _CONTENT[case]
        path = "/bad-" + case.replace(" ", "-")
        source.pages[path] = page
        self._fails(client, source.url(path), code)

    def test_a_refused_address_is_named(self, client: Trivet) -> None:
        self._fails(client, "http://169.254.169.254/latest/meta-data", "source_refused")

    def test_a_refused_scheme_is_named(self, client: Trivet) -> None:
        self._fails(client, "file:///etc/passwd", "source_refused")

    def test_a_refused_connection_is_tried_again_and_then_fails(self, client: Trivet, live: Settings) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        assert f"127.0.0.1:{port}" not in live.allow_addresses
        self._fails(client, f"http://127.0.0.1:{port}/", "source_refused")

    def test_a_silent_source_times_out_and_is_tried_again(self, client: Trivet, source: Server) -> None:
        calls: list[float] = []

        def silent(connection: socket.socket) -> None:
            calls.append(time.monotonic())
            source.over.wait(5)

        source.pages["/silent"] = silent
        self._fails(client, source.url("/silent"), "source_unavailable")
        assert len(calls) == 3

    def test_an_unknown_model_is_a_permanent_error_and_never_another_model(
        self, client: Trivet, source: Server
    ) -> None:
        client.create_collection("nomodel", pipeline=Pipeline(model_id="some/other-model"))
        source.pages["/m"] = answer(b"Some text.", Content_Type="text/plain")
        self._fails(client, source.url("/m"), "model_unavailable", collection="nomodel")

    def test_bad_utf8_is_kept_and_receipted(self, client: Trivet, source: Server, live: Settings) -> None:
        body = b"Good words before. \xff\xfe\xfa And good words after. " * 5
        view = ingest(client, source, "/utf8", body, "text/plain; charset=utf-8", object_id="utf8")
        assert view.state is TaskState.COMPLETED, view
        manifest = read_manifest(open_store(live), Layout.of(live, "default", "docs"), "utf8", 1)
        assert manifest is not None
        assert manifest.receipt.skipped, "nothing is dropped in silence"

    def test_an_unknown_collection_is_refused_at_the_door(self, client: Trivet) -> None:
        with pytest.raises(UnknownCollection, match="trivet collections create nowhere"):
            client.ingest("https://example.com/", collection="nowhere")

    def test_the_rest_of_the_work_is_untouched(self, client: Trivet, source: Server) -> None:
        source.pages["/broken"] = _CONTENT["truncated PDF"][0]
        bad = [client.ingest(source.url("/broken"), collection="docs", object_id=f"b{n}") for n in range(3)]
        good = []
        for n in range(10):
            source.pages[f"/good{n}"] = answer(prose(n, 60).encode(), Content_Type="text/plain")
            good.append(client.ingest(source.url(f"/good{n}"), collection="docs"))
        assert {view.state for view in wait_for_all(client, [t.task_id for t in good])} == {TaskState.COMPLETED}
        assert {view.state for view in wait_for_all(client, [t.task_id for t in bad])} == {TaskState.FAILED}

    @staticmethod
    def _fails(client: Trivet, url: str, code: str, collection: str = "docs") -> None:
        task = client.ingest(url, collection=collection)
        view = task.wait(timeout=60)
        assert view.state is TaskState.FAILED, view
        assert view.error is not None
        assert (view.error.code, view.error.stage) == (code, "prepare")
        assert view.error.message.endswith(".")
        assert view.error.hint
        assert "Traceback" not in view.error.message
        assert terminal_events(client)[task.task_id] == ["failed"]
        events = [event for _, event in client.events(count=10_000) if event.data["task_id"] == task.task_id]
        assert events[-1].data["error"] == view.error.model_dump(mode="json")

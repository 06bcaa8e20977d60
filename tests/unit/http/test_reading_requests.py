"""What a request says, as the library's own values: extractors, blobs, cursors, preferences."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from producers.http.blobs import Blob, checked_url, source_of
from producers.http.buckets import KeptBucket, buckets
from producers.http.context import Context
from producers.http.described import example_of
from producers.http.documents import document_id, object_of
from producers.http.edge.reading import read_json
from producers.http.extractors import ExtractorRequest, pipeline_of, pipeline_of_all, slug
from producers.http.paging import cursor_from, cursor_to
from producers.http.waiting import preferred
from trivet.errors import InvalidRequest, SourceRefused, SourceTooLarge, UnknownResource
from trivet.fetch import fetch
from trivet.resources.memory import MemoryResources
from trivet.settings import Settings
from trivet.stores.memory import MemoryStore
from trivet.values import Chunking, Pipeline

#: Whatever JSON can say, and Python's parser reads as it was.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def asked(**given: Any) -> ExtractorRequest:
    return ExtractorRequest.model_validate(given)


class TestAnExtractor:
    @pytest.mark.parametrize(
        "given",
        [
            {"name": "text_embedding", "version": "v1", "params": {"model_id": "BAAI/bge-m3"}},
            {
                "feature_extractor_name": "text_extractor",
                "version": "v1",
                "parameters": {"embedding_model": "BAAI/bge-m3"},
            },
            {"name": "text_extractor", "parameters": {"extractor_type": "text_extractor", "model": "BAAI/bge-m3"}},
            {},
        ],
    )
    def test_is_the_same_in_every_spelling(self, given: dict[str, Any]) -> None:
        pipeline, notes = pipeline_of(asked(**given))
        assert pipeline.model_copy(update={"extractor": "text_embedding"}) == Pipeline()
        assert notes == ()

    @pytest.mark.parametrize(
        ("parameters", "chunking", "noted"),
        [
            ({"split_by": "none"}, Chunking(split_by="none"), 0),
            ({"split_by": "tokens", "chunk_size": 200}, Chunking(target_tokens=200, max_tokens=256), 0),
            ({"chunk_size": 200}, Chunking(target_tokens=200, max_tokens=256), 0),
            ({"split_by": "characters", "chunk_size": 1000}, Chunking(target_tokens=250, max_tokens=320), 1),
            (
                {"split_by": "words", "chunk_size": 100, "chunk_overlap": 10},
                Chunking(target_tokens=140, max_tokens=179),
                2,
            ),
            ({"split_by": "sentences"}, Chunking(), 1),
            ({"split_by": "markdown"}, Chunking(), 1),
            ({"chunk_overlap": 0, "response_shape": None}, Chunking(), 0),
            ({"response_shape": "a summary"}, Chunking(), 1),
        ],
    )
    def test_is_chunked_as_asked_or_says_what_is_done_in_its_place(
        self, parameters: dict[str, Any], chunking: Chunking, noted: int
    ) -> None:
        pipeline, notes = pipeline_of(asked(params=parameters))
        assert pipeline.chunking == chunking
        assert len(notes) == noted

    @given(
        size=st.integers(1, 10_000) | st.just(10**400),
        unit=st.sampled_from(["characters", "words", "sentences", "paragraphs", "pages"]),
    )
    def test_of_any_size_gives_a_chunking_that_can_be_carried_out(self, size: int, unit: str) -> None:
        made = pipeline_of(asked(params={"split_by": unit, "chunk_size": size}))[0].chunking
        assert 16 <= made.target_tokens <= made.max_tokens <= 8192

    @pytest.mark.parametrize(
        "given",
        [
            {"name": "face_extractor"},
            {"name": "text_extractor", "version": "v9"},
            {"parameters": {"extractor_type": "audio_fingerprint"}},
            {"params": {"split_by": "time_segments"}},
            {"params": {"chunk_size": "many"}},
            {"params": {"chunk_size": True}},
            {"params": {"split_by": []}},
            {"params": {"dtype": "fp4"}},
            {"params": {"outputs": {"colbert": "huge"}}},
        ],
    )
    def test_that_cannot_be_carried_out_is_refused(self, given: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequest):
            pipeline_of(asked(**given))

    def test_keeps_no_secret_that_is_of_no_use_here(self) -> None:
        given = asked(params={"llm_api_key": "sk-secret"}, parameters={"llm_api_key": "sk-secret"})
        assert "secret" not in given.model_dump_json()
        assert any("llm_api_key has no effect" in note for note in pipeline_of(given)[1])

    def test_needs_one_embedding_beside_any_others(self) -> None:
        both = [asked(name="text_embedding"), asked(name="language_extractor")]
        assert pipeline_of_all(both)[0].also == ("language_extractor",)
        for wrong in ([asked(name="language_extractor")], [asked(), asked()]):
            with pytest.raises(InvalidRequest, match="one text extractor"):
                pipeline_of_all(wrong)

    def test_names_its_model_in_uris_as_mixpeek_does(self) -> None:
        assert slug("BAAI/bge-m3") == "baai_bge_m3_v1"


@pytest.fixture
def context(settings: Settings) -> Context:
    return Context(settings, None, MemoryStore(), MemoryResources(), None)  # type: ignore[arg-type] # what is not given is not read  # neither is asked


class TestABlob:
    @pytest.mark.parametrize(
        ("given", "body", "media_type"),
        [
            ({"data": "Grüße & mehr"}, "Grüße & mehr".encode(), "text/plain"),
            ({"data": {"base64": "R3LDvMOfZQ", "mime_type": "text/markdown"}}, "Grüße".encode(), "text/markdown"),
            ({"data": "data:text/plain,a%20b"}, b"a b", None),
            ({"type": "pdf", "data": {"base64": "JVBERi0="}}, b"%PDF-", "application/pdf"),
            ({"data": "see https://example.com/ for more"}, b"see https://example.com/ for more", "text/plain"),
        ],
    )
    def test_with_content_is_what_a_worker_fetches(
        self, context: Context, tmp_path: Any, given: dict[str, Any], body: bytes, media_type: str | None
    ) -> None:
        source = source_of(context, "default", Blob(**given), "")
        fetched = fetch(context.settings, source.url, tmp_path / "source")
        assert (fetched.path.read_bytes(), source.media_type) == (body, media_type)

    @pytest.mark.parametrize(
        "given", [{"url": "https://h/a?b"}, {"data": "https://h/a?b"}, {"data": {"url": "https://h/a?b"}}]
    )
    def test_with_a_url_is_that_url(self, context: Context, given: dict[str, Any]) -> None:
        assert source_of(context, "default", Blob(**given), "").url == "https://h/a?b"

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "FILE:/etc/passwd", "upload://other/bkt_1/obj_1/0"])
    def test_names_no_file_and_no_upload_of_others(self, context: Context, url: str) -> None:
        for named in (Blob(url=url), Blob(data=url), Blob(data={"url": url})):
            with pytest.raises(SourceRefused):
                source_of(context, "default", named, "")
        with pytest.raises(SourceRefused):
            checked_url(f" {url}")

    @pytest.mark.parametrize(
        "url", ["fi\tle:///etc/passwd", "\x01file:///etc/passwd", "up\nload://other/bkt_1/obj_1/0"]
    )
    def test_names_none_in_a_way_that_a_fetch_reads_as_one_either(self, context: Context, url: str) -> None:
        for named in (Blob(url=url), Blob(data={"url": url})):
            with pytest.raises(SourceRefused):
                source_of(context, "default", named, "")

    @pytest.mark.parametrize("kind", [1, [], {"a": 1}, 1.5, True])
    @pytest.mark.parametrize("content", [{"url": "https://h/"}, {"base64": "YQ"}])
    def test_has_a_media_type_that_is_text(self, context: Context, content: dict[str, str], kind: Any) -> None:
        if kind:
            with pytest.raises(InvalidRequest, match="media type"):
                source_of(context, "default", Blob(data={**content, "mime_type": kind}), "")

    def test_that_is_large_lies_on_the_store_until_it_is_fetched(self, context: Context) -> None:
        source = source_of(context, "default", Blob(data="x" * 100_000), "bkt_1/obj_1/0")
        assert source.url == "upload://default/bkt_1/obj_1/0"
        assert [found.size for found in context.store.list("")] == [100_000]
        small = context.settings.model_copy(update={"source_max_bytes": 10})
        with pytest.raises(SourceTooLarge):
            source_of(Context(small, None, context.store, context.resources, None), "default", Blob(data="x" * 11), "")  # type: ignore[arg-type] # what is not given is not read

    @pytest.mark.parametrize("given", [{}, {"data": "a", "url": "https://h/"}, {"upload_id": "u", "data": "a"}])
    def test_has_one_content(self, given: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="one of data, url and upload_id"):
            Blob(**given)

    @pytest.mark.parametrize("data", ["", {"base64": "%%%"}, {"mime_type": "a/b"}])
    def test_without_content_is_refused(self, context: Context, data: Any) -> None:
        with pytest.raises(InvalidRequest):
            source_of(context, "default", Blob(data=data), "")


@given(name=st.text(max_size=20).filter(lambda text: "\x00" not in text), where=st.text(max_size=50))
def test_a_cursor_leads_back_to_its_place_and_to_no_place_in_another_list(name: str, where: str) -> None:
    try:
        cursor = cursor_to(name, where)
    except UnicodeEncodeError:
        return
    assert cursor_from(name, cursor) == where
    with pytest.raises(InvalidRequest):
        cursor_from(name + "x", cursor)


@given(st.text(min_size=1, max_size=60))
def test_what_is_no_cursor_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InvalidRequest, match="The cursor is not one of this list"):
        cursor_from("tasks", text)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        ("wait=5", 5),
        ("respond-async, wait=10", 10),
        ("wait=900", 60),
        ("wait=-1", 0),
        ("waits=3", 0),
        ("", 0),
    ],
)
def test_a_preference_to_wait_is_heeded_up_to_a_minute(prefer: str | None, seconds: float) -> None:
    assert asyncio.run(preferred(prefer)) == seconds


def test_a_documents_id_leads_to_its_object() -> None:
    chunk = "doc_" + "0" * 24
    assert object_of(document_id(chunk, "a.b~c@d+e-f")) == (chunk, "a.b~c@d+e-f")
    for wrong in ("", chunk, f"{chunk}.", "doc_x.obj", f"../{chunk}.o"):
        with pytest.raises(UnknownResource):
            object_of(wrong)


def test_an_example_fits_its_schema() -> None:
    schemas = {"Inner": {"type": "object", "properties": {"n": {"type": "integer"}, "made_at": {"type": "string"}}}}
    schema = {
        "properties": {
            "one": {"$ref": "#/components/schemas/Inner"},
            "many": {"type": "array", "items": {"$ref": "#/components/schemas/Inner"}},
            "state": {"enum": ["a", "b"]},
            "maybe": {"anyOf": [{"type": "string", "examples": ["x"]}, {"type": "null"}]},
            "free": {"type": "array", "items": {"type": "object"}},
        }
    }
    inner = {"n": 1, "made_at": "2026-03-01T12:00:00.000Z"}
    assert example_of(schema, schemas) == {"one": inner, "many": [inner], "state": "a", "maybe": "x", "free": []}


class TestABody:
    @pytest.mark.parametrize(
        "body",
        [
            '{"a": "\\ud800"}',
            '{"\\uDC00": 1}',
            '["\\ud83d", "\\ude00"]',
            '{"a": NaN}',
            "[-Infinity]",
            '{"a": [1e999]}',
            "[" * 130 + "]" * 130,
            '{"a":' * 130 + "1" + "}" * 130,
            "[" * 100_000,
        ],
    )
    def test_that_could_not_be_kept_is_refused_in_one_sentence(self, body: str) -> None:
        with pytest.raises(HTTPException) as refused:
            read_json(body.encode())
        assert refused.value.status_code == 400
        assert refused.value.detail.startswith("The body has ")

    @given(value=JSON)
    def test_of_anything_else_is_read_as_it_is(self, value: Any) -> None:
        assert read_json(json.dumps(value).encode()) == value
        assert read_json(json.dumps(value, ensure_ascii=False).encode()) == value

    def test_that_is_as_deep_as_may_be_is_kept_and_read_again(self, context: Context) -> None:
        value = read_json(b'{"a":' + b"[" * 127 + b"]" * 127 + b"}")
        made = KeptBucket(created_at=0, bucket_name="b", bucket_schema=value, metadata=value)
        shelf = buckets(context, "default")
        shelf.make("bkt_1", made)
        assert shelf.get("bkt_1") == ("bkt_1", made)

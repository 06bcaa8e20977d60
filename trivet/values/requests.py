"""What is asked for: pipelines, the model they resolve to, collections, ingest requests."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from trivet.errors import InvalidRequest
from trivet.ids import canonical_url, check_name, check_object_id, digest
from trivet.names import Lane
from trivet.values.base import Frozen


class Chunking(Frozen):
    """How text is cut, in the model's own tokens, prompt and special tokens counted."""

    split_by: Literal["tokens", "none"] = "tokens"
    target_tokens: int = Field(400, ge=16, le=8192)
    max_tokens: int = Field(512, ge=32, le=8192)
    #: Put the heading path before the text that is embedded (stored apart from it, as `context`).
    heading_context: bool = True


class Outputs(Frozen):
    """Which legs are stored, and how: docs/colbert-options.md has what each option costs and saves."""

    dense: bool = True
    sparse: bool = True
    #: Numbers of a token vector: float16, or int8 with one scale per token.
    colbert: Literal["off", "float16", "int8"] = "float16"
    #: How many tokens share a vector, about: similar ones are clustered. 1 keeps a vector per token.
    colbert_pooling: int = Field(1, ge=1, le=16)
    #: Keep the first so many numbers of each vector, and normalise again; None keeps all.
    colbert_dimensions: int | None = Field(None, ge=1)
    #: How float16 lies in Parquet: opaque bytes per token, or a list of numbers, which writes 10 to 40 times slower.
    colbert_layout: Literal["binary", "list"] = "binary"
    #: As colbert_dimensions, of the dense vector. bge-m3 was not trained for it.
    dense_dimensions: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _of_stored_legs(self) -> Self:
        shaped = self.colbert_pooling > 1 or self.colbert_dimensions is not None or self.colbert_layout != "binary"
        if self.colbert == "off" and shaped:
            raise ValueError("colbert is off, so that it can have no pooling, dimensions or layout")
        if self.colbert == "int8" and self.colbert_layout == "list":
            raise ValueError("the layout list is for float16, not for int8")
        if not self.dense and self.dense_dimensions is not None:
            raise ValueError("dense is off, so that it can have no dimensions")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What older versions do not know is written only where it says something: so that specs keep the hash that
        # they are stored under, and an older worker takes those that it can carry out, and leaves the others.
        written: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {name: value for name, value in written.items() if name in _FIRST or value != fields[name].default}


#: Fields of `Outputs` that every version has written.
_FIRST = ("dense", "sparse", "colbert")


class Pipeline(Frozen):
    """What a collection asks for; a task keeps its own frozen copy."""

    extractor: Literal["text_embedding", "text_extractor"] = "text_embedding"
    version: Literal["v1"] = "v1"
    model_id: str = Field("BAAI/bge-m3", min_length=1, max_length=200)
    #: Hub revision; empty means the one that Trivet pins for the model.
    revision: str = Field("", max_length=80)
    dtype: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    chunking: Chunking = Chunking()
    outputs: Outputs = Outputs()
    #: Names in `trivet.extractors.EXTRACTORS`: what is said of every chunk alongside its embedding.
    also: tuple[str, ...] = Field((), max_length=10)

    @field_validator("also")
    @classmethod
    def _extractors(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from trivet.extractors import check_extractors

        try:
            return check_extractors(value)
        except InvalidRequest as error:
            raise ValueError(str(error)) from None

    @property
    def encoder_wish(self) -> str:
        """What decides which encoders may take a task; the ledger's scripts say it in the same words."""
        revision = f"@{self.revision}" if self.revision else ""
        return self.model_id + revision + ("" if self.dtype == "auto" else f" in {self.dtype}")

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As for `Outputs`: specs without it keep the hash that they are stored under.
        written: dict[str, Any] = handler(self)
        return written if self.also else {name: value for name, value in written.items() if name != "also"}


class ModelIdentity(Frozen):
    """The model that runs: what a requested `model_id` resolved to. Needs no weights to be known."""

    #: What the pipeline asked for.
    requested: str
    #: What it is: the hub id, or the name that its own `trivet_model.json` gives.
    name: str
    revision: str
    #: 16 hex digits over name, revision, config, tokenizer and pooling: the ledger's encoder key.
    encoder_key: str
    #: Dense dimensions.
    dimensions: int
    colbert_dimensions: int
    #: Longest input in tokens, special tokens counted.
    max_tokens: int
    pooling: Literal["cls", "mean"]
    passage_prompt: str = ""
    query_prompt: str = ""


class Spec(Frozen):
    """The frozen pipeline of a task with the model it resolved to; stored as `specs/{hash}.json`."""

    pipeline: Pipeline
    model: ModelIdentity

    @property
    def hash(self) -> str:
        """16 hex digits over everything that changes what is stored."""
        return digest(
            [self.pipeline.model_dump(mode="json"), self.model.model_dump(mode="json", exclude={"requested"})]
        )

    @property
    def dense_width(self) -> int:
        """Numbers of a dense vector as it is stored."""
        return self.pipeline.outputs.dense_dimensions or self.model.dimensions

    @property
    def colbert_width(self) -> int:
        """Numbers of a ColBERT vector as it is stored."""
        return self.pipeline.outputs.colbert_dimensions or self.model.colbert_dimensions

    @classmethod
    def freeze(cls, pipeline: Pipeline, model: ModelIdentity) -> Self:
        """The spec of a new task. Raises `InvalidRequest` where more dimensions are asked for than the model has."""
        spec = cls(pipeline=pipeline, model=model)
        for leg, asked, has in (
            ("dense", spec.dense_width, model.dimensions),
            ("colbert", spec.colbert_width, model.colbert_dimensions),
        ):
            if asked > has:
                raise InvalidRequest(
                    f"The collection asks for {leg}_dimensions {asked}, and {model.name} has {has}.",
                    hint=f"Create one with {leg}_dimensions of at most {has}.",
                )
        return spec


class Collection(Frozen):
    """A named set of objects with one pipeline."""

    namespace: str
    name: str
    pipeline: Pipeline = Pipeline()

    @field_validator("namespace", "name")
    @classmethod
    def _names(cls, value: str) -> str:
        return check_name(value, "Name")


class IngestRequest(Frozen):
    """One source to ingest; the message of the Celery task `trivet.accept` is this as JSON."""

    url: str = Field(min_length=1, max_length=1_000_000)
    collection: str
    namespace: str = "default"
    object_id: str | None = None
    idempotency_key: str | None = Field(None, min_length=1, max_length=255)
    lane: Lane = Lane.NORMAL
    #: Copied to every chunk.
    metadata: dict[str, Any] = Field(default_factory=dict)
    #: Overrides the type that the source states, e.g. `text/markdown`.
    media_type: str | None = Field(None, max_length=100)

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        canonical_url(value)
        return value.strip()

    @field_validator("namespace", "collection")
    @classmethod
    def _names(cls, value: str) -> str:
        return check_name(value, "Name")

    @field_validator("object_id")
    @classmethod
    def _object_id(cls, value: str | None) -> str | None:
        return value if value is None else check_object_id(value)

    def fingerprint(self) -> str:
        """Equal for requests that mean the same; what an idempotency key is held against."""
        return digest(self.model_dump(mode="json", exclude={"idempotency_key"}), 32)

"""What is asked for: pipelines, the model they resolve to, collections, ingest requests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

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
    """Which legs are stored, and how ColBERT is."""

    dense: bool = True
    sparse: bool = True
    colbert: Literal["off", "float16"] = "float16"


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

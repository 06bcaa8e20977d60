"""The frozen values that stages hand to one another, and their JSON forms.

Pydantic models cross a process or network border and are validated; slotted dataclasses stay inside one process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trivet.ids import canonical_json, canonical_url, check_name, check_object_id, digest
from trivet.names import Lane, Stage


class Frozen(BaseModel):
    """Base of the values that cross a border: immutable, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- what is asked for


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
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
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


# ---------------------------------------------------------------- what becomes of it


class TaskState(StrEnum):
    """Where a task stands; the last five are terminal."""

    WAITING = "waiting"  # another task of the same object is active
    QUEUED = "queued"
    PREPARING = "preparing"
    EMBEDDING = "embedding"
    COMMITTING = "committing"
    COMPLETED = "completed"
    SKIPPED = "skipped"  # content and spec unchanged
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"  # a newer task of the same object took its place

    @property
    def terminal(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    {TaskState.COMPLETED, TaskState.SKIPPED, TaskState.FAILED, TaskState.CANCELLED, TaskState.SUPERSEDED}
)


class ErrorRecord(Frozen):
    """An error as tasks, events and the CLI show it."""

    code: str
    message: str
    hint: str = ""
    stage: str = ""
    transient: bool = False


class Skipped(Frozen):
    """Something of a document that was not embedded, and why."""

    what: str
    reason: str
    count: int = 1


class Receipt(Frozen):
    """What became of every page and token of one object. Nothing is dropped in silence."""

    media_type: str = ""
    source_bytes: int = 0
    source_sha256: str = ""
    pages: int = 0
    pages_empty: int = 0
    characters: int = 0
    chunks: int = 0
    tokens_seen: int = 0
    tokens_embedded: int = 0
    tokens_reused: int = 0
    tokens_truncated: int = 0
    skipped: tuple[Skipped, ...] = ()


class Passport(Frozen):
    """How the parts of a generation were made."""

    requested_model: str
    model: str
    revision: str
    encoder_key: str
    #: File name → SHA-256 of the weights, heads, tokenizer and config that ran.
    checksums: dict[str, str] = Field(default_factory=dict)
    #: What the model says about itself (source, licence, how its heads were made).
    provenance: str = ""
    dtype: str
    device: str
    backend: str
    library_versions: dict[str, str] = Field(default_factory=dict)
    #: Largest absolute difference to fp32 on the model's canary texts, where it was measured.
    parity: float | None = None


class Part(Frozen):
    """One committed Parquet file."""

    shard: int
    key: str
    sha256: str
    bytes: int
    rows: int
    tokens: int
    #: Hash over the part's inputs: chunk texts, contexts and spec.
    input_hash: str


class Manifest(Frozen):
    """What a generation consists of; readers go through it and nothing else."""

    schema_version: Literal[1] = 1
    namespace: str
    collection: str
    object_id: str
    generation: int
    task_id: str
    run: int
    #: Redacted.
    source_url: str
    source_sha256: str
    spec_hash: str
    input_hash: str
    created_at: str
    tombstone: bool = False
    parts: tuple[Part, ...] = ()
    receipt: Receipt = Receipt()
    passports: tuple[Passport, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)


class Current(Frozen):
    """`current.json`: the generation that readers see."""

    schema_version: Literal[1] = 1
    generation: int
    manifest: str
    task_id: str
    input_hash: str
    source_sha256: str
    spec_hash: str
    tombstone: bool = False


class TaskView(Frozen):
    """A task as anyone may see it."""

    task_id: str
    namespace: str
    collection: str
    object_id: str
    #: Redacted.
    url: str
    state: TaskState
    lane: Lane
    run: int = 1
    created_at: float
    updated_at: float
    generation: int | None = None
    shards: int = 0
    shards_done: int = 0
    tokens: int = 0
    tokens_done: int = 0
    pages: int = 0
    chunks: int = 0
    manifest_key: str | None = None
    error: ErrorRecord | None = None
    #: One sentence: what it waits for, or what comes next.
    reason: str = ""


class Event(Frozen):
    """A CloudEvent 1.0; `data` has the task's id, object, state, generation, figures and error."""

    model_config = ConfigDict(frozen=True, extra="allow")

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    data: dict[str, Any]


# ---------------------------------------------------------------- inside a process


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a document: `level` 1 to 6, `start` the offset of its first character in the text."""

    level: int
    title: str
    start: int


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a document: `number` from 1, `[start, end)` in the text."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed source: one text, and where its headings and pages lie in it.

    Headings and pages are in order; headings are part of the text. All offsets count Unicode code points.
    """

    text: str
    media_type: str
    title: str = ""
    headings: tuple[Heading, ...] = ()
    pages: tuple[Page, ...] = ()
    pages_empty: int = 0
    skipped: tuple[Skipped, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document, ready for the encoder. `text == document.text[char_start:char_end]`."""

    chunk_id: str
    ordinal: int
    text: str
    #: Heading path as it was put before the text, or empty.
    context: str
    heading_path: tuple[str, ...]
    page_start: int | None
    page_end: int | None
    char_start: int
    char_end: int
    language: str | None
    #: Ids of prompt + context + text with special tokens, as the encoder sees them.
    token_ids: tuple[int, ...]

    @property
    def token_count(self) -> int:
        """Tokens that the encoder computes for this chunk."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Lease:
    """A work item that is ours until its deadline, or until the ledger says otherwise."""

    task_id: str
    stage: Stage
    #: Shard number; 0 for prepare and commit.
    n: int
    #: Fencing number: every script refuses an older one.
    epoch: int
    #: Tokens for embed, estimated bytes for prepare.
    cost: int
    #: Leased with no other item: an expiry is charged.
    alone: bool
    namespace: str
    collection: str
    object_id: str
    #: Errors charged so far.
    attempts: int = 0
    #: What the stage needs to know, as it was put there by the stage before.
    payload: str = ""

    @property
    def item(self) -> str:
        """The work item's id in the ledger."""
        return f"{self.task_id}/{self.stage}/{self.n}"


def dump(value: BaseModel) -> str:
    """Canonical JSON of a value."""
    return canonical_json(value.model_dump(mode="json"))

"""What becomes of it: task states, errors, receipts, passports, manifests, events."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import ConfigDict, Field

from trivet.ids import digest
from trivet.names import Lane, Stage, TaskKind
from trivet.values.base import Frozen


class TaskState(StrEnum):
    """Where a task stands; the last six are terminal."""

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
    DELETED = "deleted"  # a tombstone hides the object

    @property
    def terminal(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in _TERMINAL


_TERMINAL = frozenset(
    {
        TaskState.COMPLETED,
        TaskState.SKIPPED,
        TaskState.FAILED,
        TaskState.CANCELLED,
        TaskState.SUPERSEDED,
        TaskState.DELETED,
    }
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


class Numerics(Frozen):
    """What an encoder loses against plain fp32 on the canary texts, one text in each of ten scripts.

    Scores are those of all ordered pairs of different texts, both encoded alike.
    """

    #: Cosine between the two dense vectors of a text.
    dense_cosine_min: float
    dense_cosine_mean: float
    #: Terms that both sides have ÷ terms that either has.
    sparse_jaccard_min: float
    sparse_jaccard_mean: float
    #: Largest absolute difference of a term's weight; a term that one side lacks weighs 0 there.
    sparse_weight_gap: float
    #: Largest absolute difference of a ColBERT score (MaxSim ÷ number of query vectors).
    maxsim_gap: float
    #: Spearman's correlation of each leg's scores.
    rank_dense: float
    rank_sparse: float
    rank_colbert: float
    #: It is outside of its dtype's tolerance, and runs because a setting says so.
    forced: bool = False


class Passport(Frozen):
    """How some parts of a generation were made; each part names its own by digest."""

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
    #: The same comparison leg by leg; absent where it was not measured.
    numerics: Numerics | None = None

    @property
    def digest(self) -> str:
        """16 hex digits of SHA-256 over its canonical JSON: what the parts that were made so name."""
        # Parts that were made before there were numerics name a digest without them.
        return digest(self.model_dump(mode="json", exclude=None if self.numerics else {"numerics"}))


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
    #: `Passport.digest` of the encoder that made it, or empty where the file does not say.
    passport: str = ""


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
    kind: TaskKind = TaskKind.INGEST
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


class ItemView(Frozen):
    """One work item as it stands."""

    stage: Stage
    n: int
    #: pending, leased, due (after an error) or parked (while its collection or namespace is paused).
    state: str
    #: Where it waits: an encoder key, or what the pipeline asks for.
    queue: str
    #: pending: items of its lane and namespace that stand before it.
    ahead: int | None = None
    #: leased: who has it, and the seconds until the lease must be renewed.
    worker: str | None = None
    lease_seconds: float | None = None
    #: due: seconds until it is tried again.
    retry_seconds: float | None = None
    attempts: int = 0
    expiries: int = 0
    #: A worker died with it: it is leased with few others next, or alone.
    suspect: bool = False


class Waiting(Frozen):
    """Why a task is where it is, and what comes next."""

    task_id: str
    state: TaskState
    lane: Lane
    #: One sentence each.
    reason: str
    next_step: str
    #: Open work items by state; the first of them in detail.
    items: dict[str, int] = Field(default_factory=dict)
    first: tuple[ItemView, ...] = ()
    #: Items of all namespaces that wait at the same stage.
    waiting_at_stage: int = 0


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

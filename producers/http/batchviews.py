"""What is asked of batches, and how they are shown."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from producers.http.answers import Status


class BatchRequest(BaseModel):
    """A new batch."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"example": {"object_ids": ["obj_0123456789abcdef0123"]}}
    )

    object_ids: list[str] | None = Field(None, max_length=10_000, description="All of the bucket where none are named.")
    collection_ids: list[str] | None = Field(None, max_length=100)
    batch_name: str | None = Field(None, max_length=256)
    auto_submit: StrictBool | None = None
    trigger_processing: StrictBool | None = None
    filters: dict[str, Any] | None = None


class SubmitRequest(BaseModel):
    """Which collections take it in; where none are named, all that have the bucket as their source."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"example": {}})

    collection_ids: list[str] | None = Field(None, max_length=100)


class BatchAnswer(BaseModel):
    """A batch."""

    batch_id: str = Field(examples=["btch_0123456789ab"])
    bucket_id: str
    batch_name: str | None = None
    status: Status
    type: str = "BUCKET"
    object_ids: list[str]
    object_count: int
    collection_ids: list[str]
    task_id: str | None = None
    counts: dict[str, int] = Field(description="Its tasks by state.")
    progress: dict[str, Any]
    failed_object_count: int
    created_at: str
    total_tiers: int = 1
    current_tier: int = 0
    #: What Mixpeek's engine counts and this one has no need of: a worker's death is taken over at once.
    max_node_death_resubmits: int = 0
    max_deploy_resubmits: int = 0
    lifecycle: str | None = None
    lifecycle_reason: str | None = None
    warnings: list[str]


class AuditAnswer(BaseModel):
    """Whether every object of a batch is accounted for."""

    batch_id: str
    status: Status
    all_balanced: bool
    has_lost_objects: bool
    total_objects: int
    counts: dict[str, int]
    lost_object_ids: list[str]


class FailedDocument(BaseModel):
    """An object that failed, and why."""

    object_id: str
    collection_id: str
    task_id: str | None = None
    error: str
    error_type: str
    stage: str | None = None
    retryable: bool


class FailedAnswer(BaseModel):
    """What failed."""

    batch_id: str
    results: list[FailedDocument]
    failed_documents: list[FailedDocument]
    total: int
    limit: int
    offset: int

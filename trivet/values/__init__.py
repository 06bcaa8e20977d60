"""The frozen values that stages hand to one another, and their JSON forms.

Pydantic models cross a process or network border and are validated; slotted dataclasses stay inside one process.
"""

from __future__ import annotations

from trivet.values.base import Frozen, dump
from trivet.values.documents import Chunk, Document, Heading, Lease, Page
from trivet.values.outcomes import (
    Current,
    ErrorRecord,
    Event,
    ItemView,
    Manifest,
    Numerics,
    Part,
    Passport,
    Receipt,
    Skipped,
    TaskState,
    TaskView,
    Waiting,
)
from trivet.values.requests import Chunking, Collection, IngestRequest, ModelIdentity, Outputs, Pipeline, Spec

__all__ = [
    "Chunk",
    "Chunking",
    "Collection",
    "Current",
    "Document",
    "ErrorRecord",
    "Event",
    "Frozen",
    "Heading",
    "IngestRequest",
    "ItemView",
    "Lease",
    "Manifest",
    "ModelIdentity",
    "Numerics",
    "Outputs",
    "Page",
    "Part",
    "Passport",
    "Pipeline",
    "Receipt",
    "Skipped",
    "Spec",
    "TaskState",
    "TaskView",
    "Waiting",
    "dump",
]

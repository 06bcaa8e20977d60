"""What stages hand to one another inside a process: documents, chunks, leases."""

from __future__ import annotations

from dataclasses import dataclass, field

from trivet.names import Stage
from trivet.values.outcomes import Skipped


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
    #: A worker has died with it: nothing that is no suspect is leased beside it.
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

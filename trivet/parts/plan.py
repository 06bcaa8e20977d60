"""The sealed plan: what `prepare` made of a source, fixed before anything is embedded.

Whoever writes `plan.json` first decides; a second run of prepare, with whatever it fetched or parsed, adopts it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError

from trivet.errors import NotInStore, StoreConflict, StoreDamaged, StoreUnavailable
from trivet.faults import fault as default_fault
from trivet.ids import digest
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.values import Chunk, Frozen, Part, Receipt, Spec, dump


def source_key(source_sha256: str, stated_type: str) -> str:
    """What stands for a source in the keys of its plan and shards: its SHA-256, and a suffix where the caller said
    what type it is, since the same bytes parsed as another type are other chunks.
    """
    stated = stated_type.strip().lower()
    return f"{source_sha256}.{digest(stated, 8)}" if stated else source_sha256


class StagedShard(Frozen):
    """Some chunks of one object, staged together with their token ids."""

    #: Number from 0, in the order of the document.
    shard: int = Field(ge=0)
    key: str
    sha256: str
    bytes: int
    rows: int
    #: What the encoder will compute for it.
    tokens: int
    #: Over chunk texts, contexts and spec; part of the keys of shard and part.
    input_hash: str


class Plan(Frozen):
    """`plan.json`: the shards of one source under one spec, and what became of every page and token so far."""

    schema_version: Literal[1] = 1
    object_id: str
    source_sha256: str
    spec_hash: str
    media_type: str
    #: The type that the caller stated over all others, or empty. Part of the plan's key.
    stated_type: str = ""
    title: str = ""
    pages: int = 0
    shards: tuple[StagedShard, ...] = ()
    #: `tokens_embedded` and `tokens_reused` are for the commit to fill in.
    receipt: Receipt = Receipt()
    #: Where the bytes as fetched lie, or empty where they are not kept.
    raw_key: str = ""
    #: What the parser found out about the document (author, language, …).
    metadata: dict[str, str] = Field(default_factory=dict)

    @property
    def source_key(self) -> str:
        """What stands for the source in the keys of this plan and its shards."""
        return source_key(self.source_sha256, self.stated_type)

    @property
    def tokens(self) -> int:
        """What the encoder computes for all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def rows(self) -> int:
        """Chunks of all shards."""
        return sum(shard.rows for shard in self.shards)


def input_hash(chunks: Sequence[Chunk], spec: Spec) -> str:
    """16 hex digits over what decides a part: the chunks' ids, contexts and texts, and the spec. Never outputs."""
    return digest([spec.hash, [[chunk.chunk_id, chunk.context, chunk.text] for chunk in chunks]])


def generation_hash(spec_hash: str, source: str, hashes: Sequence[str], metadata: Mapping[str, Any]) -> str:
    """16 hex digits over the inputs of a generation: spec, source key, the parts' input hashes, the caller's metadata.

    The same inputs again are no new generation.
    """
    return digest([spec_hash, source, list(hashes), dict(metadata)])


def parts_hash(spec_hash: str, source: str, parts: Sequence[Part], metadata: Mapping[str, Any]) -> str:
    """`generation_hash` of committed parts, in the order of their shards."""
    ordered = sorted(parts, key=lambda part: part.shard)
    return generation_hash(spec_hash, source, [part.input_hash for part in ordered], metadata)


def planned_hash(plan: Plan, metadata: Mapping[str, Any]) -> str:
    """`generation_hash` of what this plan will become."""
    hashes = [shard.input_hash for shard in sorted(plan.shards, key=lambda shard: shard.shard)]
    return generation_hash(plan.spec_hash, plan.source_key, hashes, metadata)


def load_plan(store: ObjectStore, layout: Layout, object_id: str, source: str, spec_hash: str) -> Plan | None:
    """The sealed plan of this content under this spec, or None where there is none; `source` is its `source_key`.

    Raises `StoreDamaged`.
    """
    key = layout.plan(object_id, source, spec_hash)
    try:
        body, _ = store.get(key)
    except NotInStore:
        return None
    try:
        return Plan.model_validate_json(body)
    except ValidationError:
        raise StoreDamaged(f"The plan {key!r} cannot be read.", hint="Remove it and run the task again.") from None


def seal_plan(
    store: ObjectStore, layout: Layout, plan: Plan, *, fault: Callable[[str], None] = default_fault
) -> tuple[Plan, bool]:
    """Seal the plan: the first seal wins. Returns the plan that holds, and whether it is this one.

    All shards must be staged before. A lost answer is read back, so sealing again is harmless.
    """
    body = dump(plan).encode()
    fault("prepare.before_seal")
    try:
        store.put(
            layout.plan(plan.object_id, plan.source_key, plan.spec_hash),
            body,
            if_none_match=True,
            sha256=hashlib.sha256(body).hexdigest(),
        )
    except (StoreConflict, StoreUnavailable) as error:
        fault("prepare.before_seal_read_back")
        sealed = load_plan(store, layout, plan.object_id, plan.source_key, plan.spec_hash)
        if sealed is None:
            # A 409 whose winner failed, or a write that never arrived: nothing is sealed yet.
            raise StoreUnavailable(f"The plan of {plan.object_id!r} could not be sealed: {error}") from None
        return sealed, sealed == plan
    fault("prepare.after_seal")
    return plan, True

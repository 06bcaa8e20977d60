"""The names of all keys on S3, and nothing else does: everything here is a pure function.

{prefix}/ledger.json                                      which ledger belongs to all this
{prefix}/{namespace}/_uploads/{name}                      what was sent to an API, until it is ingested
{prefix}/{namespace}/{collection}/
    collection.json                                       its pipeline, as the ledger last had it
    specs/{spec_hash}.json
    staged/{task_id}.json                                 a task that is staged, for a ledger that has lost it
    intents/{task_id}.json                                a task that is only accepted (setting `durable_accept`)
    objects/{object_id}/
        current.json                                      the visible generation
        raw/{source_sha256}                               the bytes as fetched
        plan/{source_sha256}-{spec_hash}/plan.json        seals the staged shards
        plan/{source_sha256}-{spec_hash}/{n}-{inputhash}.parquet
        g/{generation}/part-{n}-{inputhash}.parquet
        g/{generation}/manifest.json
    snapshot.json
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trivet.settings import Settings

_GENERATION = re.compile(r"/g/([1-9][0-9]{0,17})/")
_OBJECT = re.compile(r"/objects/([^/]+)/")


def top(settings: Settings) -> str:
    """Prefix of all namespaces: empty, or with a slash at its end."""
    prefix = settings.s3_prefix.strip("/")
    return f"{prefix}/" if prefix else ""


def ledger_mark(settings: Settings) -> str:
    """What says which ledger belongs to all this."""
    return f"{top(settings)}ledger.json"


def uploads(settings: Settings, namespace: str) -> str:
    """Prefix of what was sent to an API. No collection's name begins with an underscore."""
    return f"{top(settings)}{namespace}/_uploads/"


def upload_key(settings: Settings, namespace: str, name: str) -> str:
    """One upload."""
    return uploads(settings, namespace) + name


@dataclass(frozen=True, slots=True)
class Layout:
    """Key names of one collection. `prefix` is the settings' `s3_prefix`; empty puts namespaces at the top."""

    prefix: str
    namespace: str
    collection: str

    @classmethod
    def of(cls, settings: Settings, namespace: str, collection: str) -> Layout:
        """The layout under the settings' prefix."""
        return cls(settings.s3_prefix.strip("/"), namespace, collection)

    @property
    def root(self) -> str:
        """Folder of the collection, without a slash at its end."""
        return "/".join(part for part in (self.prefix, self.namespace, self.collection) if part)

    def collection_record(self) -> str:
        """The collection's pipeline, as the ledger last had it."""
        return f"{self.root}/collection.json"

    def staged_records(self) -> str:
        """Prefix of what is remembered of staged tasks."""
        return f"{self.root}/staged/"

    def staged_record(self, task_id: str) -> str:
        """What is remembered of one staged task."""
        return f"{self.staged_records()}{task_id}.json"

    def intents(self) -> str:
        """Prefix of what is remembered of tasks that are only accepted."""
        return f"{self.root}/intents/"

    def intent(self, task_id: str) -> str:
        """One request, with its full URL."""
        return f"{self.intents()}{task_id}.json"

    def spec(self, spec_hash: str) -> str:
        """A frozen pipeline with the model that it resolved to."""
        return f"{self.root}/specs/{spec_hash}.json"

    def snapshot(self) -> str:
        """All committed parts, as the sweeper last saw them."""
        return f"{self.root}/snapshot.json"

    def objects(self) -> str:
        """Prefix of all objects."""
        return f"{self.root}/objects/"

    def object(self, object_id: str) -> str:
        """Prefix of everything that belongs to one object."""
        return f"{self.objects()}{object_id}/"

    def current(self, object_id: str) -> str:
        """Which generation readers see."""
        return f"{self.object(object_id)}current.json"

    def raw(self, object_id: str, source_sha256: str) -> str:
        """The bytes as fetched."""
        return f"{self.object(object_id)}raw/{source_sha256}"

    def plans(self, object_id: str, source_sha256: str, spec_hash: str) -> str:
        """Prefix of what was staged for this content under this spec."""
        return f"{self.object(object_id)}plan/{source_sha256}-{spec_hash}/"

    def plan(self, object_id: str, source_sha256: str, spec_hash: str) -> str:
        """The seal."""
        return f"{self.plans(object_id, source_sha256, spec_hash)}plan.json"

    def staged(self, object_id: str, source_sha256: str, spec_hash: str, shard: int, input_hash: str) -> str:
        """One staged shard. Its hash is in its name, so that two stagers that disagree never touch the same key."""
        return f"{self.plans(object_id, source_sha256, spec_hash)}{shard}-{input_hash}.parquet"

    def generations(self, object_id: str) -> str:
        """Prefix of all generations."""
        return f"{self.object(object_id)}g/"

    def generation(self, object_id: str, generation: int) -> str:
        """Prefix of one generation."""
        return f"{self.generations(object_id)}{generation}/"

    def part(self, object_id: str, generation: int, shard: int, input_hash: str) -> str:
        """One Parquet file of a generation."""
        return f"{self.generation(object_id, generation)}part-{shard}-{input_hash}.parquet"

    def manifest(self, object_id: str, generation: int) -> str:
        """What a generation consists of."""
        return f"{self.generation(object_id, generation)}manifest.json"

    def generation_of(self, key: str) -> int | None:
        """The generation that a key (or a listed folder) under an object belongs to, or None."""
        found = _GENERATION.search(key, len(self.objects()))
        return int(found[1]) if found else None

    def object_of(self, key: str) -> str | None:
        """The object that a key (or a listed folder) belongs to, or None."""
        found = _OBJECT.match(key, len(self.root))
        return found[1] if found else None

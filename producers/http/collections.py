"""Collections as the API keeps them: beside the ledger's own record, what that has no use for."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

from pydantic import Field

from producers.http.caller import Caller
from producers.http.context import Context
from producers.http.extractors import ExtractorRequest, pipeline_of_all
from producers.http.kept import Kept, Shelf
from producers.http.naming import collection_id, collection_named
from trivet.errors import AlreadyExists, Conflict, Forbidden
from trivet.extractors import EXTRACTORS
from trivet.ids import check_name
from trivet.keys import Scope
from trivet.stores.layout import Layout
from trivet.values import Collection, Pipeline, TaskState

_OPEN = tuple(state for state in TaskState if not state.terminal)


class KeptCollection(Kept):
    """What a request said of a collection, but for the pipeline."""

    name: str
    description: str | None = None
    bucket_ids: tuple[str, ...] = ()
    extractors: tuple[ExtractorRequest, ...] = (ExtractorRequest(),)
    metadata: dict[str, Any] = Field(default_factory=dict)
    enabled: bool = True
    #: What is carried out otherwise than asked.
    notes: tuple[str, ...] = ()


def shelf(context: Context, namespace: str) -> Shelf[KeptCollection]:
    """Those of a namespace."""
    return Shelf(context, namespace, "collection", KeptCollection)


def kept_of(context: Context, namespace: str, collection: Collection) -> KeptCollection:
    """What is kept of a collection; of one that was made elsewhere, what follows from its pipeline."""
    found = shelf(context, namespace).find(collection_id(namespace, collection.name))
    if found is not None:
        return found[1]
    pipeline = collection.pipeline
    extractor = ExtractorRequest(name=pipeline.extractor, params={"model_id": pipeline.model_id})
    also = (ExtractorRequest(name=name) for name in pipeline.also)
    return KeptCollection(created_at=0.0, name=collection.name, extractors=(extractor, *also))


def enabled(context: Context, collection: Collection) -> KeptCollection:
    """What is kept of a collection that takes something in. Raises `Conflict` where it is not enabled."""
    kept = kept_of(context, collection.namespace, collection)
    if not kept.enabled:
        raise Conflict(f"Collection {collection.name!r} is not enabled.", hint='PATCH it with {"enabled": true}.')
    return kept


def make_collection(
    context: Context, namespace: str, value: KeptCollection, pipeline: Pipeline, *, again: bool
) -> Collection:
    """Make a collection. `again`: the request may be a repeated one, and finds what it made.

    Raises `AlreadyExists`.
    """
    name = check_name(value.name, "Collection")
    taken = AlreadyExists(f"A collection called {name!r} exists already.", hint="Use it, or another name.")
    kept, new = shelf(context, namespace).make(collection_id(namespace, name), value, name=name)
    # One that died here is gone on with; whoever else came in between has the name.
    same = kept.model_copy(update={"created_at": value.created_at}) == value
    if not new and not same:
        raise taken
    collection = Collection(namespace=namespace, name=name, pipeline=pipeline)
    if context.ledger.put_collection(collection, replace=False) or again:
        return collection_named(context, namespace, name)
    if new:
        shelf(context, namespace).delete(collection_id(namespace, name))
    raise taken


def agree(context: Context, who: Caller, collection: Collection, asked: list[ExtractorRequest]) -> Collection:
    """The collection, with the pipeline that an ingest request names.

    One that has no objects yet takes it over, where the caller may change collections; one that has some stays as it
    is. Raises `Conflict`, `Forbidden`.
    """
    if not asked:
        return collection
    pipeline, _ = pipeline_of_all(asked)
    given: dict[str, Any] = {}
    for one in asked:
        if one.name not in EXTRACTORS:
            given = one.asked()
    wanted = {
        name: getattr(pipeline, name)
        for name, words in _WORDS.items()
        if any(given.get(word) is not None for word in words)
    }
    if pipeline.also:
        wanted["also"] = pipeline.also

    def change(was: Pipeline) -> Pipeline:
        made = was.model_copy(update=wanted)
        if made != was and not who.may(Scope.MANAGE):
            names = ", ".join(name for name in wanted if getattr(made, name) != getattr(was, name))
            raise Forbidden(
                f"The request would change {names} of collection {collection.name!r}, and this API key has not the "
                "scope manage.",
                hint="Leave its parameters out, or ask whoever manages the collection.",
            )
        return made

    return change_pipeline(context, collection, change, empty=True)


def say(context: Context, was: Collection, collection: Collection, asked: Sequence[ExtractorRequest]) -> None:
    """Show with a collection what an ingest request has made of it.

    Once its source is accepted, and no sooner: until then another request may change it again.
    """
    if collection.pipeline == was.pipeline:
        return
    changed = {name for name in _WORDS if getattr(was.pipeline, name) != getattr(collection.pipeline, name)}
    extractors = _said(kept_of(context, was.namespace, was).extractors, asked, changed, collection.pipeline)
    keep(context, collection, {"extractors": extractors, "notes": pipeline_of_all(asked)[1]})


def _said(
    was: Sequence[ExtractorRequest], asked: Sequence[ExtractorRequest], wanted: Container[str], pipeline: Pipeline
) -> tuple[ExtractorRequest, ...]:
    """What is said of the extractors once `asked` has changed the fields `wanted`: all that it does not say stays."""
    changed = {word for name, words in _WORDS.items() if name in wanted for word in words}
    known = {_alongside(one): one for one in was}
    found = []
    for one in sorted(asked, key=lambda one: one.name in EXTRACTORS):
        before = known.get(_alongside(one), ExtractorRequest())
        params = {name: value for name, value in before.asked().items() if name not in changed} | one.asked()
        more = {
            "parameters": None,
            "params": params,
            "input_mappings": one.input_mappings or before.input_mappings,
            "field_passthrough": one.field_passthrough or before.field_passthrough,
        }
        found.append(one.model_copy(update=more))
    named = {one.name for one in found}
    return (*found, *(known.get(name, ExtractorRequest(name=name)) for name in pipeline.also if name not in named))


def _alongside(extractor: ExtractorRequest) -> str:
    """Its name; empty for the text extractor, whatever it is called."""
    return extractor.name if extractor.name in EXTRACTORS else ""


def keep(context: Context, collection: Collection, changes: dict[str, Any]) -> None:
    """Keep changes of what is said of a collection, wherever it was made."""
    kept = shelf(context, collection.namespace)
    value = kept_of(context, collection.namespace, collection)
    kept.make(collection_id(collection.namespace, collection.name), value, name=collection.name)
    kept.change(collection.name, lambda was: was.model_copy(update=changes))


#: Field of a pipeline → the parameters that say it.
_WORDS = {
    "model_id": ("model_id", "embedding_model", "model"),
    "revision": ("revision",),
    "dtype": ("dtype",),
    "chunking": ("chunking", "split_by", "chunk_size"),
    "outputs": ("outputs",),
}


#: How often a change is tried on a collection that others change.
_TRIES = 8


def change_pipeline(
    context: Context, collection: Collection, change: Callable[[Pipeline], Pipeline], *, empty: bool = False
) -> Collection:
    """Change it for tasks to come; as it is now, where the change changes nothing.

    Raises `Conflict` where the model would change and there are objects, of which one may have been taken in meanwhile;
    with `empty` where anything would.
    """
    for _ in range(_TRIES):
        was, pipeline = collection.pipeline, change(collection.pipeline)
        if pipeline == was:
            return collection
        taken = None
        if empty or (was.model_id, was.revision) != (pipeline.model_id, pipeline.revision):
            # Counted before the look at the objects: what is taken in after it is seen here, or in the count.
            taken = context.ledger.taken(collection.namespace, collection.name)
            if has_objects(context, collection):
                raise _has_objects(collection.name, was, pipeline)
        changed = collection.model_copy(update={"pipeline": pipeline})
        if context.ledger.change_collection(collection, changed, taken=taken):
            return changed
        collection = collection_named(context, collection.namespace, collection.name)
    raise Conflict(f"Collection {collection.name!r} is being changed by others.", hint="Repeat it in a moment.")


def _has_objects(name: str, was: Pipeline, asked: Pipeline) -> Conflict:
    if was.model_id == asked.model_id and was.revision == asked.revision:
        return Conflict(
            f"Collection {name!r} has objects, and other parameters were asked for than it has.",
            hint="Leave them out, or change the collection with PATCH: for what comes after.",
        )
    return Conflict(
        f"Collection {name!r} has objects that {was.model_id} embedded, and {asked.model_id} was asked for.",
        hint="Their vectors cannot be compared: create another collection.",
    )


def has_objects(context: Context, collection: Collection) -> bool:
    """Whether anything was ingested, or is on its way."""
    layout = Layout.of(context.settings, collection.namespace, collection.name)
    if next(iter(context.store.list(layout.objects(), delimiter="/")), None) is not None:
        return True
    return any(
        context.ledger.tasks(collection.namespace, collection=collection.name, state=state, limit=1) for state in _OPEN
    )

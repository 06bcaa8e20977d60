"""What a collection's pipeline becomes where requests meet, on the twins of ledger and store."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from producers.http.caller import Caller
from producers.http.collections import KeptCollection, agree, change_pipeline, kept_of, say, shelf
from producers.http.context import Context
from producers.http.extractors import ExtractorRequest, pipeline_of, running_model
from producers.http.naming import collection_id
from tests.contract.ledger.desk import Desk
from trivet.clock import SystemClock
from trivet.errors import Conflict, Forbidden, InvalidRequest
from trivet.keys import Scope
from trivet.ledger.memory import MemoryLedger
from trivet.resources.memory import MemoryResources
from trivet.settings import Settings
from trivet.stores.memory import MemoryStore
from trivet.values import Collection, Pipeline

ANYBODY = Caller("ns")
WAS = Collection(namespace="ns", name="c")
OTHER = [ExtractorRequest(name="text_embedding", params={"model_id": "other"})]


class Watched(MemoryLedger):
    """A ledger in which somebody else comes in between the look at a collection and its change."""

    def __init__(self) -> None:
        super().__init__()
        self.between: Callable[[], object] = lambda: None

    def change_collection(self, was: Collection, changed: Collection, *, taken: int | None) -> bool:
        between, self.between = self.between, lambda: None
        between()
        return super().change_collection(was, changed, taken=taken)


@pytest.fixture
def ledger() -> Watched:
    made = Watched()
    made.put_collection(WAS, replace=False)
    return made


@pytest.fixture
def desk(ledger: Watched) -> Desk:
    return Desk(ledger, SystemClock())


@pytest.fixture
def context(ledger: Watched) -> Context:
    return cast(
        "Context", SimpleNamespace(settings=Settings(), ledger=ledger, store=MemoryStore(), resources=MemoryResources())
    )


def test_an_ingest_brings_its_model_into_a_collection_without_objects(context: Context) -> None:
    assert agree(context, ANYBODY, WAS, OTHER).pipeline.model_id == "other"


def test_an_ingest_that_brings_parameters_leaves_the_others_and_is_shown_with_the_collection(context: Context) -> None:
    was = ExtractorRequest(
        parameters={"embedding_model": "m", "outputs": {"sparse": False}}, input_mappings={"text": "t"}
    )
    value = KeptCollection(created_at=1, name="c", extractors=(was, ExtractorRequest(name="language_extractor")))
    shelf(context, "ns").make(collection_id("ns", "c"), value, name="c")
    asked = ExtractorRequest(name="text_embedding", params={"model_id": "other", "chunk_size": 64})
    there = WAS.model_copy(update={"pipeline": Pipeline(also=("language_extractor",))})
    context.ledger.put_collection(there, replace=True)
    changed = agree(context, ANYBODY, there, [asked])
    say(context, there, changed, [asked])
    assert changed.pipeline.chunking.target_tokens == 64
    first, second = kept_of(context, "ns", changed).extractors
    assert first.asked() == {"model_id": "other", "chunk_size": 64, "outputs": {"sparse": False}}
    assert (first.input_mappings, second.name) == ({"text": "t"}, "language_extractor")


def test_whoever_may_ingest_alone_changes_no_collection(context: Context, desk: Desk) -> None:
    ingests = Caller("ns", "sk_1", frozenset({Scope.INGEST}))
    with pytest.raises(Forbidden, match=r"would change model_id of collection 'c'.*not the scope manage"):
        agree(context, ingests, WAS, OTHER)
    assert desk.ledger.get_collection("ns", "c") == WAS
    same = [ExtractorRequest(name="text_embedding", params={"model_id": WAS.pipeline.model_id})]
    assert agree(context, ingests, WAS, same) == WAS
    for scopes in ({Scope.MANAGE}, {Scope.ADMIN}):
        assert agree(context, Caller("ns", "sk_1", frozenset(scopes)), WAS, same) == WAS


def test_other_parameters_than_those_of_a_collection_with_objects_are_refused(context: Context, desk: Desk) -> None:
    desk.accept()
    with pytest.raises(Conflict, match="has objects, and other parameters were asked for"):
        agree(context, ANYBODY, WAS, [ExtractorRequest(params={"chunk_size": 16, "split_by": "tokens"})])
    assert desk.ledger.get_collection("ns", "c") == WAS


@pytest.mark.parametrize("path", ["../../etc", "/etc", "a/../../b", "~/models", "..\\..\\windows"])
def test_a_model_id_that_is_a_path_is_refused_and_a_collection_that_has_one_can_be_shown(
    context: Context, path: str
) -> None:
    with pytest.raises(InvalidRequest, match="is a path"):
        pipeline_of(ExtractorRequest(params={"model_id": path}))
    assert running_model(context.settings, Pipeline(model_id="../../etc")) == ("../../etc", None)


def test_a_task_that_comes_in_while_the_model_would_change_keeps_it(
    context: Context, desk: Desk, ledger: Watched
) -> None:
    ledger.between = desk.accept
    with pytest.raises(Conflict, match="has objects that BAAI/bge-m3 embedded"):
        agree(context, ANYBODY, WAS, OTHER)
    assert desk.ledger.get_collection("ns", "c") == WAS


def test_of_two_first_ingests_that_meet_one_is_refused(context: Context, desk: Desk, ledger: Watched) -> None:
    third = WAS.model_copy(update={"pipeline": Pipeline(model_id="third")})

    def come_first() -> None:
        assert desk.ledger.change_collection(WAS, third, taken=0)
        desk.ledger.accept(desk.task(), 60, encoder_wish="third")

    ledger.between = come_first
    with pytest.raises(Conflict, match="has objects that third embedded, and other was asked for"):
        agree(context, ANYBODY, WAS, OTHER)
    assert desk.ledger.get_collection("ns", "c") == third


def test_a_task_asked_for_with_a_model_that_was_changed_meanwhile_is_refused(context: Context, desk: Desk) -> None:
    mine = agree(context, ANYBODY, WAS, OTHER)
    theirs = change_pipeline(context, mine, lambda was: was.model_copy(update={"model_id": "third"}))
    with pytest.raises(Conflict, match="no longer embedded by other"):
        desk.ledger.accept(desk.task(), 60, encoder_wish=mine.pipeline.encoder_wish)
    assert desk.ledger.accept(desk.task(), 60, encoder_wish=theirs.pipeline.encoder_wish).new


def test_changes_that_meet_are_both_made(context: Context, desk: Desk) -> None:
    desk.accept()
    stale = WAS
    change_pipeline(context, WAS, lambda was: was.model_copy(update={"dtype": "int8"}))
    both = change_pipeline(context, stale, lambda was: was.model_copy(update={"also": ("language_extractor",)}))
    assert (both.pipeline.dtype, both.pipeline.also) == ("int8", ("language_extractor",))
    assert desk.ledger.get_collection("ns", "c") == both

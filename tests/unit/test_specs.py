"""Specs: what they are stored under, who understands them, and what they may ask of a model."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.parts import spec
from trivet.errors import InvalidRequest
from trivet.stages.context import not_understood
from trivet.values import Collection, Frozen, Outputs, Pipeline, Spec, dump


class OlderOutputs(Frozen):
    """`Outputs` as it was before ColBERT had options."""

    dense: bool = True
    sparse: bool = True
    colbert: Literal["off", "float16"] = "float16"


class OlderPipeline(Pipeline):
    """A pipeline as an older worker reads it."""

    outputs: OlderOutputs = OlderOutputs()  # type: ignore[assignment] # an older type


class OlderCollection(Collection):
    """A collection as an older worker reads it."""

    pipeline: OlderPipeline = OlderPipeline()


@pytest.mark.parametrize(
    ("outputs", "known"),
    [
        ({}, "85532f2bc596d220"),
        ({"colbert": "off"}, "c7c0d6a6e322d247"),
        ({"dense": False, "sparse": False}, "f3149e1140af8e23"),
    ],
)
def test_specs_keep_the_hash_under_which_they_were_stored_before_there_were_options(
    outputs: dict[str, Any], known: str
) -> None:
    assert spec(**outputs).hash == known


options: dict[str, st.SearchStrategy[Any]] = {
    "colbert_pooling": st.integers(1, 16),
    "colbert_dimensions": st.none() | st.integers(1, 4),
    "dense_dimensions": st.none() | st.integers(1, 8),
}
asked = st.fixed_dictionaries({"colbert": st.sampled_from(["float16", "int8"])}, optional=options)


@given(asked)
def test_a_spec_comes_back_equal_and_with_its_hash(outputs: dict[str, Any]) -> None:
    made = spec(**outputs)
    back = Spec.model_validate_json(dump(made))
    assert back == made
    assert back.hash == made.hash


@given(asked, asked)
def test_specs_that_store_something_else_have_another_hash(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert (spec(**one).hash == spec(**two).hash) == (Outputs(**one) == Outputs(**two))


def older(pipeline: Pipeline) -> None:
    text = dump(Collection(namespace="default", name="docs", pipeline=pipeline))
    assert OlderCollection.model_validate_json(text).pipeline.model_id == pipeline.model_id


@pytest.mark.parametrize("outputs", [{}, {"colbert": "off"}, {"dense": False}, {"colbert_pooling": 1}])
def test_an_older_worker_takes_collections_that_ask_for_nothing_new(outputs: dict[str, Any]) -> None:
    older(Pipeline(outputs=Outputs(**outputs)))


@pytest.mark.parametrize(
    ("outputs", "field"),
    [
        ({"colbert": "int8"}, "colbert"),
        ({"colbert_pooling": 2}, "colbert_pooling"),
        ({"colbert_dimensions": 4}, "colbert_dimensions"),
        ({"colbert_layout": "list"}, "colbert_layout"),
        ({"dense_dimensions": 4}, "dense_dimensions"),
    ],
)
def test_an_older_worker_leaves_a_collection_that_asks_for_something_new_to_another(
    outputs: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        older(Pipeline(outputs=Outputs(**outputs)))
    left = not_understood("collection", caught.value)
    assert left.transient
    assert f"pipeline.outputs.{field}" in left.message


@pytest.mark.parametrize(
    "outputs",
    [
        {"colbert": "off", "colbert_pooling": 2},
        {"colbert": "off", "colbert_dimensions": 4},
        {"colbert": "off", "colbert_layout": "list"},
        {"colbert": "int8", "colbert_layout": "list"},
        {"dense": False, "dense_dimensions": 4},
        {"colbert_pooling": 0},
        {"colbert_pooling": 17},
        {"colbert_dimensions": 0},
        {"dense_dimensions": 0},
        {"colbert": "int4"},
    ],
)
def test_outputs_that_mean_nothing_are_refused(outputs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Outputs(**outputs)


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ({"dense_dimensions": 9}, "The collection asks for dense_dimensions 9, and tests/small has 8."),
        ({"colbert_dimensions": 5}, "The collection asks for colbert_dimensions 5, and tests/small has 4."),
    ],
)
def test_more_dimensions_than_the_model_has_are_refused_in_one_sentence_when_a_spec_is_frozen(
    outputs: dict[str, Any], sentence: str
) -> None:
    model = spec().model
    with pytest.raises(InvalidRequest) as caught:
        Spec.freeze(Pipeline(outputs=Outputs(**outputs)), model)
    assert caught.value.message == sentence
    exact = Outputs(dense_dimensions=8, colbert_dimensions=4)
    assert Spec.freeze(Pipeline(outputs=exact), model).pipeline.outputs == exact

"""What the document says of a body's numbers and truth values holds of what is taken."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError

from producers.http.routes import ROUTERS

#: Type → what Pydantic would take for it by itself.
LOOSE: dict[type, tuple[Any, ...]] = {int: (True, "1"), float: (True, "1.5"), bool: (1, "true")}


def fields() -> Iterator[tuple[str, str, Any, type]]:
    """(model, field, its adapter, number or truth value) of every body of the API."""
    seen: set[type] = set()

    def of(kind: Any) -> Iterator[tuple[str, str, Any, type]]:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
            seen.add(kind)
            for name, field in kind.model_fields.items():
                yield from of(field.annotation)
                whole: Any = (
                    typing.Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
                )
                adapter = TypeAdapter(whole)
                for leaf in set(leaves(field.annotation)) & set(LOOSE):
                    yield kind.__name__, name, adapter, leaf
        for inner in typing.get_args(kind):
            yield from of(inner)

    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            for asked in bodies(route.dependant):
                yield from of(asked)


def leaves(kind: Any) -> Iterator[Any]:
    inner = typing.get_args(kind)
    if not inner:
        yield kind
    for each in inner:
        yield from leaves(each)


def bodies(dependant: Dependant) -> Iterator[Any]:
    yield from (parameter.field_info.annotation for parameter in dependant.body_params)
    for inner in dependant.dependencies:
        yield from bodies(inner)


FIELDS = list(fields())


def test_there_are_numbers_and_truth_values_in_bodies() -> None:
    assert {leaf for *_, leaf in FIELDS} == set(LOOSE)
    assert len(FIELDS) > 20


@pytest.mark.parametrize(("model", "name", "adapter", "leaf"), FIELDS, ids=lambda each: str(each)[:30])
def test_a_number_or_truth_value_is_taken_as_what_it_is_alone(model: str, name: str, adapter: Any, leaf: type) -> None:
    for loose in LOOSE[leaf]:
        with pytest.raises(ValidationError):
            adapter.validate_python(loose)

"""What all values that cross a border have in common."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SerializerFunctionWrapHandler, model_serializer
from pydantic_core import PydanticSerializationError

from trivet.values import Frozen, dump


class Interrupted(Frozen):
    """Its serialiser ends as it is told."""

    by: type[BaseException]

    @model_serializer(mode="plain")
    def _end(self) -> dict[str, str]:
        raise self.by


class Holder(Frozen):
    """Has one inside."""

    inner: Interrupted


class Wrapping(Frozen):
    """Its serialiser asks the one that it wraps."""

    inner: Interrupted

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = handler(self)
        return made


class Outer(Frozen):
    """Has one of these inside."""

    inner: Wrapping


def test_a_ctrl_c_while_a_value_is_written_is_no_error_of_the_value() -> None:
    with pytest.raises(KeyboardInterrupt):
        dump(Holder(inner=Interrupted(by=KeyboardInterrupt)))
    with pytest.raises(KeyboardInterrupt):
        dump(Outer(inner=Wrapping(inner=Interrupted(by=KeyboardInterrupt))))


def test_an_error_of_a_serialiser_stays_one() -> None:
    with pytest.raises(PydanticSerializationError):
        dump(Holder(inner=Interrupted(by=RuntimeError)))

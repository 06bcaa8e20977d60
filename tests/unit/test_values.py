"""What all values that cross a border have in common."""

from __future__ import annotations

import pytest
from pydantic import model_serializer
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


def test_a_ctrl_c_while_a_value_is_written_is_no_error_of_the_value() -> None:
    with pytest.raises(KeyboardInterrupt):
        dump(Holder(inner=Interrupted(by=KeyboardInterrupt)))


def test_an_error_of_a_serialiser_stays_one() -> None:
    with pytest.raises(PydanticSerializationError):
        dump(Holder(inner=Interrupted(by=RuntimeError)))

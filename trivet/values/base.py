"""What all values that cross a border have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticSerializationError

from trivet.ids import canonical_json


class Frozen(BaseModel):
    """Base of the values that cross a border: immutable, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_dump(self, **how: Any) -> dict[str, Any]:
        """As pydantic does; but a Ctrl-C within a serialiser stays one, and is no error of the serialiser."""
        try:
            return super().model_dump(**how)
        except PydanticSerializationError as error:
            if _is_ctrl_c(error):
                raise KeyboardInterrupt from None
            raise


def _is_ctrl_c(error: BaseException) -> bool:
    """Also where a serialiser within a serialiser was struck: then only the text is left of it."""
    return isinstance(error.__cause__, KeyboardInterrupt) or str(error).rstrip(": ").endswith("KeyboardInterrupt")


def dump(value: BaseModel) -> str:
    """Canonical JSON of a value."""
    return canonical_json(value.model_dump(mode="json"))

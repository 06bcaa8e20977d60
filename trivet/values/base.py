"""What all values that cross a border have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from trivet.ids import canonical_json


class Frozen(BaseModel):
    """Base of the values that cross a border: immutable, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def dump(value: BaseModel) -> str:
    """Canonical JSON of a value."""
    return canonical_json(value.model_dump(mode="json"))

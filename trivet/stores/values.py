"""JSON values in a store."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from trivet.errors import NotInStore, StoreDamaged
from trivet.stores import ObjectStore, Stored
from trivet.values import Frozen

_V = TypeVar("_V", bound=Frozen)


def read_value(store: ObjectStore, key: str, kind: type[_V]) -> tuple[_V, Stored] | None:
    """A value and what the store says about it, or None where there is none. Raises `StoreDamaged`."""
    try:
        body, stored = store.get(key)
    except NotInStore:
        return None
    try:
        return kind.model_validate_json(body), stored
    except ValidationError as error:
        raise StoreDamaged(f"{key!r} cannot be read: {error.error_count()} fields are wrong.") from None

"""Options of schemes: given as JSON, kept complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from trivet.errors import InvalidRequest
from trivet.values import Frozen

Options = TypeVar("Options", bound=Frozen)


def complete(model: type[Options], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options as JSON. Raises `InvalidRequest` with the one that is wrong."""
    try:
        return model.model_validate(dict(given)).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "options"
        cause = first.get("ctx", {}).get("error")
        message = cause.message if isinstance(cause, InvalidRequest) else f"{first['msg'].lower()}."
        raise InvalidRequest(
            f"Option {where}: {message}", hint=f"Options are {', '.join(model.model_fields)}."
        ) from None


def kept(model: type[Options], options: Mapping[str, Any]) -> Options:
    """The options of a hook, which `complete` has made."""
    return model.model_validate(dict(options))

"""Mixpeek's filter conditions as `Filters`: AND, OR, NOT of {field, operator, value}, or {field: value} for equality.

    metadata.KEY, KEY                 metadata of the object's ingest request
    object_id, source_object_id       the object
    language                          the chunk's language
    page                              pages of the chunk
    heading                           the chunk's heading path, a list of titles from the outermost on
    created_at                        commit of the object's generation, ISO 8601

All but metadata say something of a chunk or an object that only `Filters` can ask for, so they must hold outright: they
may stand in AND, not in OR or NOT.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from trivet.errors import InvalidRequest
from trivet.retrieval import Condition, Expression, Filters, Group, Op

_GROUPS = {"AND": "all", "OR": "any", "NOT": "none"}
_OBJECT = frozenset({"object_id", "source_object_id", "root_object_id"})
_OWN = _OBJECT | {"language", "page", "heading", "created_at"}
_YEAR = re.compile(r"[12]\d{3}")
#: Said about the whole tree.
_FLAGS = frozenset({"case_sensitive"})


def read_filters(trees: Sequence[Mapping[str, Any]]) -> Filters:
    """Filters that let through what every tree does. Raises `InvalidRequest` in one sentence."""
    given: dict[str, Any] = {}
    metadata: list[Expression] = []
    for tree in trees:
        for leaf in _flat(tree):
            own = isinstance(leaf, Condition) and leaf.key in _OWN
            if own:
                assert isinstance(leaf, Condition)
                _hold(given, leaf)
            else:
                metadata.append(_metadata(leaf))
    try:
        return Filters(metadata=tuple(metadata), **given)
    except ValidationError as error:
        raise InvalidRequest(
            f"The filter is wrong: {error.errors()[0]['msg'].removeprefix('Value error, ')}."
        ) from None


def _flat(tree: Mapping[str, Any]) -> list[Condition | Group]:
    """What must hold, conditions of AND taken out of it."""
    found = _read(tree)
    while any(isinstance(part, Group) and part.op == "all" for part in found):
        found = [one for part in found for one in (part.of if isinstance(part, Group) and part.op == "all" else [part])]
    return found


def _read(tree: Any) -> list[Condition | Group]:
    if not isinstance(tree, Mapping):
        raise InvalidRequest(f"A filter condition is {str(tree)[:60]!r}.", hint="Give {field, operator, value}.")
    if "field" in tree:
        return [_condition(tree["field"], tree.get("operator") or "eq", tree.get("value"))]
    if tree.get("case_sensitive") is False and len(tree) > 1:
        # The generated client writes it always; texts are compared as they are.
        tree = {name: value for name, value in tree.items() if name not in _FLAGS}
    found: list[Condition | Group] = []
    for name, value in tree.items():
        if name in _GROUPS and value is not None:
            if not isinstance(value, list | tuple) or not value:
                raise InvalidRequest(f"{name} of a filter needs a list of conditions.")
            parts = tuple(_together(_read(part)) for part in value)
            found.append(_group(_GROUPS[name], parts))
        elif name not in _GROUPS and name not in _FLAGS:
            found.append(_condition(name, "eq", value))
    return found


def _together(parts: list[Condition | Group]) -> Condition | Group:
    return parts[0] if len(parts) == 1 else _group("all", tuple(parts))


def _group(op: Any, parts: tuple[Condition | Group, ...]) -> Group:
    try:
        return Group(op=op, of=parts)
    except ValidationError as error:
        raise InvalidRequest(f"A filter group is wrong: {error.errors()[0]['msg'].lower()}.") from None


def _condition(field: Any, operator: Any, value: Any) -> Condition:
    if operator == "is_null":
        operator, value = "eq" if value in (None, True) else "ne", None
    if operator not in tuple(Op):
        raise InvalidRequest(f"The filter operator {str(operator)[:40]!r} is not there.", hint=f"Use {', '.join(Op)}.")
    try:
        return Condition(key=field, op=operator, value=value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"The filter on {str(field)[:60]!r} is wrong: {message}.") from None


def _metadata(leaf: Condition | Group) -> Condition | Group:
    if isinstance(leaf, Group):
        return leaf.model_copy(update={"of": tuple(_metadata(part) for part in leaf.of)})
    if leaf.key in _OWN:
        raise InvalidRequest(
            f"The filter on {leaf.key!r} stands in OR or NOT.", hint="It can stand in AND: it must hold outright."
        )
    if leaf.key in ("document_id", "collection_id"):
        raise InvalidRequest(f"There is no filter on {leaf.key!r}.", hint="Filter by object_id, or by metadata.")
    return leaf.model_copy(update={"key": leaf.key.removeprefix("metadata.")})


def _hold(given: dict[str, Any], leaf: Condition) -> None:
    """Put a condition on a chunk or object itself into the arguments of `Filters`."""
    name, op, value = "object_id" if leaf.key in _OBJECT else leaf.key, leaf.op, leaf.value
    match name, op:
        case (("object_id" | "language"), (Op.EQ | Op.IN)):
            argument = "object_ids" if name == "object_id" else "languages"
            values = tuple(value) if op == Op.IN else (value,)
            before = given.get(argument)
            given[argument] = values if before is None else tuple(one for one in before if one in values)
            if argument == "languages" and not given[argument]:
                raise InvalidRequest("The filters on 'language' name none that all of them let through.")
        case "heading", Op.EQ if name not in given:
            given[name] = tuple(value) if isinstance(value, list | tuple) else (value,)
        case "page", (Op.EQ | Op.GTE | Op.LTE):
            pages = given.setdefault("pages", {})
            ends = {Op.EQ: ("first", "last"), Op.GTE: ("first",), Op.LTE: ("last",)}[op]
            if pages.keys() & set(ends):
                raise InvalidRequest("The filters give a first or last page twice.")
            pages.update(dict.fromkeys(ends, value))
        case "created_at", (Op.GTE | Op.LT):
            argument = "committed_from" if op == Op.GTE else "committed_before"
            if argument in given:
                raise InvalidRequest(f"The filters have created_at {op} twice.")
            # Alone it would be read as seconds since 1970.
            given[argument] = f"{value}-01-01T00:00:00Z" if _YEAR.fullmatch(str(value)) else value
        case _:
            raise InvalidRequest(f"There is no filter {leaf.key} {op}.", hint="docs/searching.md lists those that are.")

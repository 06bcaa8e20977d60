"""Conditions on the metadata of an object's ingest request: a small language with one meaning in every retriever.

    Condition(key="year", op="gte", value=2001)
    Group(op="any", of=(Condition(key="kind", value="book"), Condition(key="tags", op="contains", value="law")))

`matches` is that meaning; a retriever that filters in its own index must let through the same objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from trivet.values import Frozen

_MISSING = object()
_MOST = 1000
#: Groups within groups.
_DEEPEST = 8


class Op(StrEnum):
    """How a value is compared. Numbers compare by value (1 is 1.0), and nothing else does: 1 is not "1", nor true."""

    EQ = "eq"
    #: Not `eq`: objects without the key match.
    NE = "ne"
    #: Equal to one of a list.
    IN = "in"
    #: Not `in`: objects without the key match.
    NIN = "nin"
    #: A list has this element, or a text has this part.
    CONTAINS = "contains"
    #: Numbers with numbers, texts with texts by code point, so that ISO 8601 dates of one form are in order.
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    #: The key is there, whatever its value, null too; with the value false: it is not.
    EXISTS = "exists"


class Condition(Frozen):
    """One comparison. Without the key, only `ne`, `nin` and `exists` false hold."""

    #: A key of the metadata; where there is none of this name, a path into it with dots: `author.name`.
    key: str = Field(min_length=1, max_length=200)
    op: Op = Op.EQ
    #: A JSON value; a list for `in` and `nin`, a number or text for gt, gte, lt and lte, a boolean for `exists`.
    value: Any = None

    @model_validator(mode="before")
    @classmethod
    def _exists(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("op") == Op.EXISTS and given.get("value") is None:
            return {**given, "value": True}
        return given

    @model_validator(mode="after")
    def _value(self) -> Self:
        value = self.value
        if self.op in (Op.IN, Op.NIN) and not (isinstance(value, list | tuple) and len(value) <= _MOST):
            raise ValueError(f"{self.op} needs a list of at most {_MOST} values")
        if self.op in _ORDERED and (isinstance(value, bool) or not isinstance(value, int | float | str)):
            raise ValueError(f"{self.op} needs a number or a text")
        if self.op == Op.EXISTS and not isinstance(value, bool):
            raise ValueError("exists needs true or false")
        return self


class Group(Frozen):
    """Several conditions: all of them hold, any of them, or none."""

    op: Literal["all", "any", "none"]
    of: tuple[Expression, ...] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _depth(self) -> Self:
        if depth(self) > _DEEPEST:
            raise ValueError(f"groups may lie {_DEEPEST} deep within one another")
        return self


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "group" if "of" in value else "condition"
    return "group" if isinstance(value, Group) else "condition"


Expression: TypeAlias = Annotated[
    Annotated[Condition, Tag("condition")] | Annotated[Group, Tag("group")], Discriminator(_kind)
]


def matches(metadata: Mapping[str, Any], expression: Condition | Group) -> bool:
    """Whether metadata meet a condition."""
    if isinstance(expression, Group):
        found = (matches(metadata, part) for part in expression.of)
        if expression.op == "all":
            return all(found)
        return any(found) == (expression.op == "any")
    value, wanted = _lookup(metadata, expression.key), expression.value
    match expression.op:
        case Op.EQ:
            return _equal(value, wanted)
        case Op.NE:
            return not _equal(value, wanted)
        case Op.IN:
            return any(_equal(value, one) for one in wanted)
        case Op.NIN:
            return not any(_equal(value, one) for one in wanted)
        case Op.CONTAINS:
            return _contains(value, wanted)
        case Op.EXISTS:
            return (value is not _MISSING) is wanted
        case _:
            return _comparable(value, wanted) and bool(_ORDERED[expression.op](value, wanted))


def equalities(metadata: Mapping[str, Any]) -> tuple[Condition, ...]:
    """The shorthand: every key has this very value."""
    return tuple(Condition(key=key, value=value) for key, value in metadata.items())


def depth(expression: Condition | Group) -> int:
    """Groups that lie within one another: 0 for a condition."""
    return 1 + max(map(depth, expression.of)) if isinstance(expression, Group) else 0


_ORDERED = {
    Op.GT: lambda value, wanted: value > wanted,
    Op.GTE: lambda value, wanted: value >= wanted,
    Op.LT: lambda value, wanted: value < wanted,
    Op.LTE: lambda value, wanted: value <= wanted,
}


def _lookup(metadata: Mapping[str, Any], key: str) -> Any:
    if key in metadata:
        return metadata[key]
    first, dot, rest = key.partition(".")
    inner = metadata.get(first)
    return _lookup(inner, rest) if dot and isinstance(inner, Mapping) else _MISSING


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _comparable(value: Any, wanted: Any) -> bool:
    return (_number(value) and _number(wanted)) or (isinstance(value, str) and isinstance(wanted, str))


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(wanted, list | tuple):
        return len(value) == len(wanted) and all(map(_equal, value, wanted))
    if isinstance(value, Mapping) and isinstance(wanted, Mapping):
        return value.keys() == wanted.keys() and all(_equal(value[key], wanted[key]) for key in value)
    if _comparable(value, wanted):
        return bool(value == wanted)
    return type(value) is type(wanted) and bool(value == wanted)


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_equal(one, wanted) for one in value)
    return isinstance(value, str) and isinstance(wanted, str) and wanted in value

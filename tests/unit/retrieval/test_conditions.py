"""Conditions mean one thing, by value and never by accident of Python."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from trivet.retrieval import Condition, Expression, Filters, Group, Op
from trivet.retrieval.conditions import matches

METADATA: dict[str, Any] = {
    "year": 2001,
    "price": 9.5,
    "draft": True,
    "kind": "book",
    "tags": ["law", "tax"],
    "author": {"name": "Ada", "born": 1815},
    "a.b": "with a dot",
    "nothing": None,
    "when": "2024-05-01T00:00:00Z",
}


@pytest.mark.parametrize(
    ("key", "op", "value", "expected"),
    [
        ("year", "eq", 2001, True),
        ("year", "eq", 2001.0, True),
        ("year", "eq", "2001", False),
        ("draft", "eq", True, True),
        ("draft", "eq", 1, False),
        ("year", "eq", True, False),
        ("nothing", "eq", None, True),
        ("missing", "eq", None, False),
        ("tags", "eq", ["law", "tax"], True),
        ("tags", "eq", ["tax", "law"], False),
        ("tags", "eq", "law", False),
        ("author", "eq", {"name": "Ada", "born": 1815.0}, True),
        ("author", "eq", {"name": "Ada"}, False),
        ("year", "ne", 2001, False),
        ("missing", "ne", 2001, True),
        ("kind", "in", ["book", "paper"], True),
        ("kind", "in", [], False),
        ("draft", "in", [1, 0], False),
        ("missing", "in", [None], False),
        ("kind", "nin", ["book"], False),
        ("missing", "nin", ["book"], True),
        ("tags", "contains", "law", True),
        ("tags", "contains", "la", False),
        ("kind", "contains", "oo", True),
        ("year", "contains", "2", False),
        ("year", "gte", 2001, True),
        ("year", "gt", 2001, False),
        ("price", "lt", 10, True),
        ("price", "lte", 9.5, True),
        ("kind", "gt", 1, False),
        ("year", "gt", "1", False),
        ("draft", "gte", 0, False),
        ("when", "gte", "2024-01-01", True),
        ("when", "lt", "2024-01-01", False),
        ("missing", "lt", 5, False),
        ("year", "exists", None, True),
        ("nothing", "exists", True, True),
        ("missing", "exists", True, False),
        ("missing", "exists", False, True),
        ("author.name", "eq", "Ada", True),
        ("author.born", "lt", 1900, True),
        ("author.name.first", "exists", True, False),
        ("a.b", "eq", "with a dot", True),
        ("kind.x", "exists", True, False),
    ],
)
def test_a_condition_holds_where_its_words_say_so(key: str, op: str, value: Any, expected: bool) -> None:
    assert matches(METADATA, Condition.model_validate({"key": key, "op": op, "value": value})) is expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"key": "", "value": 1}, "at least 1 character"),
        ({"key": "a", "op": "like", "value": 1}, "eq"),
        ({"key": "a", "op": "in", "value": "abc"}, "needs a list"),
        ({"key": "a", "op": "nin", "value": list(range(1001))}, "at most 1000"),
        ({"key": "a", "op": "gt", "value": True}, "a number or a text"),
        ({"key": "a", "op": "lt", "value": None}, "a number or a text"),
        ({"key": "a", "op": "exists", "value": "yes"}, "true or false"),
        ({"op": "any", "of": []}, "at least 1 item"),
        ({"op": "some", "of": [{"key": "a"}]}, "'all', 'any' or 'none'"),
        ({"key": "a", "value": 1, "wrong": 2}, "Extra inputs"),
    ],
)
def test_a_condition_that_says_nothing_is_refused(condition: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Expression).validate_python(condition)


def test_groups_may_not_lie_too_deep() -> None:
    tree: dict[str, Any] = {"key": "a", "value": 1}
    for _ in range(8):
        tree = {"op": "all", "of": [tree]}
    assert matches({"a": 1}, TypeAdapter(Expression).validate_python(tree))
    with pytest.raises(ValidationError, match="8 deep"):
        TypeAdapter(Expression).validate_python({"op": "all", "of": [tree]})


def test_a_dict_is_short_for_equality_and_one_condition_for_a_list_of_it() -> None:
    two = (Condition(key="kind", value="book"), Condition(key="year", value=2001))
    assert Filters.model_validate({"metadata": {"kind": "book", "year": 2001}}).metadata == two
    assert Filters.model_validate({"metadata": two[0]}).metadata == two[:1]
    # Keys of the language itself are no exception.
    assert Filters.model_validate({"metadata": {"key": "x"}}).metadata == (Condition(key="key", value="x"),)


scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 2.5]) | st.sampled_from("ab1")
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2), max_leaves=4)
keys = st.sampled_from(["a", "b", "a.b"])
ordered = st.sampled_from([Op.GT, Op.GTE, Op.LT, Op.LTE])
conditions = st.one_of(
    st.builds(Condition, key=keys, op=st.sampled_from([Op.EQ, Op.NE, Op.CONTAINS]), value=values),
    st.builds(Condition, key=keys, op=st.sampled_from([Op.IN, Op.NIN]), value=st.lists(values, max_size=3)),
    st.builds(Condition, key=keys, op=ordered, value=st.integers(-3, 3) | st.sampled_from("ab")),
    st.builds(Condition, key=keys, op=st.just(Op.EXISTS), value=st.booleans()),
)
expressions: st.SearchStrategy[Condition | Group] = st.recursive(
    conditions,
    lambda inner: st.builds(
        Group, op=st.sampled_from(["all", "any", "none"]), of=st.lists(inner, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=6,
)
metadata = st.dictionaries(st.sampled_from(["a", "b", "a.b"]), values | st.dictionaries(st.just("b"), values))


@given(metadata, conditions, st.lists(expressions, min_size=1, max_size=4))
def test_negations_and_groups_follow_the_laws_of_logic(
    found: dict[str, Any], condition: Condition, several: list[Condition | Group]
) -> None:
    of = tuple(several)
    assert matches(found, Group(op="any", of=of)) == any(matches(found, one) for one in several)
    assert matches(found, Group(op="all", of=of)) == all(matches(found, one) for one in several)
    assert matches(found, Group(op="none", of=of)) != matches(found, Group(op="any", of=of))
    opposite = {Op.EQ: Op.NE, Op.IN: Op.NIN}.get(condition.op)
    if opposite:
        assert matches(found, condition) != matches(found, condition.model_copy(update={"op": opposite}))
    if condition.op == Op.IN:
        each = [matches(found, Condition(key=condition.key, value=value)) for value in condition.value]
        assert matches(found, condition) == any(each)


@given(expressions, metadata)
def test_an_expression_means_the_same_after_json(expression: Condition | Group, found: dict[str, Any]) -> None:
    adapter: TypeAdapter[Condition | Group] = TypeAdapter(Expression)
    again = adapter.validate_json(adapter.dump_json(expression))
    assert matches(json.loads(json.dumps(found)), again) == matches(found, expression)

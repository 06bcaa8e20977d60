"""The OpenAPI file: FastAPI's, with an example of every answer, made of the fields' own examples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

_JSON = "application/json"
_DEEPEST = 6
_TIME = "2026-03-01T12:00:00.000Z"
_PLAIN: dict[str, Any] = {"string": "text", "integer": 1, "number": 0.5, "boolean": True, "null": None}


def describe(app: FastAPI) -> None:
    """Have the app answer with it. Made once, when it is first asked for."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = made()
            schemas = described.get("components", {}).get("schemas", {})
            for methods in described["paths"].values():
                for operation in methods.values():
                    _exemplify(operation, schemas)
        return app.openapi_schema or made()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _exemplify(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    for status, answer in operation.get("responses", {}).items():
        content = answer.get("content", {}).get(_JSON)
        if content is not None and str(status).startswith("2") and "example" not in content:
            content["example"] = example_of(content.get("schema", {}), schemas)


def example_of(schema: dict[str, Any], schemas: dict[str, Any], depth: int = 0) -> Any:
    """A value that fits the schema."""
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rsplit("/", 1)[-1]], schemas, depth)
    for name in ("example", "const", "default"):
        if name in schema:
            return schema[name]
    for name in ("examples", "enum"):
        if schema.get(name):
            return schema[name][0]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        nullable = any(option.get("type") == "null" for option in options)
        return None if nullable and depth >= _DEEPEST else example_of(options[0], schemas, depth)
    kind = schema.get("type")
    if kind == "array":
        inner = [] if depth >= _DEEPEST else [example_of(schema.get("items", {}), schemas, depth + 1)]
        # Nothing is known of free objects.
        return [] if inner == [{}] else inner
    if kind == "object" or "properties" in schema:
        return {
            name: _TIME if name.endswith("_at") and _is_text(inner) else example_of(inner, schemas, depth + 1)
            for name, inner in schema.get("properties", {}).items()
        }
    return _PLAIN.get(kind or "", {})


def _is_text(schema: dict[str, Any]) -> bool:
    """Times of keys and hooks are numbers."""
    return any(option.get("type") == "string" for option in (schema, *schema.get("anyOf", ())))

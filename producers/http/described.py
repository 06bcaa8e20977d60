"""The OpenAPI file: FastAPI's, with the headers that many routes know, and an example of every answer.

Examples are made of the fields' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from producers.http.caller import NAMESPACE_HEADER
from producers.http.once import KEY_HEADER, MOST_KEY
from producers.http.route import Route

_JSON = "application/json"
_DEEPEST = 6
_TIME = "2026-03-01T12:00:00.000Z"
_PLAIN: dict[str, Any] = {"string": "text", "integer": 1, "number": 0.5, "boolean": True, "null": None}


def describe(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """Have the app answer with it. Made once, when it is first asked for. `routes` are those of the app."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = made()
            schemas = described.get("components", {}).get("schemas", {})
            once = {(route.path_format, "post") for route in routes if isinstance(route, Route)}
            for path, methods in described["paths"].items():
                for method, operation in methods.items():
                    _add_headers(operation, once=(path, method) in once)
                    _exemplify(operation, schemas)
        return app.openapi_schema or made()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _add_headers(operation: dict[str, Any], *, once: bool) -> None:
    known = operation.setdefault("parameters", [])
    # What asks for a key works in a namespace.
    if "security" in operation:
        known.append(_header(NAMESPACE_HEADER, "Id or name of a namespace; without it, the key's own.", 256))
    if once:
        known.append(_header(KEY_HEADER, "The same key with the same body: the same answer, for 24 hours.", MOST_KEY))


def _header(name: str, description: str, longest: int) -> dict[str, Any]:
    schema = {"type": "string", "maxLength": longest}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


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

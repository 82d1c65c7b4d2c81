"""An OpenAPI file as rows for a page: what can be asked, and what is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_METHODS = ("get", "post", "put", "patch", "delete")
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """A word of a type; `shape` is the shape that it leads to, if it is one."""

    text: str
    shape: str | None = None


@dataclass(frozen=True)
class Row:
    """A parameter or a field: its type in words, whether it must be given, its default as JSON, its meaning."""

    name: str
    kind: tuple[Kind, ...]
    required: bool
    default: str | None
    meaning: str


@dataclass(frozen=True)
class Answer:
    """What a status means, and what comes with it."""

    status: str
    meaning: str
    kind: tuple[Kind, ...]


@dataclass(frozen=True)
class Route:
    """One method of one path."""

    method: str
    path: str
    title: str
    meaning: str
    parameters: tuple[Row, ...]
    body: tuple[Kind, ...]
    answers: tuple[Answer, ...]

    @property
    def anchor(self) -> str:
        """Its place on the page."""
        return f"{self.method.lower()}{self.path}".translate(str.maketrans("/{}:", "----")).strip("-")


@dataclass(frozen=True)
class Shape:
    """An object that is sent or answered."""

    name: str
    meaning: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ApiPage:
    """All of it: group → routes, and the shapes they speak of."""

    groups: Mapping[str, tuple[Route, ...]]
    shapes: tuple[Shape, ...]


def describe(file: Mapping[str, Any]) -> ApiPage:
    """Read an OpenAPI file (version 3.1)."""
    groups: dict[str, list[Route]] = {}
    for path, methods in file["paths"].items():
        for method in _METHODS:
            if method in methods:
                groups.setdefault(methods[method].get("tags", ["More"])[0], []).append(
                    _route(method, path, methods[method])
                )
    schemas = file.get("components", {}).get("schemas", {})
    shapes = tuple(_shape(name, schema) for name, schema in sorted(schemas.items()))
    return ApiPage({name: tuple(routes) for name, routes in groups.items()}, shapes)


def _route(method: str, path: str, operation: Mapping[str, Any]) -> Route:
    parameters = tuple(
        _row(
            parameter["name"],
            parameter.get("schema", {}),
            parameter.get("required", False),
            parameter.get("description"),
        )
        for parameter in operation.get("parameters", ())
    )
    answers = tuple(
        Answer(status, answer.get("description", ""), _content(answer))
        for status, answer in operation["responses"].items()
    )
    title, meaning = operation.get("summary", ""), operation.get("description", "")
    body = _content(operation.get("requestBody", {}))
    return Route(method.upper(), path, title, meaning, parameters, body, answers)


def _content(holder: Mapping[str, Any]) -> tuple[Kind, ...]:
    for media, content in holder.get("content", {}).items():
        if content.get("schema"):
            return tuple(_kind(content["schema"]))
        return (Kind(media),)
    return ()


def _shape(name: str, schema: Schema) -> Shape:
    required = schema.get("required", ())
    rows = tuple(_row(field, inner, field in required) for field, inner in schema.get("properties", {}).items())
    return Shape(name, schema.get("description", ""), rows)


def _row(name: str, schema: Schema, required: bool, meaning: str | None = None) -> Row:
    default = json.dumps(schema["default"], ensure_ascii=False) if "default" in schema else None
    return Row(name, tuple(_kind(schema)), required, default, meaning or schema.get("description", ""))


def _kind(schema: Schema) -> Iterator[Kind]:
    """A type in words: `list of integer`, `text or null`."""
    choices = next((schema[key] for key in ("anyOf", "oneOf", "allOf") if key in schema), None)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield Kind(name, name)
    elif choices is not None:
        for place, choice in enumerate(choices):
            if place:
                yield Kind(" or ")
            yield from _kind(choice)
    elif "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        yield Kind(" or ".join(json.dumps(value) for value in values))
    elif schema.get("type") == "array":
        yield Kind("list of ")
        yield from _kind(schema.get("items", {}))
    else:
        yield Kind(_named(schema) + _bounds(schema))


def _named(schema: Schema) -> str:
    kind = schema.get("type", "anything")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _bounds(schema: Schema) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[word]}" for word, sign in words.items() if word in schema]
    return f" ({', '.join(limits)})" if limits else ""

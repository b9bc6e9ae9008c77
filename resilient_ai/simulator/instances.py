"""Values that fit a JSON schema, filled with words and numbers of the prompt where they fit."""

import re
from typing import Any

from resilient_ai.simulator.jsonlike import is_list, is_object
from resilient_ai.simulator.patterns import example
from resilient_ai.simulator.words import Hints

Schema = dict[str, Any]

_DEPTH = 8
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T12:00:00Z",
    "time": "12:00:00Z",
    "email": "reader@example.org",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def instance(schema: Any, hints: Hints, *, name: str = "") -> Any:
    """A value that fits the schema; the same prompt gives the same value.

    Covers objects, arrays, strings, numbers, integers, booleans, null, `enum`, `const`, `default`, local `$ref`,
    `anyOf`, `oneOf` and `allOf`.

    >>> instance({"type": "object", "properties": {"port": {"type": "string"}}}, Hints("When is high tide in Kiel?"))
    {'port': 'Kiel'}
    """
    return _Builder(schema, hints).build(schema, name, 0)


class _Builder:
    def __init__(self, root: Any, hints: Hints) -> None:
        self._root = root
        self._hints = hints

    def build(self, schema: Any, name: str, depth: int) -> Any:
        if not is_object(schema) or not schema:
            return self._hints.phrase(name)
        schema = self._plain(schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._hints.choose(schema["enum"])
        kind = _kind(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind in {"number", "integer"}:
            return self._number(schema, whole=kind == "integer")
        if kind == "boolean":
            return schema.get("default", True)
        return None if kind == "null" else self._string(schema, name)

    def _plain(self, schema: Schema, depth: int) -> Schema:
        """The schema with references followed and one alternative chosen."""
        for _ in range(_DEPTH):
            if "$ref" in schema:
                rest = {k: v for k, v in schema.items() if k != "$ref"}
                schema = {**self._resolve(str(schema["$ref"])), **rest}
            elif "allOf" in schema:
                rest = {k: v for k, v in schema.items() if k != "allOf"}
                schema = _merge([rest, *schema["allOf"]])
            elif schema.get("anyOf") or schema.get("oneOf"):
                choices = schema.get("anyOf") or schema["oneOf"]
                rest = {k: v for k, v in schema.items() if k not in {"anyOf", "oneOf"}}
                schema = {**rest, **_alternative(choices, deep=depth >= _DEPTH)}
            else:
                return schema
        return schema

    def _resolve(self, reference: str) -> Schema:
        node: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                node = node.get(step.replace("~1", "/").replace("~0", "~"), {}) if is_object(node) else {}
        return node if is_object(node) else {}

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties: dict[str, Any] = schema.get("properties", {})
        required = set(schema.get("required", []))
        wanted = properties if depth < _DEPTH else {k: v for k, v in properties.items() if k in required}
        if depth > 2 * _DEPTH:
            return {}
        made = {key: self.build(value, key, depth + 1) for key, value in wanted.items()}
        for key in schema.get("required", []):
            if key not in made:
                made[key] = self._hints.phrase(key)
        return made

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        least = int(schema.get("minItems", 0))
        if depth >= _DEPTH:
            return [self.build(schema.get("items"), name, depth + 1) for _ in range(least)] if least else []
        most = int(schema.get("maxItems", max(least, 3)))
        size = min(max(least, 1 if schema.get("prefixItems") is None else least, min(2, most)), most)
        return [self.build(schema.get("items"), name, depth + 1) for _ in range(size)]

    def _number(self, schema: Schema, *, whole: bool) -> float | int:
        low, high = _bounds(schema, whole=whole)
        found = self._hints.number(low, high, whole=whole)
        value = schema.get("default") if found is None else found
        if value is None:
            value = low if low is not None else min(1, high) if high is not None else 1
        step = schema.get("multipleOf")
        if step:
            value = -(-value // step) * step
        return int(value) if whole else value

    def _string(self, schema: Schema, name: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        pattern: str | None = schema.get("pattern")
        text = self._hints.phrase(name) if pattern is None else example(pattern)
        least, most = int(schema.get("minLength", 0)), int(schema.get("maxLength", 10_000))
        return (text + "." * (least - len(text)))[:most]


def _bounds(schema: Schema, *, whole: bool) -> tuple[Any, Any]:
    """The least and the greatest number allowed, `None` where there is none; an excluded bound is moved inwards."""
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    step = 1 if whole or above is None or below is None else (below - above) / 4
    if low is None and above is not None:
        low = above + step
    if high is None and below is not None:
        high = below - step
    return low, high


def _kind(schema: Schema) -> str:
    kind = schema.get("type")
    if is_list(kind):
        kind = next((k for k in kind if k != "null"), "null")
    if kind is not None:
        return str(kind)
    return "object" if "properties" in schema else "array" if "items" in schema else "string"


def _alternative(choices: list[Any], *, deep: bool) -> Schema:
    """The first alternative that is not null; far down the plainest one, so that recursive schemas end."""
    real: list[Any] = [c for c in choices if is_object(c) and c.get("type") != "null"]
    if not deep:
        return real[0] if real else {"type": "null"}
    plain: list[Any] = [c for c in real if not re.search(r"\$ref|object|array", str(c))]
    if len(real) < len(choices) or not real:
        return {"type": "null"}
    chosen: Schema = (plain or real)[0]
    return chosen


def _merge(parts: list[Schema]) -> Schema:
    merged: Schema = {}
    for part in parts:
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", []), *part.get("required", [])]
        merged = {**merged, **part}
        if properties:
            merged |= {"properties": properties, "required": required}
    return merged

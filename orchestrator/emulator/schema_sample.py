"""The smallest value that a JSON schema allows: what a model that says little would say."""

from collections.abc import Mapping
from typing import Any

# A schema that refers to itself has no smallest value at the bottom; this deep it gets null.
DEPTH_MAX = 20


def sample(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A minimal value for this schema; null where the schema says nothing that is understood."""
    root = schema if root is None else root
    if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
        return None
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    for listed in ("enum", "examples"):
        if isinstance(schema.get(listed), list) and schema[listed]:
            return schema[listed][0]
    if isinstance(schema.get("$ref"), str):
        return sample(_follow(schema["$ref"], root), root, depth + 1)
    for several in ("anyOf", "oneOf"):
        if isinstance(schema.get(several), list) and schema[several]:
            return sample(schema[several][0], root, depth + 1)
    if isinstance(schema.get("allOf"), list):
        schema = _merged(schema)
    return _of_type(schema, root, depth)


def _of_type(schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind == "object" or (kind is None and "properties" in schema):
        return _object(schema, root, depth)
    if kind == "array":
        item = sample(schema.get("items"), root, depth + 1)
        return [item] * min(_whole(schema.get("minItems")), 100)
    if kind == "string":
        return "text".ljust(min(_whole(schema.get("minLength")), 10_000), "x")
    if kind in {"integer", "number"}:
        low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
        if isinstance(above, int | float) and not isinstance(above, bool):
            return above + 1
        return low if isinstance(low, int | float) else 0
    return True if kind == "boolean" else None


def _object(schema: Mapping[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return {}
    return {
        name: sample(properties.get(name), root, depth + 1)
        for name in required
        if isinstance(name, str)
    }


def _merged(schema: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(schema)
    for part in schema["allOf"]:
        if isinstance(part, Mapping):
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            required = [*merged.get("required", []), *part.get("required", [])]
            merged |= {**part, "properties": properties, "required": required}
    return merged


def _follow(reference: str, root: Any) -> Any:
    found = root
    for step in reference.removeprefix("#").split("/"):
        if step:
            found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0

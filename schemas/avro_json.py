"""The way between the JSON text of an envelope and the datum of its Avro schema, and nothing lost on it."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, Iterator, List, Tuple

import fastavro
import fastavro.validation

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
DECODER = json.JSONDecoder()


def members(text: str) -> Dict[str, str]:
    """The members of a JSON object, each value as the text it came in."""
    found: Dict[str, str] = {}
    at = skip(text, 0)
    if text[at] != "{":
        raise ValueError(f"not an object: {text[:40]}")
    at = skip(text, at + 1)
    while text[at] != "}":
        name, at = DECODER.raw_decode(text, at)
        at = skip(text, skip(text, at) + 1)
        _, end = DECODER.raw_decode(text, at)
        if name in found:
            raise ValueError(f"{name} stands twice")
        found[name] = text[at:end]
        at = skip(text, end)
        if text[at] == ",":
            at = skip(text, at + 1)
    return found


def items(text: str) -> List[str]:
    """The items of a JSON array, each as the text it came in."""
    found = []
    at = skip(text, 1)
    while text[at] != "]":
        _, end = DECODER.raw_decode(text, at)
        found.append(text[at:end])
        at = skip(text, end)
        if text[at] == ",":
            at = skip(text, at + 1)
    return found


def skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def kind_of(schema: Any) -> str:
    """The Avro type, with the two that JSON writes in another way told apart."""
    if isinstance(schema, list):
        return "optional"
    if isinstance(schema, str):
        return schema
    if schema.get("contentType") == "application/json":
        return "json"
    return str(schema.get("logicalType", schema["type"]))


def to_avro(schema: Any, text: str) -> Any:
    """JSON text as the datum of an Avro schema."""
    kind = kind_of(schema)
    if kind == "record":
        given = members(text)
        datum = {}
        for field in schema["fields"]:
            value = given.pop(field["name"], None)
            if value is not None:
                datum[field["name"]] = to_avro(field["type"], value)
            elif "default" in field:
                datum[field["name"]] = field["default"]
            else:
                raise ValueError(f"{field['name']} is missing")
        if given:
            raise ValueError(f"the Avro schema has no {', '.join(given)}")
        return datum
    if kind == "optional":
        return to_avro(schema[1], text)
    if kind == "json":
        return text
    if kind == "array":
        return [to_avro(schema["items"], item) for item in items(text)]
    if kind == "map":
        return {name: to_avro(schema["values"], value) for name, value in members(text).items()}
    if kind == "timestamp-millis":
        moment = datetime.strptime(json.loads(text), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
        return (moment - EPOCH) // timedelta(milliseconds=1)
    return json.loads(text)


def to_json(schema: Any, datum: Any) -> str:
    """What [`to_avro`] was given, from the datum."""
    kind = kind_of(schema)
    if kind == "record":
        fields = ((field, datum[field["name"]]) for field in schema["fields"])
        parts = [f'"{field["name"]}":{to_json(field["type"], value)}' for field, value in fields if value is not None]
        return "{" + ",".join(parts) + "}"
    if kind == "optional":
        return to_json(schema[1], datum)
    if kind == "json":
        return str(datum)
    if kind == "array":
        return "[" + ",".join(to_json(schema["items"], item) for item in datum) + "]"
    if kind == "map":
        return "{" + ",".join(f"{json.dumps(k)}:{to_json(schema['values'], v)}" for k, v in datum.items()) + "}"
    if kind == "timestamp-millis":
        return json.dumps(datum.strftime("%Y-%m-%dT%H:%M:%S.") + f"{datum.microsecond // 1000:03}Z")
    return json.dumps(datum, ensure_ascii=False)


def named_types(schema: Any) -> Iterator[Tuple[str, Any]]:
    """Every named type in a schema, with its definition."""
    if isinstance(schema, list):
        for branch in schema:
            yield from named_types(branch)
    elif isinstance(schema, dict):
        if schema["type"] in ("record", "enum", "fixed"):
            yield schema["name"], {key: value for key, value in schema.items() if key != "namespace"}
        for field in schema.get("fields", []):
            yield from named_types(field["type"])
        for inner in ("items", "values"):
            yield from named_types(schema.get(inner, "null"))


def encode(schema: Any, datum: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, datum, strict=True)
    return out.getvalue()


def refused(schema: Any, datum: Any) -> bool:
    try:
        return not fastavro.validation.validate(datum, schema, raise_errors=False, strict=True)
    except Exception:  # noqa: BLE001 - any refusal will do
        return True

#!/usr/bin/env python3
"""Checks the schemas in this folder against the golden files, the Rust sources, and each other.

With a topic (events.ingest.v1) and files it checks records instead: one value per line, `-` for standard input.

Needs Python 3.9 or newer with requirements.txt installed. Prints one line for each thing it checked;
exits 1 when something does not hold, 2 when it cannot check at all.
"""

from __future__ import annotations

import copy
import io
import json
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

from mutations import ALLOWED, BROKEN, general_mutations

try:
    import fastavro
    from avro_json import encode, kind_of, named_types, refused, to_avro, to_json
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource
except ImportError as error:
    print(f"check.py: {error}; pip install -r schemas/requirements.txt", file=sys.stderr)
    sys.exit(2)

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "crates" / "event" / "src"

TOPICS = [
    "events/events.ingest.v1",
    "events/events.transformed.v1",
    "events/events.retry.v1",
    "events/events.dlq.v1",
    "usage/usage.requests.v1",
    "functions/functions.log.v1",
]


class Fault(Exception):
    """Something that does not hold."""


# ---------------------------------------------------------------- JSON Schema


def load_schemas() -> Dict[str, Any]:
    """Every JSON Schema of this folder by its path, each valid in itself."""
    schemas = {}
    for path in sorted(HERE.rglob("*.schema.json")):
        schema = json.loads(path.read_text("utf-8"))
        Draft202012Validator.check_schema(schema)
        schemas[path.relative_to(HERE).as_posix()] = schema
    return schemas


class Validators:
    """Validators by reference; a schema's base is where it lies, so references between files are relative."""

    def __init__(self, schemas: Dict[str, Any]) -> None:
        resources = [((HERE / name).as_uri(), Resource.from_contents(schema)) for name, schema in schemas.items()]
        self._registry: Any = Registry().with_resources(resources)

    def of(self, reference: str) -> Draft202012Validator:
        path, _, fragment = reference.partition("#")
        uri = (HERE / path).as_uri() + (f"#{fragment}" if fragment else "")
        return Draft202012Validator({"$ref": uri}, registry=self._registry)


def first_error(validator: Draft202012Validator, value: Any) -> str:
    errors = sorted(validator.iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
    if not errors:
        return ""
    place = "/".join(map(str, errors[0].absolute_path)) or "the whole"
    return f"{place}: {errors[0].message}"


# --------------------------------------------------------------- Rust sources


def lists_of_code() -> Dict[str, List[str]]:
    """The closed lists of crates/event/src/code.rs: the enum's name and its spellings in order."""
    text = (SOURCE / "code.rs").read_text("utf-8")
    lists = {}
    for block in re.findall(r"^closed_list! \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        name = re.search(r"^    (\w+) \{", block, re.MULTILINE)
        if name is None:
            raise Fault("code.rs: a closed list without a name")
        lists[name[1]] = re.findall(r'^        \w+ = "([a-z_]+)",', block, re.MULTILINE)
    return lists


def check_codes(definitions: Any) -> int:
    expected = lists_of_code()
    names = {
        "Verdict": "verdict",
        "KeyKind": "key_kind",
        "FunctionCode": "function_code",
        "IngestCode": "ingest_code",
        "RowCode": "row_code",
    }
    if set(expected) != set(names):
        raise Fault(f"code.rs has the lists {sorted(expected)}, this check knows {sorted(names)}")
    for rust, json_name in names.items():
        shown = definitions["$defs"][json_name]["enum"]
        if shown != expected[rust]:
            raise Fault(f"definitions.schema.json: {json_name} is not {rust} of code.rs: {set(shown) ^ set(expected[rust])}")
    return sum(map(len, expected.values()))


def check_headers(headers: Any) -> int:
    text = (SOURCE / "header.rs").read_text("utf-8")
    expected = set(re.findall(r'pub const \w+: &str = "([^"]+)";', text))
    shown = set(headers["properties"])
    if shown != expected:
        raise Fault(f"headers.schema.json: not the names of header.rs: {sorted(shown ^ expected)}")
    return len(expected)


def check_topics() -> int:
    text = (SOURCE / "topic.rs").read_text("utf-8")
    found = set(re.findall(r'\w+: "([a-z.]+\.v\d+)"\.into\(\)', text))
    if 'format!("events.retry-{name}.v1")' in text:
        found.add("events.retry.v1")
    shown = {topic.split("/")[1] for topic in TOPICS}
    if found != shown:
        raise Fault(f"topic.rs has other topics than this folder: {sorted(found ^ shown)}")
    return len(found)


# --------------------------------------------------------------------- the run


class Counts(NamedTuple):
    golden: int
    refused: int
    allowed: int


def golden_files(topic: str) -> List[Path]:
    found = sorted(path for path in (HERE / topic).parent.glob("*.golden.json") if belongs(path, topic))
    if not any(not is_headers(path) for path in found):
        raise Fault(f"{topic} has no golden file")
    return found


def belongs(path: Path, topic: str) -> bool:
    return path.name.startswith(topic.split("/")[1] + ".")


def is_headers(path: Path) -> bool:
    return path.name.endswith(".headers.golden.json")


def case_of(path: Path) -> str:
    return path.name[: -len(".golden.json")]


def check_json(validators: Validators, schemas: Dict[str, Any], topic: str, path: Path) -> Counts:
    if is_headers(path):
        kind = path.name.split(".")[1]
        validator = validators.of(f"events/headers.schema.json#/$defs/{kind}")
        kinds = schemas["events/headers.schema.json"]["$defs"]
        required: List[str] = list(kinds[kind].get("required", []))
        if kinds[kind].get("$ref") == "#/$defs/failure":
            required += kinds["failure"]["required"]
    else:
        validator = validators.of(f"{topic}.schema.json")
        required = schemas[f"{topic}.schema.json"]["required"]
    document = json.loads(path.read_text("utf-8"))
    error = first_error(validator, document)
    if error:
        raise Fault(f"{path.name}: {error}")

    broken = [*general_mutations(document, required), *BROKEN[case_of(path)]]
    for what, mutate in broken:
        if not first_error(validator, mutate(copy.deepcopy(document))):
            raise Fault(f"{path.name}: accepted {what}")
    allowed = ALLOWED.get(case_of(path), [])
    for what, mutate in allowed:
        error = first_error(validator, mutate(copy.deepcopy(document)))
        if error:
            raise Fault(f"{path.name}: refused {what}: {error}")
    return Counts(1, len(broken), len(allowed))


def check_avro(schema: Any, path: Path) -> int:
    """The golden bytes survive the way through Avro, and what is not of the schema does not enter it."""
    text = path.read_text("utf-8").rstrip("\n")
    parsed = fastavro.parse_schema(copy.deepcopy(schema))
    datum = to_avro(schema, text)
    data = encode(parsed, datum)
    back = to_json(schema, fastavro.schemaless_reader(io.BytesIO(data), parsed, None))
    if back != text:
        raise Fault(f"{path.name}: came back from Avro as {back}")

    for field in schema["fields"]:
        if "default" not in field and not refused(parsed, {k: v for k, v in datum.items() if k != field["name"]}):
            raise Fault(f"{path.name}: Avro takes it without {field['name']}")
        if kind_of(field["type"]) == "enum" and not refused(parsed, {**datum, field["name"]: "bored"}):
            raise Fault(f"{path.name}: Avro takes any {field['name']}")
    try:
        fastavro.schemaless_reader(io.BytesIO(data[:-1]), parsed, None)
    except (EOFError, IndexError, ValueError):
        return len(data)
    raise Fault(f"{path.name}: Avro reads a record that was cut short")


def check_enums(definitions: Any, avro: Dict[str, Any]) -> None:
    """Closed lists in Avro are those of the JSON Schemas."""
    of_json = {"KeyKind": "key_kind", "Verdict": "verdict"}
    for topic, schema in avro.items():
        for name, definition in named_types(schema):
            if name in of_json and definition["symbols"] != definitions["$defs"][of_json[name]]["enum"]:
                raise Fault(f"{topic}.avsc: {name} has other symbols than the JSON Schema")


def check_shared_types(avro: Dict[str, Any]) -> None:
    """A registry keeps one definition per full name, so files that repeat a type must agree on it."""
    seen: Dict[str, Tuple[str, Any]] = {}
    for topic, schema in avro.items():
        for name, definition in named_types(schema):
            full = f"{schema['namespace']}.{name}"
            first, known = seen.setdefault(full, (topic, definition))
            if known != definition:
                raise Fault(f"{topic}.avsc and {first}.avsc define {full} differently")


def check_nothing_is_left_over() -> None:
    known = {path for topic in TOPICS for path in golden_files(topic)}
    found = set(HERE.rglob("*.golden.json"))
    if found != known:
        raise Fault(f"golden files of no topic: {sorted(path.name for path in found - known)}")
    cases = {case_of(path) for path in found}
    for table in (BROKEN, ALLOWED):
        if set(table) - cases:
            raise Fault(f"mutations of no golden file: {sorted(set(table) - cases)}")


def run() -> None:
    schemas = load_schemas()
    definitions = schemas["definitions.schema.json"]
    avro = {topic: json.loads((HERE / f"{topic}.avsc").read_text("utf-8")) for topic in TOPICS}
    print(f"ok  {check_topics()} topics, {check_codes(definitions)} codes, "
          f"{check_headers(schemas['events/headers.schema.json'])} headers are those of crates/event")
    check_nothing_is_left_over()
    check_enums(definitions, avro)
    check_shared_types(avro)

    validators = Validators(schemas)
    for topic in TOPICS:
        for path in golden_files(topic):
            counts = check_json(validators, schemas, topic, path)
            line = f"ok  {path.name}: valid, {counts.refused} mutations refused, {counts.allowed} allowed"
            if not is_headers(path):
                line += f", {check_avro(avro[topic], path)} bytes of Avro and back"
            print(line)


def check_records(name: str, files: List[str]) -> None:
    """Values of real records against their topic's schemas, JSON and Avro."""
    topic = next((topic for topic in TOPICS if topic.split("/")[1] == name), None)
    if topic is None:
        raise Fault(f"{name} is no topic; there are {', '.join(topic.split('/')[1] for topic in TOPICS)}")
    validator = Validators(load_schemas()).of(f"{topic}.schema.json")
    schema = json.loads((HERE / f"{topic}.avsc").read_text("utf-8"))
    parsed = fastavro.parse_schema(copy.deepcopy(schema))
    count = 0
    for file in files:
        with (sys.stdin if file == "-" else open(file, encoding="utf-8")) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    error = first_error(validator, json.loads(line))
                    if error:
                        raise Fault(error)
                    encode(parsed, to_avro(schema, line.strip()))
                except (Fault, ValueError) as fault:
                    raise Fault(f"{file}:{number}: {fault}") from fault
                count += 1
    print(f"ok  {count} records of {name}")


def main() -> int:
    try:
        if len(sys.argv) > 2:
            check_records(sys.argv[1], sys.argv[2:])
        elif len(sys.argv) == 1:
            run()
        else:
            print("usage: check.py [TOPIC FILE...]", file=sys.stderr)
            return 2
    except (Fault, ValueError) as fault:
        print(f"check.py: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

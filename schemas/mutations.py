"""What each golden file may not become, and what it may: the cases of check.py that need no schema to be told."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Tuple

Mutation = Tuple[str, Callable[[Any], Any]]


def put(*path: Any) -> Callable[[Any], Any]:
    """Sets the value at a path, the path's last item being the value."""
    *steps, value = path

    def mutate(document: Any) -> Any:
        target = document
        for step in steps[:-1]:
            target = target[step]
        target[steps[-1]] = value
        return document

    return mutate


def cut(*steps: Any) -> Callable[[Any], Any]:
    """Removes what is at a path."""

    def mutate(document: Any) -> Any:
        target = document
        for step in steps[:-1]:
            target = target[step]
        del target[steps[-1]]
        return document

    return mutate


def general_mutations(document: Any, required: List[str]) -> Iterator[Mutation]:
    """What no topic may accept."""
    for name in required:
        yield f"without {name}", cut(name)
        yield f"{name} null", put(name, None)
    yield "with a member that the version does not know", put("surprise", 1)
    if "version" in document:
        yield "of version 2", put("version", 2)
        yield "of version '1'", put("version", "1")


UNREADABLE = {"workspace": "", "source": "", "message_id": "", "received_at": "2026-11-21T04:00:00.120Z"}


def unreadable(document: Any) -> Any:
    """The dead letter of a record that is no envelope."""
    reason = {"code": "invalid_record", "message": "the value is no ingest envelope of version 1"}
    kept = {name: value for name, value in document.items() if name != "original"}
    return {**kept, "origin": UNREADABLE, "reason": reason}


# What else must be refused, by golden file. Each line breaks one rule and nothing else.
BROKEN: Dict[str, List[Mutation]] = {
    "events.ingest.v1": [
        ("an unknown key kind", put("key_kind", "guest")),
        ("a time without its zone", put("received_at", "2026-11-21T04:00:00.120")),
        ("a time in seconds", put("received_at", "2026-11-21T04:00:00Z")),
        ("a time in another zone", put("sent_at", "2026-11-21T05:00:00.120+01:00")),
        ("a 13th month", put("sent_at", "2026-13-21T05:00:00.120Z")),
        ("a header in capitals", put("headers", {"User-Agent": "x"})),
        ("marks that are no list", put("marks", "skew_corrected")),
        ("an event that is a list", put("event", [])),
        ("an empty message id", put("message_id", "")),
    ],
    "events.transformed.v1.forward": [
        ("no output", put("outputs", [])),
        ("a reason", put("reason", {"code": "thrown", "message": ""})),
        ("an original", put("original", {})),
        ("an unknown verdict", put("verdict", "dead-letter")),
        ("an identity in capitals", put("id", "00000000000000AB-3-41")),
        ("an identity with a leading zero", put("id", "00000000000000ab-03-41")),
        ("an identity as a number", put("id", 41)),
        ("a table without its database", put("outputs", 0, "table", "events")),
        ("an output without its table", cut("outputs", 0, "table")),
        ("an output with an identity", put("outputs", 0, "id", "00000000000000ab-3-41")),
        ("an origin without its workspace", cut("origin", "workspace")),
        ("an origin that nobody knows", lambda document: {**document, "origin": UNREADABLE}),
        ("a negative attempt", put("attempt", -1)),
        ("a sub on a first attempt", put("sub", 0)),
    ],
    "events.transformed.v1.drop": [
        ("outputs", put("outputs", [{"destination": "d", "table": "a.b", "config_version": 1, "event": {}}])),
        ("an original", put("original", {})),
        ("an unknown code", put("reason", "code", "bored")),
    ],
    "events.transformed.v1.retry": [
        ("no original", cut("original")),
        ("no reason", cut("reason")),
        ("the code of a drop", put("reason", "code", "drop")),
        ("the code of a refused request", put("reason", "code", "journal_full")),
        ("a negative wait", put("retry_after_ms", -1)),
        ("a place that is no number", put("resume", "position", "1")),
        ("an original of another version", put("original", "version", 2)),
    ],
    "events.transformed.v1.dead_letter": [
        ("a workspace without a name", put("origin", "workspace", "")),
        ("a place to go on at", put("resume", {"chain": "c", "position": 0, "event": {}})),
        ("a wait", put("retry_after_ms", 1)),
    ],
    "events.retry.v1.rotor": [
        ("the gateway as its stage", put("stage", "ingest")),
        ("a first attempt", put("attempt", 0)),
        ("a table", put("table", "ws_demo.events")),
        ("the payload of the other stage", put("stage", "bulker")),
        ("no code", cut("reason", "code")),
    ],
    "events.retry.v1.bulker": [
        ("no table", cut("table")),
        ("no sub", cut("sub")),
        ("a sub that is too high", put("sub", 65536)),
        ("a chain to go on in", put("resume", {"chain": "c", "position": 0, "event": {}})),
        ("a payload without its origin", cut("payload", "origin")),
    ],
    "events.dlq.v1.bulker": [
        ("an origin without its time", cut("origin", "received_at")),
        ("an output without its event", cut("output", "event")),
        ("a reason", put("reason", {"code": "column_conflict", "message": ""})),
    ],
    "events.ingest.v1.headers": [("an attempt", put("attempt", "1"))],
    "events.transformed.v1.headers": [("an error", put("error-code", "thrown"))],
    "events.dlq.v1.bulker.headers": [
        ("an unknown code", put("error-code", "bored")),
        ("a time to be due", put("due-at", "2026-11-21T04:00:10.120Z")),
        ("a sub without its table", cut("table")),
        ("a number", put("attempt", 1)),
        ("a number with a sign", put("origin-offset", "-1")),
        ("no error code for other tools", cut("__connect.errors.exception.class.name")),
    ],
    "events.retry.v1.rotor.headers": [
        ("no time to be due", cut("due-at")),
        ("the gateway as its stage", put("stage", "ingest")),
        ("no identity", cut("id")),
    ],
    "usage.requests.v1": [
        ("a success that is not billable", put("billable", False)),
        ("a failure of ours that is billable", put("status_code", 503)),
        ("a status that is none", put("status_code", 99)),
        ("a path that is none", put("endpoint", "v1/batch")),
        ("an organization without a key", cut("api_key_id")),
    ],
    "usage.requests.v1.unknown_key": [("a key without its organization", put("api_key_id", "wk_1"))],
    "functions.log.v1": [
        ("an unknown level", put("level", "trace")),
        ("a message without end", put("message", "x" * 4097)),
        ("an event that nobody knows", cut("message_id")),
        ("a function's version alone", cut("function")),
        ("no line discarded", put("discarded", 0)),
    ],
    "functions.log.v1.loading": [("an attempt of no event", put("attempt", 0))],
}

# What must be accepted although the golden file does not show it.
ALLOWED: Dict[str, List[Mutation]] = {
    "events.ingest.v1": [
        ("no sent_at", cut("sent_at")),
        ("no ip", cut("ip")),
        ("an empty event", put("event", {})),
    ],
    "events.transformed.v1.drop": [
        ("no reason", cut("reason")),
        ("a function that throws and then drops", put("reason", "code", "thrown")),
    ],
    "events.transformed.v1.retry": [
        ("no place to go on at", cut("resume")),
        ("no wait", cut("retry_after_ms")),
    ],
    "events.transformed.v1.dead_letter": [
        ("an original that did not fit", cut("original")),
        ("a record that could not be read", unreadable),
    ],
    "events.retry.v1.rotor": [("no place to go on at", cut("resume"))],
    "events.ingest.v1.headers": [("no trace", cut("traceparent"))],
    "events.transformed.v1.headers": [("no trace", cut("traceparent"))],
    "events.dlq.v1.bulker.headers": [("no trace", cut("traceparent")), ("no field", cut("error-field"))],
    "usage.requests.v1": [
        ("a failure of ours", lambda document: {**document, "status_code": 503, "billable": False}),
    ],
}

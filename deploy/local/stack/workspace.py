"""Migrations, topics and the workspace `demo`, all made through millctl."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Dict, List, Optional

from . import console, files, rust
from .failure import Failure, tail
from .layout import ROOT, Layout
from .parts import Parts

NAME = "demo"
USED_BY_MILLCTL = ("kafka", "postgres", "clickhouse", "redis")
BROWSER_ORIGIN = "http://localhost"
KEYS = ("workspace", "write_key", "browser_key", "service_token", "table")


def settings(parts: Parts) -> Dict[str, str]:
    """The environment of millctl."""
    return {
        **parts.settings(USED_BY_MILLCTL),
        "MILLRACE__SECRETS__KEY_FILE": os.fspath(parts.layout.secrets_key),
    }


def prepare(parts: Parts) -> None:
    """Applies migrations and topics, and makes the workspace with its keys if it is not there."""
    if not parts.layout.secrets_key.exists():
        with console.step("making the key of secrets", quiet=True):
            millctl(parts, ["secret", "init-key"])
    databases = _running(parts, "postgres", "migrations are not applied") and _running(
        parts, "clickhouse", "migrations are not applied"
    )
    if databases:
        with console.step("applying migrations", quiet=True):
            millctl(parts, ["migrate", "up"])
    if _running(parts, "kafka", "topics are not applied"):
        with console.step("applying topics", quiet=True):
            millctl(parts, ["topics", "apply"])
    if databases:
        _ensure(parts)


def millctl(parts: Parts, arguments: List[str]) -> str:
    """Runs millctl against the stack and returns what it printed."""
    log = parts.layout.log / "millctl.log"
    with log.open("ab") as errors:
        done = subprocess.run(
            [str(rust.binary("millctl")), *arguments],
            cwd=ROOT,
            env={**os.environ, **settings(parts)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            check=False,
        )
    if done.returncode != 0:
        said = tail(log, 1)
        raise Failure(f"`millctl {' '.join(arguments)}` ended with status {done.returncode}: {said}", log)
    return done.stdout.decode()


def noted(layout: Layout) -> Dict[str, Optional[str]]:
    """The demo's entry in `status --json`: what was shown once and kept."""
    known = files.read_json(layout.demo) or {}
    return {key: known.get(key) for key in KEYS}


def _running(parts: Parts, name: str, otherwise: str) -> bool:
    """Whether a part of this stack can be used; a stranger at its port does not count."""
    part = parts[name]
    usable = (part.external is not None or part.pid() is not None) and part.unhealthy() is None
    if not usable:
        console.line(f"{name} is not running: {otherwise}")
    return usable


def _ensure(parts: Parts) -> None:
    """Makes the workspace; makes keys where those that were shown belong to another one or are lost."""
    made = _object(parts, ["workspace", "create", "--organization", NAME, "--tier", "enterprise", NAME, "--json"])
    known = files.read_json(parts.layout.demo) or {}
    if known.get("workspace") != made["workspace"]:
        known = {}
    known.update(workspace=made["workspace"], source=made["source"], destination=made["destination"])
    known["table"] = f"{made['database']}.{made['table']}"
    if not known.get("write_key"):
        known["write_key"] = _object(parts, _key("server"))["key"]
    if not known.get("browser_key"):
        known["browser_key"] = _object(parts, _key("browser", "--origin", BROWSER_ORIGIN))["key"]
    if not known.get("service_token"):
        known["service_token"] = _object(parts, ["token", "create", "--name", NAME, "--json"])["token"]
    files.write_json(parts.layout.demo, known, 0o600)


def _key(kind: str, *more: str) -> List[str]:
    return ["key", "create", "--workspace", NAME, "--kind", kind, *more, "--json"]


def _object(parts: Parts, arguments: List[str]) -> dict:
    printed = millctl(parts, arguments)
    try:
        return json.loads(printed)
    except ValueError:
        raise Failure(f"`millctl {' '.join(arguments)}` did not print one JSON object") from None

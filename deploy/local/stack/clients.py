"""`clients`: the official clients send what a person would, and ClickHouse has it as it was sent.

Needs Node.js, Go and a package registry for each; the packages are pinned in deploy/local/clients.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Dict, List, Tuple
from urllib.parse import urlencode

from . import console, downloads, files, lifecycle, locks, setup, workspace
from .failure import Failure
from .layout import DEPLOY, Layout
from .parts import Parts
from .parts.clickhouse import http_get

SOURCE = DEPLOY / "clients"
PATIENCE = 60.0
"""Seconds that one client may take, and events to arrive."""

CLIENTS = ("node", "browser-standard", "browser-batching", "python", "python-gzip", "go")
"""What the senders call themselves in their events."""


def run(arguments: List[str]) -> None:
    if arguments:
        raise Failure("`clients` takes no arguments")
    layout = Layout.local()
    parts = Parts(layout)
    with locks.held(layout.lock, "another command that starts or stops parts"):
        lifecycle.start(parts, lifecycle.chosen([]), setup.ensure(layout))
    home = _install(layout)
    marker = uuid.uuid4().hex[:8]
    noted = workspace.noted(layout)
    console.heading("sending events")
    for name, argv, key in (
        ("@segment/analytics-node", ["node", "node.mjs"], "write_key"),
        ("@segment/analytics-next on a page", ["node", "browser.mjs"], "browser_key"),
        ("segment-analytics-python", [str(home / "venv/bin/python3"), "python.py"], "write_key"),
        ("analytics-go", [str(home / "clients")], "write_key"),
    ):
        _send(layout, home, name, [*argv, parts["ingest"].address, noted[key] or "", marker])
    with console.step("comparing with ClickHouse"):
        _compare(parts, noted["table"] or "", marker)
    print(f"{len(CLIENTS)} clients, each event once in {noted['table']} as it was sent.")


def _send(layout: Layout, home: Path, name: str, argv: List[str]) -> None:
    log = layout.log / "clients.log"
    with console.step(f"events sent with {name}"), log.open("wb") as output:
        try:
            done = subprocess.run(
                argv, cwd=home, stdout=output, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{name} did not end within {PATIENCE:.0f} s", log) from error
    if done.returncode != 0:
        raise Failure(f"{name} could not send its events", log)


def _compare(parts: Parts, table: str, marker: str) -> None:
    wanted = sorted(_wanted())
    deadline = time.monotonic() + PATIENCE
    while True:
        found = sorted(_found(parts, table, marker))
        if found == wanted:
            return
        if time.monotonic() > deadline or len(found) > len(wanted):
            missing = [row for row in wanted if row not in found]
            strange = [row for row in found if row not in wanted]
            raise Failure(f"missing {missing}, not sent {strange}, {len(found)} rows", parts["bulker"].log)
        time.sleep(0.1)


def _wanted() -> List[Tuple[str, ...]]:
    events = json.loads((SOURCE / "events.json").read_text(encoding="utf-8"))
    rows = []
    for client in CLIENTS:
        rows.append((client, "identify", f"{client}-user", ""))
        for event in events:
            sent = event["properties"]
            said = [
                sent["title"],
                float(sent["price"]),
                float(sent["quantity"]),
                sent["gift"],
                sent["address"]["city"],
                sent["address"]["zip"],
                sent["tags"],
            ]
            rows.append((client, event["name"], f"{client}-user", json.dumps(said, ensure_ascii=False)))
    return rows


def _found(parts: Parts, table: str, marker: str) -> List[Tuple[str, ...]]:
    # The columns are there once the first event of this kind has arrived.
    database, _, name = table.partition(".")
    statement = f"SELECT name FROM system.columns WHERE database = '{database}' AND table = '{name}'"
    if not {"clients_run", "address_city", "tags"} <= set(_query(parts, statement).split()):
        return []
    statement = (
        "SELECT client, type, event, user_id, title, price, quantity, gift, address_city, address_zip, tags "
        f"FROM {table} WHERE clients_run = '{marker}' FORMAT JSONEachRow "
        "SETTINGS output_format_json_quote_64bit_integers = 0"
    )
    return [_row(json.loads(line)) for line in _query(parts, statement).splitlines()]


def _row(row: Dict[str, object]) -> Tuple[str, ...]:
    if row["type"] == "identify":
        return (str(row["client"]), "identify", str(row["user_id"]), "")
    said = [
        row["title"],
        float(str(row["price"])),
        float(str(row["quantity"])),
        bool(row["gift"]),
        row["address_city"],
        row["address_zip"],
        row["tags"],
    ]
    return (str(row["client"]), str(row["event"]), str(row["user_id"]), json.dumps(said, ensure_ascii=False))


def _query(parts: Parts, statement: str) -> str:
    status, body = http_get(parts["clickhouse"].address, "/?" + urlencode({"query": statement}))
    if status != 200:
        raise Failure(f"ClickHouse refused a query: {body.decode('utf-8', 'replace').strip()}")
    return body.decode()


def _install(layout: Layout) -> Path:
    """A directory with the clients' packages as their lock files pin them."""
    home = layout.base / "clients"
    sources = sorted(SOURCE.iterdir())
    wanted = hashlib.sha256()
    for path in sources:
        wanted.update(path.read_bytes())
    home.mkdir(parents=True, exist_ok=True)
    stamp = home / "installed"
    if stamp.exists() and stamp.read_text() == wanted.hexdigest():
        return home
    for path in sources:
        shutil.copyfile(path, home / path.name)
    pip = [str(home / "venv/bin/python3"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for name, argv in (
        ("npm", ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]),
        ("venv", [sys.executable, "-m", "venv", "venv"]),
        ("pip", [*pip, "-r", "requirements.txt"]),
        ("go", ["go", "build", "-o", "clients", "."]),
    ):
        with console.step(f"installing clients: {name}"):
            downloads.run_logged(argv, layout.log / f"clients-{name}.log", cwd=home)
    files.write_text(stamp, wanted.hexdigest())
    return home

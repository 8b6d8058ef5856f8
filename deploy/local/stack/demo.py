"""`demo`: events from the official client and from curl, changed by a function, printed as ClickHouse returns them."""

from __future__ import annotations

import hashlib
import http.client
import json
import shlex
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from typing import Dict, List, Optional
from urllib.parse import urlencode

from . import console, downloads, files, lifecycle, locks, setup, workspace
from .failure import Failure
from .layout import DEPLOY, ROOT, Layout
from .parts import Parts
from .parts.clickhouse import http_get

SOURCE = DEPLOY / "demo"
FUNCTION = "demo-total"
MARKER = "enriched_by"
PATIENCE = 60.0
"""Seconds that the function may take to be in use, and events to arrive."""

COLUMNS = ("type", "event", "name", "user_id", "product", "price", "quantity", "total", MARKER)


def run(arguments: List[str]) -> None:
    if arguments:
        raise Failure("`demo` takes no arguments")
    began = time.monotonic()
    layout = Layout.local()
    parts = Parts(layout)
    with locks.held(layout.lock, "another command that starts or stops parts"):
        lifecycle.start(parts, lifecycle.chosen([]), setup.ensure(layout))
    client = _install_client(layout)
    demo = Demo(parts)
    console.heading("sending events")
    with console.step(f"function {FUNCTION} from deploy/local/demo/function.js"):
        demo.put_function()
        demo.wait_for_function()
    sent = demo.send_with_client(client)
    demo.send_with_curl()
    demo.wait_for(sent)
    print()
    print(demo.rows())
    print(f"{len(sent) + 1} events, each once in {demo.table}.")
    print(f"From curl's request to a row that can be queried: {demo.latency:.2f} s")
    print(_farewell(parts, layout, time.monotonic() - began))


class Demo:
    """One run. Its events carry the run's id, so that earlier runs stay out of the result."""

    def __init__(self, parts: Parts):
        noted = workspace.noted(parts.layout)
        self.parts = parts
        self.table = noted["table"] or ""
        self.write_key = noted["write_key"] or ""
        self.run = uuid.uuid4().hex[:8]
        self.latency = 0.0

    def put_function(self) -> None:
        arguments = ["--workspace", workspace.NAME, "--name", FUNCTION, "--promote", str(SOURCE / "function.js")]
        workspace.millctl(self.parts, ["function", "put", *arguments, "--json"])

    def wait_for_function(self) -> None:
        """Sends probes until one comes out with the function's mark: a change reaches the rotor a little later."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            message = f"probe-{uuid.uuid4()}"
            self._post_probe(message)
            row = self._row(message, min(deadline, time.monotonic() + 15))
            if row is not None and row.get(MARKER):
                return
        raise Failure(f"no event came out with the function's mark within {PATIENCE:.0f} s", self.parts["rotor"].log)

    def send_with_client(self, client: Path) -> List[str]:
        """Sends events with @segment/analytics-node and returns their message ids."""
        log = self.parts.layout.log / "demo-client.log"
        argv = ["node", "send.mjs", self.parts["ingest"].address, self.write_key, self.run]
        with console.step("events sent with @segment/analytics-node"), log.open("wb") as errors:
            done = subprocess.run(
                argv, cwd=client, stdout=subprocess.PIPE, stderr=errors, timeout=PATIENCE, check=False
            )
            if done.returncode != 0:
                raise Failure("the client could not send its events", log)
            return json.loads(done.stdout)

    def send_with_curl(self) -> None:
        """Sends one event with curl, shows the command, and measures until the row can be queried."""
        message = f"curl-{uuid.uuid4()}"
        event = {
            "messageId": message,
            "userId": "grace",
            "event": "Order Completed",
            "properties": {"product": "mill pond", "price": 1250, "quantity": 2, "demo_run": self.run},
        }
        url = f"{self.parts['ingest'].address}/v1/track"
        argv = ["curl", "-sS", "-u", self.write_key, "-H", "Content-Type: application/json"]
        argv += ["-d", json.dumps(event), url]
        console.line(" ".join(shlex.quote(word) for word in argv))
        sent = time.monotonic()
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False)
        answer = done.stdout.decode("utf-8", "replace").strip()
        console.line(f"{answer}  ({time.monotonic() - sent:.3f} s)")
        if done.returncode != 0 or '"success":true' not in answer.replace(" ", ""):
            raise Failure("curl's event was refused", self.parts["ingest"].log)
        if self._row(message, time.monotonic() + PATIENCE) is None:
            raise Failure(f"curl's event was not in {self.table} after {PATIENCE:.0f} s", self.parts["bulker"].log)
        self.latency = time.monotonic() - sent

    def wait_for(self, messages: List[str]) -> None:
        """Waits until each of the messages is there, and makes sure that none is there twice."""
        names = ", ".join(_quoted(message) for message in messages)
        deadline = time.monotonic() + PATIENCE
        while True:
            counted = self._query(
                f"SELECT count(), uniqExact(message_id) FROM {self.table} WHERE message_id IN ({names})"
            )
            rows, different = (int(number) for number in counted.split())
            if rows > different:
                raise Failure(f"{rows - different} rows are there more than once")
            if different == len(set(messages)):
                return
            if time.monotonic() > deadline:
                raise Failure(
                    f"{different} of {len(messages)} events arrived in {PATIENCE:.0f} s", self.parts["bulker"].log
                )
            time.sleep(0.05)

    def rows(self) -> str:
        database, _, table = self.table.partition(".")
        known = self._query(
            f"SELECT name FROM system.columns WHERE database = {_quoted(database)} AND table = {_quoted(table)}"
        ).split()
        columns = ", ".join(column for column in COLUMNS if column in known)
        return self._query(
            f"SELECT {columns} FROM {self.table} WHERE demo_run = {_quoted(self.run)} "
            "ORDER BY received_at, _partition, _seq FORMAT PrettyCompactMonoBlock "
            "SETTINGS output_format_pretty_color = 0, output_format_pretty_row_numbers = 0"
        )

    def _post_probe(self, message: str) -> None:
        event = {
            "messageId": message,
            "userId": "probe",
            "event": "Demo Probe",
            "properties": {"price": 1, "quantity": 1},
        }
        url = self.parts["ingest"].address.partition("//")[2]
        connection = http.client.HTTPConnection(url, timeout=10)
        try:
            body = json.dumps({**event, "writeKey": self.write_key})
            connection.request("POST", "/v1/track", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"ingest does not answer: {error}", self.parts["ingest"].log) from error
        finally:
            connection.close()
        if answer.status != 200:
            raise Failure(f"ingest answered {answer.status}: {text}", self.parts["ingest"].log)

    def _row(self, message: str, deadline: float) -> Optional[Dict[str, object]]:
        """The row of a message, None when it did not arrive in time."""
        while time.monotonic() < deadline:
            found = self._query(
                f"SELECT * FROM {self.table} WHERE message_id = {_quoted(message)} LIMIT 1 FORMAT JSONEachRow"
            )
            if found:
                return json.loads(found)
            time.sleep(0.02)
        return None

    def _query(self, statement: str) -> str:
        status, body = http_get(self.parts["clickhouse"].address, "/?" + urlencode({"query": statement}))
        if status != 200:
            raise Failure(f"ClickHouse refused a query: {body.decode('utf-8', 'replace').strip()}")
        return body.decode()


def _install_client(layout: Layout) -> Path:
    """The client's directory, its packages as the lock file pins them."""
    home = layout.base / "demo-client"
    wanted = hashlib.sha256()
    for name in ("package.json", "package-lock.json"):
        wanted.update((SOURCE / name).read_bytes())
    home.mkdir(parents=True, exist_ok=True)
    for path in SOURCE.iterdir():
        shutil.copyfile(path, home / path.name)
    stamp = home / "installed"
    if not stamp.exists() or stamp.read_text() != wanted.hexdigest():
        with console.step("installing @segment/analytics-node from npm"):
            argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            downloads.run_logged(argv, layout.log / "demo-client-install.log", cwd=home)
        files.write_text(stamp, wanted.hexdigest())
    return home


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _farewell(parts: Parts, layout: Layout, seconds: float) -> str:
    return "\n".join(
        [
            "",
            f"The demo took {seconds:.0f} s. Everything goes on running:",
            f"  ingest {parts['ingest'].address}   rotor {parts['rotor'].address}   bulker {parts['bulker'].address}",
            f"  ClickHouse {parts['clickhouse'].address}   Kafka {parts['kafka'].address}",
            f"  keys of the workspace: {(layout.demo).relative_to(ROOT)}   how it is: ./dev status",
            "",
            "Stop it with ./dev stop, remove its data with ./dev wipe.",
        ]
    )

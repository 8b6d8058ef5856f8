"""The three services of Millrace, as cargo built them."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import Callable, Dict, Optional, Tuple

from .. import rust
from ..failure import Failure
from ..layout import ROOT, Layout
from ..ports import Ports
from ..process import Command
from .clickhouse import http_get
from .part import Part, local


class Service(Part):
    """A service's own log is JSON, one object a line."""

    listen_setting: str
    uses: Tuple[str, ...]
    """The parts of the stack that it is configured with; a service refuses settings that it does not know."""

    def __init__(self, layout: Layout, ports: Ports, settings: Callable[[Tuple[str, ...]], Dict[str, str]]):
        super().__init__(layout, ports)
        # Asked when the service starts: the stack's ports may be chosen after this object was made.
        self._settings = settings

    def install(self) -> None:
        if not self.binary.exists():
            raise Failure(f"{self.binary.name} is not built")

    @property
    def binary(self) -> Path:
        return rust.binary(f"millrace-{self.name}")

    def command(self) -> Command:
        return Command(
            [str(self.binary)], ROOT, {**self._settings(self.uses), self.listen_setting: local(self.ports[self.name])}
        )

    def unhealthy(self) -> Optional[str]:
        try:
            status, body = http_get(self.address, "/ready")
        except (OSError, http.client.HTTPException) as error:
            return f"no answer at {self.address} ({error})"
        return (
            None if status == 200 else f"GET /ready answers {status}: {body[:200].decode('utf-8', 'replace').strip()}"
        )

    def status(self) -> Dict[str, object]:
        pid = self.pid()
        return {"url": self.address, "pid": pid, "ready": pid is not None and self.unhealthy() is None}

    def remark(self) -> str:
        """A build replaces the file; the process goes on with the old one."""
        try:
            program = os.readlink(f"/proc/{self.pid()}/exe")
        except OSError:
            return ""
        return f", but built anew since: `./dev restart {self.name}`" if program.endswith(" (deleted)") else ""

    def own_address(self) -> str:
        return f"http://{local(self.ports[self.name])}"

    def settings(self) -> Dict[str, str]:
        return {}


class Ingest(Service):
    name = "ingest"
    port_names = ["ingest"]
    uses = ("kafka", "postgres", "redis")
    listen_setting = "MILLRACE__HTTP__LISTEN"

    def command(self) -> Command:
        command = super().command()
        command.environment["MILLRACE__JOURNAL__DIR"] = os.fspath(self.layout.data / "journal")
        return command


class Rotor(Service):
    name = "rotor"
    port_names = ["rotor"]
    uses = ("kafka", "postgres", "redis")
    listen_setting = "MILLRACE__ADMIN__LISTEN"

    def command(self) -> Command:
        command = super().command()
        command.environment["MILLRACE__SECRETS__KEY_FILE"] = os.fspath(self.layout.secrets_key)
        return command


class Bulker(Service):
    name = "bulker"
    port_names = ["bulker"]
    uses = ("kafka", "clickhouse", "postgres", "redis")
    listen_setting = "MILLRACE__ADMIN__LISTEN"

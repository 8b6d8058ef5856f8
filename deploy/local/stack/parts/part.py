"""What every part can do: install, start, wait for health, stop, say where it listens."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Dict, List, Optional

from .. import console
from ..failure import Failure
from ..layout import Layout
from ..ports import HOST, Ports
from ..process import Command, Record


class Part(ABC):
    """One process of the stack. It owns its pid file, its log and its directory under `data`."""

    name: str
    port_names: List[str]
    override = ""
    """The environment variable that names an address to use instead of a process of ours."""
    stop_signal = signal.SIGTERM
    stop_grace = 20.0
    start_timeout = 60.0
    cancelled = threading.Event()
    """Set while an interrupted command waits for its threads: no part starts a process or waits for one then."""
    attempts = 1
    """How often the process may be started anew when it ends by itself before it is healthy."""

    def __init__(self, layout: Layout, ports: Ports):
        self.layout = layout
        self.ports = ports
        self.record = Record(layout.run / f"{self.name}.pid")

    # -- what a part has to say ----------------------------------------------------------------------------------

    @abstractmethod
    def install(self) -> None:
        """Makes the programs available; returns at once when they are."""

    @abstractmethod
    def command(self) -> Command:
        """Prepares directories and configuration and says how to start. Nothing runs when this is called."""

    @abstractmethod
    def unhealthy(self) -> Optional[str]:
        """Why it cannot be used yet; None once it can. Asks the real protocol, not only the port."""

    @abstractmethod
    def status(self) -> Dict[str, object]:
        """This part's entry in `status --json`."""

    @abstractmethod
    def own_address(self) -> str:
        """The address in the form that `override` has, when we run the part ourselves."""

    @abstractmethod
    def settings(self) -> Dict[str, str]:
        """The settings that make a service use this part."""

    def after_start(self) -> None:
        """Once it is healthy: what has to exist before anybody uses it."""

    def remark(self) -> str:
        """What a person should know about the running process."""
        return ""

    def wipe(self) -> None:
        """Removes data that does not lie in the stack's own directory."""

    # -- what all parts share ------------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        path = self.layout.data / self.name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def log(self) -> Path:
        return self.layout.log / f"{self.name}.log"

    @property
    def external(self) -> Optional[str]:
        """The address of a part that somebody else runs and that is to be used as it is."""
        named = os.environ.get(self.override, "").rstrip("/") if self.override else ""
        return named if named and named != self.own_address().rstrip("/") else None

    @property
    def address(self) -> str:
        return self.external or self.own_address()

    @property
    def shown_address(self) -> str:
        """The address for people's eyes, without a password."""
        return re.sub(r"//[^/@]*@", "//", self.address)

    def pid(self) -> Optional[int]:
        return None if self.external else self.record.pid()

    def start(self) -> None:
        """Starts it if it is not running and waits until it is healthy."""
        began = time.monotonic()
        if self.external:
            self._wait(None)
            console.line(f"{self.name:<11} used as it is at {self.shown_address}")
            return
        if self.record.pid() is not None:
            self._wait(None)
            console.line(f"{self.name:<11} running already at {self.shown_address}{self.remark()}")
            return
        for attempt in range(1, self.attempts + 1):
            command = self.command()
            self._stop_if_cancelled()
            process = self.record.spawn(command, self.log)
            if self._wait(process, last=attempt == self.attempts):
                break
            time.sleep(0.3)
        self.after_start()
        console.line(f"{self.name:<11} ready after {time.monotonic() - began:.1f} s at {self.shown_address}")

    def stop(self) -> Optional[str]:
        """Ends it if it is ours; says how, None when there was nothing to end."""
        return self.record.stop(self.stop_signal, self.stop_grace)

    def _wait(self, process, last: bool = True) -> bool:
        """Waits for health. False when the process ended by itself and another attempt is allowed."""
        deadline = time.monotonic() + self.start_timeout
        while True:
            self._stop_if_cancelled()
            reason = self.unhealthy()
            if reason is None:
                return True
            if process is not None and process.poll() is not None:
                if not last:
                    return False
                # The pid file stays: `status` is to show that the part went away by itself.
                raise Failure(f"{self.name} ended with status {process.returncode} while starting", self.log)
            if time.monotonic() > deadline:
                where = self.log if not self.external else None
                raise Failure(f"{self.name} is not healthy after {self.start_timeout:.0f} s: {reason}", where)
            time.sleep(0.05)

    def _stop_if_cancelled(self) -> None:
        if self.cancelled.is_set():
            raise Failure(f"{self.name}: interrupted")


def split_address(address: str) -> "tuple[str, int]":
    """Host and port of `host:port`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise Failure(f"`{address}` is not an address of the form host:port")
    return host.strip("[]"), int(port)


def connect(host: str, port: int, timeout: float = 2.0) -> socket.socket:
    return socket.create_connection((host, port), timeout=timeout)


def local(port: int) -> str:
    return f"{HOST}:{port}"

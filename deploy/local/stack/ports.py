"""Which port each part listens on: the well-known one when it is free, else a free one, and then the same one again."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from typing import Dict, Iterator, List

from . import console, files, locks, process
from .layout import Layout, cache

HOST = "127.0.0.1"

DEFAULTS: Dict[str, int] = {
    "kafka": 9092,
    "kafka_controller": 9093,
    "clickhouse_http": 8123,
    "clickhouse_native": 9000,
    "postgres": 5432,
    "redis": 6379,
    "ingest": 3049,
    "rotor": 3401,
    "bulker": 3042,
}


class Ports:
    """The ports of one stack, kept in its `ports.json`."""

    def __init__(self, layout: Layout):
        self._layout = layout
        noted = files.read_json(layout.ports) or {}
        self._known = {name: noted[name] for name in DEFAULTS if isinstance(noted.get(name), int)}

    def __getitem__(self, name: str) -> int:
        """The port of `name`; before the first start the one it would like to have."""
        return self._known.get(name, DEFAULTS[name])

    def is_settled(self, name: str) -> bool:
        return name in self._known

    def settle(self, names: List[str]) -> None:
        """Chooses ports for the parts in `names`, none of which is running, and keeps the choice.

        A port that somebody else took in the meantime is replaced, so a part that was stopped comes back even
        when another checkout has its old port.
        """
        with _claims() as claims:
            for name in names:
                wanted = self._known.get(name)
                if wanted is None and not self._layout.is_test:
                    wanted = DEFAULTS[name]
                taken = {port for port, claim in claims.items() if not claim["own"]}
                taken |= {port for other, port in self._known.items() if other != name}
                if wanted is None or wanted in taken or not is_free(wanted):
                    chosen = free_port(taken)
                    if wanted is not None:
                        console.line(f"port {wanted} is taken: {name} gets {chosen}")
                    wanted = chosen
                self._known[name] = wanted
                claims[wanted] = {"own": True}
            files.write_json(
                self._layout.ports, {name: self._known[name] for name in DEFAULTS if name in self._known}
            )


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections in TIME_WAIT do not count as taken; a listener does, even with this option.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(taken: set) -> int:
    """A free port below the range that the kernel hands to outgoing connections.

    A port out of that range could be lost to any client while the part is being restarted.
    """
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            ceiling = int(file.read().split()[0])
    except (OSError, ValueError):
        ceiling = 32768
    if ceiling > 12000:
        chance = random.SystemRandom()
        for _ in range(200):
            port = chance.randrange(11000, ceiling)
            if port not in taken and is_free(port):
                return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _claims() -> Iterator[Dict[int, dict]]:
    """Ports that a command running now has chosen but that nobody listens on yet.

    Services listen minutes after their ports were chosen, for they are built in between; without this two
    checkouts started together would choose the same ones. A claim ends with the process that made it.
    """
    path = cache() / "port-claims.json"
    with locks.held(cache() / ".port-claims.lock", "another checkout that chooses its ports"):
        live = {}
        for port, claim in (files.read_json(path) or {}).items():
            if process.start_ticks(claim["pid"]) == claim["start"]:
                live[int(port)] = {**claim, "own": claim["pid"] == os.getpid()}
        yield live
        me = {"pid": os.getpid(), "start": process.start_ticks(os.getpid())}
        kept = {
            str(port): me if claim["own"] else {"pid": claim["pid"], "start": claim["start"]}
            for port, claim in live.items()
        }
        files.write_json(path, kept)

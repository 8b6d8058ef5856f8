"""Redis from the distribution, with its append-only file on."""

from __future__ import annotations

import shutil
from typing import Dict, Optional
from urllib.parse import urlsplit

from .. import files
from ..failure import Failure
from ..process import Command
from .part import Part, connect, local


class Redis(Part):
    name = "redis"
    port_names = ["redis"]
    override = "MILLRACE_TEST_REDIS"

    def install(self) -> None:
        if shutil.which("redis-server") is None:
            raise Failure("redis-server is not installed: `./dev setup` does that")

    def command(self) -> Command:
        configuration = self.data / "redis.conf"
        files.write_text(configuration, self._configuration())
        return Command(["redis-server", str(configuration)], self.data)

    def unhealthy(self) -> Optional[str]:
        url = urlsplit(self.address)
        try:
            with connect(url.hostname or "", url.port or 6379) as stream:
                stream.sendall(b"PING\r\n")
                answer = stream.recv(128)
        except OSError as error:
            return f"no answer at {self.address} ({error})"
        # One that wants a password first is up; whether the address carries it, its user will find out.
        if answer.startswith((b"+PONG", b"-NOAUTH")):
            return None
        return answer.decode("utf-8", "replace").strip()

    def status(self) -> Dict[str, object]:
        return {"url": self.address, "pid": self.pid()}

    def own_address(self) -> str:
        return f"redis://{local(self.ports['redis'])}"

    def settings(self) -> Dict[str, str]:
        return {"MILLRACE__REDIS__URL": self.address}

    def _configuration(self) -> str:
        return "\n".join(
            [
                "bind 127.0.0.1",
                f"port {self.ports['redis']}",
                "daemonize no",
                f'dir "{self.data}"',
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "databases 16",
                "",
            ]
        )

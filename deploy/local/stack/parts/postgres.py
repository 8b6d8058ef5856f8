"""PostgreSQL from the distribution, as an ordinary process beside the distribution's own cluster, never touching it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, List, Optional

from .. import files
from ..failure import Failure, tail
from ..ports import HOST
from ..process import Command
from .part import Part, local

USER = "millrace"
DATABASE = "millrace"
SYSTEM_USER = "postgres"


class Postgres(Part):
    name = "postgres"
    port_names = ["postgres"]
    override = "MILLRACE_TEST_POSTGRES"
    # SIGTERM would wait for the last client to leave.
    stop_signal = signal.SIGINT
    # After kill -9 the old server's children need a moment to notice, and until then a new one refuses to start.
    attempts = 10

    def install(self) -> None:
        if programs() is None:
            raise Failure("PostgreSQL's server is not installed: `./dev setup` does that")

    def command(self) -> Command:
        home = self._home()
        if not (home / "PG_VERSION").exists():
            self._initialise(home)
        self._forget_dead_postmaster(home)
        settings = {
            "listen_addresses": HOST,
            "port": str(self.ports["postgres"]),
            # A socket's path may have 107 bytes at most, and a checkout may lie deeper than that.
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "64MB",
            # What the tests write is gone when they end.
            "fsync": "off" if self.layout.is_test else "on",
            "synchronous_commit": "off" if self.layout.is_test else "on",
            "log_line_prefix": "%m [%p] ",
        }
        argv = [str(_program("postgres")), "-D", str(home)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return Command(argv, Path("/"), user=_account())

    def unhealthy(self) -> Optional[str]:
        argv = [str(_program("pg_isready")), "-q", "-t", "2", "-d", self.shown_address]
        code = subprocess.call(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return None if code == 0 else f"it does not accept connections yet at {self.shown_address}"

    def after_start(self) -> None:
        """Creates the database. PostgreSQL has no CREATE DATABASE IF NOT EXISTS."""
        known = self._query("postgres", f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'")
        if not known.strip():
            self._query("postgres", f"CREATE DATABASE {DATABASE}")

    def status(self) -> Dict[str, object]:
        return {"url": self.address, "pid": self.pid()}

    def own_address(self) -> str:
        return f"postgres://{USER}:{self._password()}@{local(self.ports['postgres'])}/{DATABASE}"

    def settings(self) -> Dict[str, str]:
        return {"MILLRACE__POSTGRES__URL": self.address}

    def wipe(self) -> None:
        shutil.rmtree(self.layout.system_state, ignore_errors=True)

    def _home(self) -> Path:
        """The data directory: under the stack's own one unless the server's user cannot get there."""
        account = _account()
        own = self.layout.data / "postgres"
        if account is None or _reachable(own.parent, account):
            return own
        return self.layout.system_state / "postgres"

    def _initialise(self, home: Path) -> None:
        """Makes the cluster. A cluster that was only half made before is made again."""
        account = _account()
        if home.exists():
            shutil.rmtree(home)
        home.mkdir(parents=True, mode=0o755)
        os.chmod(home, 0o700)
        if account is not None:
            shutil.chown(home, account, account)
        log = self.layout.log / "postgres-initdb.log"
        argv = [str(_program("initdb")), "-D", str(home), "-U", USER, "--encoding=UTF8", "--locale=C.UTF-8"]
        if self.layout.is_test:
            argv.append("--no-sync")
        # In the system's temporary directory, since the server's user may not be able to read ours.
        with tempfile.NamedTemporaryFile("w") as password, log.open("wb") as output:
            password.write(self._password() + "\n")
            password.flush()
            if account is not None:
                shutil.chown(password.name, account, account)
            argv += ["--auth=scram-sha-256", f"--pwfile={password.name}"]
            options = Command(argv, Path("/"), user=account).options()
            code = subprocess.call(argv, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
        if code != 0:
            shutil.rmtree(home, ignore_errors=True)
            raise Failure(f"initdb ended with status {code}", log)

    def _forget_dead_postmaster(self, home: Path) -> None:
        """Removes the lock file of a server that was killed.

        PostgreSQL does so itself unless the pid was given to another process meanwhile. One that still runs on
        this directory without our knowing is left alone, and the start fails with a message.
        """
        lock = home / "postmaster.pid"
        try:
            pid = int(lock.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            argv = []
        if str(home).encode() in argv:
            raise Failure(f"a PostgreSQL that is not ours (pid {pid}) runs on {home}: end it with `kill -INT {pid}`")
        lock.unlink()

    def _password(self) -> str:
        """The superuser's password, made once per cluster; other users of the machine cannot read it."""
        path = self.layout.base / "postgres.password"
        try:
            return path.read_text().strip()
        except OSError:
            files.write_text(path, secrets.token_hex(16) + "\n", 0o600)
            return path.read_text().strip()

    def _query(self, database: str, statement: str) -> str:
        log = self.layout.log / "postgres-setup.log"
        argv = [str(_program("psql")), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database]
        # The command line of a process is there for all users to read; its environment is not.
        environment = {**os.environ, "PGHOST": HOST, "PGPORT": str(self.ports["postgres"]), "PGUSER": USER}
        environment["PGPASSWORD"] = self._password()
        with log.open("wb") as errors:
            done = subprocess.run(
                [*argv, "-c", statement],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                check=False,
            )
        if done.returncode != 0:
            raise Failure(f"PostgreSQL refused `{statement}`: {tail(log, 1)}", log)
        return done.stdout.decode()


def command_at(directory: Path, port: int, certificates: Optional[Path] = None) -> Command:
    """A server of a test's own in `directory`, on loopback; its superuser is `test` and needs no password.

    With `server.pem` and `server.key` of `certificates` it offers TLS.
    """
    account = _account()
    home = directory / "data"
    options = Command([], Path("/"), user=account).options()
    if not (home / "PG_VERSION").exists():
        if account is not None:
            shutil.chown(directory, account, account)
        argv = [str(_program("initdb")), "-D", str(home), "-U", "test", "--auth=trust", "--encoding=UTF8"]
        argv += ["--locale=C.UTF-8", "--no-sync"]
        if subprocess.call(argv, cwd="/", stdin=subprocess.DEVNULL, **options) != 0:
            raise Failure(f"initdb refused {home}")
    settings = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "shared_buffers": "16MB",
        "fsync": "off",
    }
    if certificates is not None:
        for name in ("server.pem", "server.key"):
            # The server insists that the key is its own, and nobody else's to read.
            shutil.copyfile(certificates / name, home / name)
            (home / name).chmod(0o600)
            if account is not None:
                shutil.chown(home / name, account, account)
        settings.update({"ssl": "on", "ssl_cert_file": "server.pem", "ssl_key_file": "server.key"})
    argv = [str(_program("postgres")), "-D", str(home)]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    return Command(argv, Path("/"), user=account)


def programs() -> Optional[Path]:
    """The directory of the newest installed server. Debian keeps it off the PATH, one directory per version."""
    found: List[Path] = []
    for path in Path("/usr/lib/postgresql").glob("*/bin/postgres"):
        if path.parent.parent.name.isdigit():
            found.append(path.parent)
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path else None


def _program(name: str) -> Path:
    home = programs()
    if home is None:
        raise Failure("PostgreSQL's server is not installed: `./dev setup` does that")
    return home / name


def _account() -> Optional[str]:
    """PostgreSQL refuses to run as root; then it runs as the user that its package made."""
    return SYSTEM_USER if os.geteuid() == 0 else None


def _reachable(directory: Path, account: str) -> bool:
    """Whether `account` may enter `directory`, asked of the kernel as that account."""
    options = Command([], Path("/"), user=account).options()
    return subprocess.call(["test", "-x", str(directory)], cwd="/", **options) == 0

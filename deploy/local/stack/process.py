"""Processes that outlive the command that started them, and the files that say which are ours.

A process is known by its pid, the boot it belongs to and its start time in clock ticks since that boot.
The kernel gives no two processes the same three, so a pid that was used again is never taken for ours.
A command line would be weaker: processes rewrite theirs.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, List, NoReturn, Optional

from . import files
from .failure import Failure


class Command:
    """How to start a process. `user` is the account it changes to; None keeps the caller's."""

    def __init__(
        self,
        argv: List[str],
        cwd: Path,
        environment: Optional[Dict[str, str]] = None,
        user: Optional[str] = None,
    ):
        self.argv = argv
        self.cwd = cwd
        self.environment = environment or {}
        self.user = user

    def options(self) -> dict:
        """The keyword arguments that `subprocess` needs to change the user."""
        if self.user is None:
            return {}
        import pwd

        entry = pwd.getpwnam(self.user)
        groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


    def become(self) -> NoReturn:
        """Turns this process into it."""
        if self.user is not None:
            import pwd

            entry = pwd.getpwnam(self.user)
            os.initgroups(entry.pw_name, entry.pw_gid)
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
        os.chdir(self.cwd)
        os.execv(self.argv[0], self.argv)


class Record:
    """One pid file."""

    def __init__(self, path: Path):
        self.path = path

    def pid(self) -> Optional[int]:
        """The pid while the process that this file names is alive, else None."""
        noted = files.read_json(self.path)
        if not noted or noted.get("boot") != _boot():
            return None
        pid = noted.get("pid")
        if not isinstance(pid, int) or start_ticks(pid) != noted.get("start"):
            return None
        return pid

    def exited(self) -> bool:
        """True when it was started, was not stopped, and is gone."""
        return self.path.exists() and self.pid() is None

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)

    def spawn(self, command: Command, log: Path) -> subprocess.Popen:
        """Starts `command` in a session of its own, its output appended to `log`, and writes the file."""
        _raise_file_limit()
        environment = {**os.environ, **command.environment}
        with log.open("ab") as output:
            try:
                process = subprocess.Popen(
                    command.argv,
                    cwd=command.cwd,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    **command.options(),
                )
            except OSError as error:
                raise Failure(f"cannot start {command.argv[0]}: {error.strerror}") from error
        noted = {"pid": process.pid, "start": start_ticks(process.pid), "boot": _boot(), "argv": command.argv}
        files.write_json(self.path, noted)
        return process

    def stop(self, polite: int, grace: float) -> Optional[str]:
        """Ends the process and returns how: "stopped", "killed", or None when it was not running.

        It gets `grace` seconds after the signal `polite`, then SIGKILL.
        """
        pid = self.pid()
        how = None
        if pid is not None:
            how = "stopped"
            _send(pid, polite)
            if not self._gone_within(grace):
                how = "killed"
                _send(pid, signal.SIGKILL)
                if not self._gone_within(10):
                    raise Failure(f"process {pid} does not go away")
        self.clear()
        return how

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.pid() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def start_ticks(pid: int) -> Optional[int]:
    """When the process began, in clock ticks since boot; None when there is none or only its zombie is left.

    A zombie with threads is still on its way out and holds its files and ports, so it counts as alive.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the name in parentheses and may itself hold spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    state, threads, start = fields[0], int(fields[17]), int(fields[19])
    gone = state == "X" or (state == "Z" and threads <= 1)
    return None if gone else start


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise Failure(f"process {pid} belongs to another user") from error


def _raise_file_limit() -> None:
    """Kafka and ClickHouse hold many files open; the soft limit of a login shell is often 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

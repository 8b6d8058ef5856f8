"""The one exception that ends a command with a message instead of a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Optional


class Failure(Exception):
    """Something a person has to know about; `log` is where the details are."""

    def __init__(self, message: str, log: Optional[Path] = None):
        super().__init__(message)
        self.log = log


def tail(path: Path, lines: int = 25) -> str:
    """The last lines of a log file, at most 64 KiB of them; empty when there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 65536))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])

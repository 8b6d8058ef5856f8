"""Where everything lies: the checkout, its `.local/` and the cache that checkouts share."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The checkout."""

DEPLOY = ROOT / "deploy" / "local"

SYSTEM_STATE = Path("/var/lib/millrace")
"""Data of processes whose user may not enter the checkout."""


class Layout:
    """The directories of one stack. It creates them when they are first asked for."""

    def __init__(self, base: Path):
        self.base = base

    @classmethod
    def local(cls) -> "Layout":
        """The stack that `start` runs."""
        return cls(ROOT / ".local")

    @classmethod
    def test(cls) -> "Layout":
        """The stack of `test`: its own ports and data, gone when the tests are over."""
        return cls(ROOT / ".local" / "test")

    @property
    def is_test(self) -> bool:
        return self.base.name == "test"

    @property
    def data(self) -> Path:
        return self._directory("data")

    @property
    def run(self) -> Path:
        return self._directory("run")

    @property
    def log(self) -> Path:
        return self._directory("log")

    @property
    def ports(self) -> Path:
        return self.base / "ports.json"

    @property
    def demo(self) -> Path:
        return self.base / "demo.json"

    @property
    def secrets_key(self) -> Path:
        """What secrets of workspaces are sealed under."""
        return self.base / "secrets.key"

    @property
    def lock(self) -> Path:
        self.base.mkdir(parents=True, exist_ok=True)
        return self.base / "lock"

    @property
    def system_state(self) -> Path:
        """This stack's directory under the system's state directory; not created here."""
        return SYSTEM_STATE / hashlib.sha256(str(self.base).encode()).hexdigest()[:12]

    def _directory(self, name: str) -> Path:
        path = self.base / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def cache() -> Path:
    """Downloads, shared by all checkouts of this user."""
    configured = os.environ.get("MILLRACE_CACHE")
    if configured:
        path = Path(configured).expanduser().resolve()
    else:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        path = Path(home) / "millrace"
    path.mkdir(parents=True, exist_ok=True)
    return path

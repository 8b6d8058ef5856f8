"""What people see: one line per step with the time it took, on standard error.

Standard output is left to results (`status --json`, `env`, the rows of the demo).
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from typing import Callable, Iterator, Optional

HEARTBEAT = 10.0
"""Seconds between signs of life where the output is not a terminal."""

_lock = threading.RLock()
_running: Optional["Step"] = None


class Step:
    """A step under way. `detail` may be replaced at any time; it is asked for what to show meanwhile."""

    def __init__(self, label: str):
        self.label = label
        self.detail: Callable[[], str] = lambda: ""
        self.began = time.monotonic()
        self._shown = self.began
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def _text(self) -> str:
        detail = self.detail()
        return f"{self.label} … {self.elapsed():.0f} s{'  ' + detail if detail else ''}"

    def _tick(self) -> None:
        while not self._over.wait(0.5):
            with _lock:
                if self._over.is_set():
                    return
                if sys.stderr.isatty():
                    self.draw()
                elif time.monotonic() - self._shown >= HEARTBEAT:
                    self._shown = time.monotonic()
                    print(f"   {self._text()}", file=sys.stderr, flush=True)

    def draw(self) -> None:
        width = _width()
        text = f"   {self._text()}"[:width]
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def start(self) -> None:
        self._ticker.start()

    def finish(self) -> None:
        self._over.set()


@contextlib.contextmanager
def step(label: str, quiet: bool = False) -> Iterator[Step]:
    """Shows a step while it runs; `quiet` leaves no line when it went well."""
    global _running
    outer, current = _running, Step(label)
    _running = current
    current.start()
    try:
        yield current
    except BaseException:
        current.finish()
        _running = outer
        line(f"{label}: failed after {current.elapsed():.1f} s")
        raise
    current.finish()
    _running = outer
    if quiet:
        _clear()
    else:
        line(f"{label}  ({current.elapsed():.1f} s)")


def line(text: str) -> None:
    """A line for people, above the step that is being shown."""
    with _lock:
        _clear()
        print(f"   {text}", file=sys.stderr, flush=True)
        if _running is not None and sys.stderr.isatty():
            _running.draw()


def heading(text: str) -> None:
    with _lock:
        _clear()
        print(f"== {text}", file=sys.stderr, flush=True)


def _clear() -> None:
    with _lock:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _width() -> int:
    return (shutil.get_terminal_size().columns or 80) - 1

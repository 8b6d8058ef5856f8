"""Advisory locks between processes. The kernel drops them when their holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Iterator

from . import console
from .failure import Failure


@contextlib.contextmanager
def held(path: Path, waiting_for: str, wait: bool = True) -> Iterator[None]:
    """Holds the lock file at `path`; says what it waits for when another process has it.

    The file is left behind on purpose: removing it would let two processes lock two files of one name.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise Failure(f"{waiting_for} is still going on in another terminal") from None
            with console.step(f"waiting for {waiting_for}"):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

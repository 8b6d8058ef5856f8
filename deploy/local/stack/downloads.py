"""Downloads kept in the shared cache: fetched once, published whole, guarded by a lock per download."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, Optional

from . import console, files, layout, locks
from .failure import Failure, tail


def published(name: str, fetch: Callable[[Path], None]) -> Path:
    """The cached directory `name`; where it is missing, `fetch` fills a temporary one that takes the name."""
    home = layout.cache()
    target = home / name
    if target.is_dir():
        return target
    with locks.held(home / f".{name}.lock", f"another checkout that downloads {name}"):
        if target.is_dir():
            return target
        for leftover in home.glob(f".{name}.part-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=home, prefix=f".{name}.part-"))
        try:
            fetch(temporary)
            os.chmod(temporary, 0o755)
            os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def run_logged(
    argv: List[str], log: Path, cwd: Optional[Path] = None, environment: Optional[Dict[str, str]] = None
) -> None:
    """Runs a noisy tool with its output in `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            code = subprocess.call(
                argv,
                cwd=cwd,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise Failure(f"cannot run {argv[0]}: {error.strerror}") from error
    if code != 0:
        raise Failure(f"`{' '.join(argv)}` ended with status {code}", log)


def growth(step: console.Step, path: Path, expected: int) -> None:
    """Shows how much of `expected` bytes lies below `path` while the step runs."""
    whole = expected / 1e6

    def detail() -> str:
        have = files.size_below(path) / 1e6
        return f"{min(have, whole):.0f} of {whole:.0f} MB"

    step.detail = detail


def last_line(log: Path) -> str:
    """What a noisy tool said last, short enough for a status line."""
    return tail(log, 1).strip()[:70]

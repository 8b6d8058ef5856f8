"""`lint`: formatting, clippy, dependency fences, schemas, this package's syntax, and the length of files."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List

from . import console, downloads, rust
from .failure import Failure
from .layout import DEPLOY, ROOT, Layout

LONGEST = 500
SOURCES = (".rs", ".py", ".sql", ".js", ".mjs", ".sh")
OLDEST_PYTHON = (3, 9)
SCHEMAS = ROOT / "schemas"


def run(arguments: List[str]) -> None:
    if arguments:
        raise Failure("`lint` takes no arguments")
    with console.step("file lengths"):
        _lengths()
    with console.step("Python syntax"):
        _python()
    _schemas()
    console.heading("cargo fmt")
    rust.cargo(["fmt", "--all", "--check"])
    console.heading("cargo clippy")
    rust.cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
    if shutil.which("cargo-deny") is None:
        console.line("cargo-deny is not installed: bans, licenses and sources of dependencies are not checked")
    else:
        console.heading("cargo deny")
        rust.cargo(["deny", "--workspace", "check", "bans", "licenses", "sources"])


def _schemas() -> None:
    """Every golden file against its JSON Schema and its Avro schema."""
    layout = Layout.local()
    requirements = SCHEMAS / "requirements.txt"
    stamp = layout.base / "schemas-requirements.txt"
    if not stamp.exists() or stamp.read_bytes() != requirements.read_bytes():
        with console.step("installing the schema validators"):
            argv = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-r", str(requirements)]
            downloads.run_logged(argv, layout.log / "schemas-install.log")
            stamp.write_bytes(requirements.read_bytes())
    with console.step("golden files against their schemas"):
        downloads.run_logged([sys.executable, str(SCHEMAS / "check.py")], layout.log / "schemas-check.log")


def sources() -> List[Path]:
    """The source files of the checkout, those that git ignores left out."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if done.returncode == 0:
        paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    else:
        # A copy without git: everything but what cargo and the stack write.
        own = {"target", ".local", "node_modules"}
        paths = [path for path in ROOT.rglob("*") if not own.intersection(path.relative_to(ROOT).parts)]
    return sorted(path for path in paths if path.suffix in SOURCES and path.is_file())


def _lengths() -> None:
    long = []
    for path in sources():
        with path.open("rb") as file:
            lines = sum(1 for _ in file)
        if lines > LONGEST:
            long.append(f"{path.relative_to(ROOT)} has {lines} lines")
    if long:
        raise Failure(f"files may have {LONGEST} lines at most:\n  " + "\n  ".join(long))


def _python() -> None:
    for path in sorted(DEPLOY.rglob("*.py")):
        try:
            ast.parse(path.read_bytes(), str(path), feature_version=OLDEST_PYTHON)
        except SyntaxError as error:
            raise Failure(f"{path.relative_to(ROOT)}:{error.lineno}: {error.msg}") from error

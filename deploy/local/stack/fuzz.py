"""`fuzz`: a fuzz target for some seconds, where there is a nightly compiler and cargo-fuzz."""

from __future__ import annotations

import argparse
import os
import subprocess
from typing import List

from . import console
from .failure import Failure
from .layout import ROOT, Layout

TARGETS = ("body", "encode", "frames", "head", "journal")
TOOLCHAIN = "nightly"
MEMORY = "/dev/shm"
"""Where files are in memory, on Linux."""
MOST_BYTES = 65536
"""Longest input: nothing in a target behaves differently beyond it."""


def run(arguments: List[str]) -> None:
    """`fuzz TARGET [--seconds N]`: starts from the corpus in the repository, keeps what it finds out of it."""
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=run.__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: 60)")
    chosen = parser.parse_args(arguments)
    _check_tools()
    found = Layout.local().base / "fuzz" / chosen.target
    found.mkdir(parents=True, exist_ok=True)
    artifacts = found / "failed"
    artifacts.mkdir(exist_ok=True)
    inputs = found / "corpus"
    inputs.mkdir(exist_ok=True)
    # The code is safe Rust: panics are what there is to find, and no sanitizer is needed for those.
    how = ["--fuzz-dir", "fuzz", "--features", chosen.target, "--sanitizer", "none", "--target-dir", _target()]
    how += [chosen.target]
    argv = ["cargo", f"+{TOOLCHAIN}", "fuzz", "run", *how]
    argv += [str(inputs), str(ROOT / "fuzz" / "corpus" / chosen.target), "--"]
    argv += [f"-max_total_time={chosen.seconds}", f"-max_len={MOST_BYTES}", "-timeout=20", "-rss_limit_mb=2048"]
    argv += [f"-artifact_prefix={artifacts}/", "-print_final_stats=1"]
    # The toolchain that cargo is told stands before the one of the repository.
    environment = {name: value for name, value in os.environ.items() if name != "RUSTUP_TOOLCHAIN"}
    # The journal's syncs are part of what runs: in memory they cost nothing.
    if "TMPDIR" not in environment and os.access(MEMORY, os.W_OK):
        environment["TMPDIR"] = MEMORY
    console.heading(f"building the target {chosen.target}; the first build takes minutes")
    build = ["cargo", f"+{TOOLCHAIN}", "fuzz", "build", *how]
    if subprocess.run(build, cwd=ROOT, env=environment).returncode != 0:
        raise Failure(f"`{chosen.target}` cannot be built")
    console.heading(f"fuzzing {chosen.target} for {chosen.seconds} s")
    code = subprocess.run(argv, cwd=ROOT, env=environment).returncode
    if code != 0:
        raise Failure(
            f"`{chosen.target}` failed with status {code}; an input that fails is in {artifacts.relative_to(ROOT)}:"
            f" mend the fault and add the input to fuzz/corpus/{chosen.target}, where the ordinary tests take it"
        )
    console.line(f"nothing failed; inputs that reach new code are in {inputs.relative_to(ROOT)}")


def _target() -> str:
    target = os.environ.get("CARGO_TARGET_DIR")
    return str((ROOT / target if target else ROOT / "target") / "fuzz")


def _check_tools() -> None:
    missing = []
    if not _answers(["cargo", f"+{TOOLCHAIN}", "--version"]):
        missing.append(f"`rustup toolchain install {TOOLCHAIN} --profile minimal`")
    if not _answers(["cargo", "fuzz", "--version"]):
        missing.append("`cargo install cargo-fuzz --locked`")
    if missing:
        raise Failure(f"fuzzing needs {' and '.join(missing)}; the corpus is tried without them by `./dev test`")


def _answers(argv: List[str]) -> bool:
    try:
        return subprocess.run(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False

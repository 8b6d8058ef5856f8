"""`bench`: the load programs, which measure what is shipped, and Criterion's benches for everything else."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Dict, List

from . import console, downloads, files, lifecycle, locks, rust, setup
from .failure import Failure
from .layout import ROOT, Layout
from .parts import STACK, Parts

ON_THE_STACK = ("bulker", "ingest")
"""Load programs that need Kafka and the databases."""

ALONE = ("rotor",)
"""Load programs that need none of them."""

ISOLATED_VM = ROOT / "benches" / "isolated-vm"


def build_release(arguments: List[str]) -> None:
    """`build-release CPU`: all programs, as they are shipped."""
    engine = setup.ensure(Layout.local())
    rust.build_release(engine, Layout.local().base, _cpu(arguments))
    console.line(f"the programs are in {rust.release(rust.ROTOR).parent.relative_to(ROOT)}")


def run(arguments: List[str]) -> None:
    """`bench CPU [NAME [flags]]`: a load program by its name; else everything goes to `cargo bench`."""
    cpu, rest = _cpu(arguments), arguments[1:]
    name = rest[0] if rest else ""
    layout = Layout.local()
    engine = setup.ensure(layout)
    if name not in (*ON_THE_STACK, *ALONE):
        rust.bench(engine, layout.base, cpu, rest)
        return
    # What cargo says goes to standard error, so that `--json` prints nothing but JSON.
    rust.build_release(engine, layout.base, cpu)
    program = str(rust.release(name))
    flags: List[str] = rest[1:]
    environment: Dict[str, str] = {}
    if name in ON_THE_STACK:
        with locks.held(layout.lock, "another command that starts or stops parts"):
            parts = Parts(layout)
            lifecycle.start(parts, list(STACK), engine)
        environment = parts.test_addresses()
    if name == "rotor" and not {"--help", "-h", "--isolated-vm"} & set(flags):
        flags = [*_isolated_vm(layout), *flags]
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execve(program, [program, *flags], {**os.environ, **environment})


def _cpu(arguments: List[str]) -> str:
    if not arguments:
        raise Failure("the processor to build for is missing")
    return arguments[0]


def _isolated_vm(layout: Layout) -> List[str]:
    """isolated-vm, compiled here; nothing where it cannot be had, for it is only there to compare with."""
    home = layout.base / "isolated-vm"
    sources = sorted(ISOLATED_VM.iterdir())
    wanted = hashlib.sha256()
    for path in sources:
        wanted.update(path.read_bytes())
    stamp = home / "installed"
    if not (stamp.exists() and stamp.read_text() == wanted.hexdigest()):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for path in sources:
            shutil.copyfile(path, home / path.name)
        log = layout.log / "isolated-vm.log"
        try:
            with console.step("installing isolated-vm with npm"):
                argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
                downloads.run_logged(argv, log, cwd=home)
            with console.step("compiling isolated-vm, for some minutes") as step:
                step.detail = lambda: downloads.last_line(log)
                argv = ["node", str(_node_gyp()), "rebuild", "--release", f"--nodedir={_headers()}"]
                downloads.run_logged(argv, log, cwd=home / "node_modules" / "isolated-vm")
        except Failure as failure:
            console.line(f"isolated-vm is left out: {failure}")
            return []
        files.write_text(stamp, wanted.hexdigest())
    return ["--isolated-vm", str(home)]


def _headers() -> Path:
    """Node's headers for the Node that runs: nothing is downloaded for them."""
    node = shutil.which("node")
    for prefix in ([Path(node).resolve().parent.parent] if node else []) + [Path("/usr")]:
        if (prefix / "include" / "node" / "node.h").exists() or (prefix / "include" / "node" / "common.gypi").exists():
            return prefix
    raise Failure("Node's headers are missing: `sudo apt-get install -y libnode-dev`, or a Node.js that brings them")


def _node_gyp() -> Path:
    """The node-gyp that npm brings, or the distribution's own."""
    npm = shutil.which("npm")
    places = [Path(npm).resolve().parents[1] / "node_modules" / "node-gyp"] if npm else []
    for place in (*places, Path("/usr/share/nodejs/node-gyp")):
        if (place / "bin" / "node-gyp.js").exists():
            return place / "bin" / "node-gyp.js"
    raise Failure("node-gyp is missing: `sudo apt-get install -y node-gyp`")

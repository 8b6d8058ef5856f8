"""What the machine needs, and getting it: with apt where we are root, else one command to type."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Callable, Dict, List, Optional

from . import console, downloads, files, rust
from .failure import Failure
from .layout import Layout, cache
from .parts import postgres

JAVA = 17
NODE = 20
NODE_PACKAGE = "22.23.3"
"""The version of the npm packages `node-linux-…`, which carry Node where the distribution's is older."""

POLICY = Path("/usr/sbin/policy-rc.d")
CLUSTER_POLICY = Path("/etc/postgresql-common/createcluster.d/millrace.conf")


class Need:
    """Something the machine has to have, and the packages that bring it."""

    def __init__(self, what: str, present: Callable[[], bool], *packages: str):
        self.what = what
        self.present = present
        self.packages = packages


def needs(engine: str) -> List[Need]:
    found = [
        Need("C compiler", lambda: _on_path("cc") and _on_path("c++"), "build-essential"),
        Need("make", lambda: _on_path("make"), "make"),
        Need("pkg-config", lambda: _on_path("pkg-config"), "pkg-config"),
        Need("OpenSSL headers", lambda: Path("/usr/include/openssl/ssl.h").exists(), "libssl-dev"),
        Need("zlib headers", lambda: Path("/usr/include/zlib.h").exists(), "zlib1g-dev"),
        Need("curl", lambda: _on_path("curl"), "curl", "ca-certificates"),
        Need(f"Java {JAVA}", lambda: _version("java", "-version") >= JAVA, _java_package()),
        Need("Maven", lambda: _on_path("mvn"), "maven"),
        Need("Node.js and npm", lambda: _on_path("node") and _on_path("npm"), "nodejs", "npm"),
        Need("PostgreSQL", lambda: postgres.programs() is not None, "postgresql"),
        Need("Redis", lambda: _on_path("redis-server"), "redis-server"),
    ]
    if engine == "quickjs":
        found.append(Need("CMake", lambda: _on_path("cmake"), "cmake"))
        found.append(Need("simde headers", lambda: Path("/usr/include/simde").is_dir(), "libsimde-dev"))
    return found


def ensure(layout: Layout, again: bool = False) -> str:
    """Installs what is missing and returns the engine to build with.

    Where nothing changed since the last time it looks at a few files and prints nothing; `again` looks at everything.
    """
    extend_path()
    stamp = files.read_json(_stamp(layout)) or {}
    if not again and "engine" in stamp and stamp.get("fingerprint") == _fingerprint():
        return stamp["engine"]
    _install(needs("v8"), layout.log / "apt.log")
    if _version("node", "--version") < NODE:
        _fetch_node(layout.log / "node-install.log")
        extend_path()
    if not rust.toolchain_present():
        rust.install_toolchain(layout.log / "rust-install.log")
        extend_path()
    engine = rust.choose_engine()
    if engine == "quickjs":
        ensure_quickjs(layout)
    files.write_json(_stamp(layout), {"engine": engine, "fingerprint": _fingerprint()})
    return engine


def ensure_quickjs(layout: Layout) -> None:
    """What only a build with QuickJS needs."""
    _install(needs("quickjs"), layout.log / "apt.log")


def extend_path() -> None:
    """Lets this process and its children find cargo and a Node that was downloaded."""
    entries = os.environ.get("PATH", "").split(os.pathsep)
    own_node = str(_own_node() / "bin")
    if os.path.isdir(own_node) and own_node not in entries:
        entries.insert(0, own_node)
    cargo = str(rust.cargo_home() / "bin")
    if os.path.isdir(cargo) and cargo not in entries:
        entries.append(cargo)
    os.environ["PATH"] = os.pathsep.join(entries)


# -- the check -------------------------------------------------------------------------------------------------------


def _stamp(layout: Layout) -> Path:
    return layout.base / "setup.json"


def _fingerprint() -> Dict[str, object]:
    """Every file the check depends on, with its time of change: equal fingerprints mean an equal outcome."""
    found: Dict[str, object] = {"rust": rust.channel()}
    for program in ("cc", "c++", "make", "pkg-config", "curl", "java", "mvn", "node", "npm", "redis-server", "cargo"):
        found[program] = _identity(shutil.which(program))
    found["postgres"] = _identity(str(postgres.programs() or ""))
    found["openssl"] = _identity("/usr/include/openssl/ssl.h")
    found["zlib"] = _identity("/usr/include/zlib.h")
    found["toolchain"] = rust.toolchain_present()
    found["library"] = [rust.has_library(), rust.offered_library().is_dir()]
    return found


def _identity(path: Optional[str]) -> Optional[str]:
    if not path:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return f"{os.path.realpath(path)} {status.st_mtime_ns} {status.st_size}"


def _on_path(program: str) -> bool:
    return shutil.which(program) is not None


def _version(program: str, flag: str) -> int:
    """The major version that a program reports; 0 when it is missing or does not run."""
    if not _on_path(program):
        return 0
    done = subprocess.run([program, flag], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    found = re.search(rb"(\d+)", done.stdout)
    return int(found.group(1)) if found and done.returncode == 0 else 0


def _java_package() -> str:
    """A headless runtime that is new enough: the distribution's default is not everywhere."""
    for version in (21, 17, 25):
        name = f"openjdk-{version}-jre-headless"
        if _on_path("apt-cache"):
            argv = ["apt-cache", "policy", name]
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
            if b"Candidate: " in done.stdout and b"Candidate: (none)" not in done.stdout:
                return name
    return "default-jre-headless"


# -- getting it ------------------------------------------------------------------------------------------------------


def _install(wanted: List[Need], log: Path) -> None:
    """Installs what is missing of `wanted`, or says how."""
    missing = [need for need in wanted if not need.present()]
    if not missing:
        return
    names = ", ".join(need.what for need in missing)
    if os.geteuid() != 0 or not _on_path("apt-get"):
        words = " ".join(package for need in missing for package in need.packages)
        command = f"sudo apt-get update && sudo apt-get install -y --no-install-recommends {words}"
        raise Failure(f"missing: {names}. On Debian or Ubuntu:\n\n    {command}\n")
    with console.step(f"installing with apt: {names}") as step:
        step.detail = lambda: downloads.last_line(log)
        _apt(["update"], log)
        # Asked again: which Java there is, apt knows only now.
        kinds = {need.what for need in missing}
        again = [need for need in needs("quickjs") if need.what in kinds]
        with _NoDaemons(units=["redis-server"] if "Redis" in kinds else []):
            packages = [package for need in again for package in need.packages]
            _apt(["install", "-y", "--no-install-recommends", *packages], log)
    still = [need.what for need in missing if not need.present()]
    if still:
        raise Failure(f"apt ended well, but still missing: {', '.join(still)}", log)


def _apt(arguments: List[str], log: Path) -> None:
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    downloads.run_logged(["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments], log, environment=environment)


class _NoDaemons:
    """Keeps packages from starting servers of their own while they are installed.

    The stack runs its own processes; a PostgreSQL or Redis that the package starts would take the usual ports.
    What is put in place here is removed again, and a policy that is already there stays. `units` come with the
    packages and must not start at the next boot either.
    """

    def __init__(self, units: List[str]):
        self._units = units

    def __enter__(self) -> None:
        self._placed: List[Path] = []
        self._place(POLICY, "#!/bin/sh\nexit 101\n", 0o755)
        self._place(CLUSTER_POLICY, "create_main_cluster = false\n", 0o644)

    def _place(self, path: Path, text: str, mode: int) -> None:
        if not path.exists():
            files.write_text(path, text, mode)
            self._placed.append(path)

    def __exit__(self, *_: object) -> None:
        for path in self._placed:
            path.unlink(missing_ok=True)
        if self._units and Path("/run/systemd/system").is_dir():
            argv = ["systemctl", "disable", "--quiet", *self._units]
            subprocess.call(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _own_node() -> Path:
    return cache() / f"node-{NODE_PACKAGE}"


def _fetch_node(log: Path) -> None:
    """Node from npm: the package `node` is a chooser between one package per platform, so ask for that at once."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine())
    if machine is None:
        raise Failure(f"put Node.js {NODE} or newer on the PATH: npm has none for {platform.machine()}")
    package = f"node-linux-{machine}@{NODE_PACKAGE}"

    def fetch(directory: Path) -> None:
        argv = ["npm", "pack", "--ignore-scripts", f"--cache={directory / 'npm'}", package]
        downloads.run_logged(argv, log, cwd=directory)
        (archive,) = directory.glob("*.tgz")
        (directory / "bin").mkdir()
        with tarfile.open(archive, "r:gz") as content:
            member = content.extractfile("package/bin/node")
            if member is None:
                raise Failure(f"{package} holds no bin/node")
            with (directory / "bin" / "node").open("wb") as output:
                shutil.copyfileobj(member, output, 1 << 20)
        os.chmod(directory / "bin" / "node", 0o755)
        archive.unlink()
        shutil.rmtree(directory / "npm", ignore_errors=True)

    with console.step(f"downloading Node.js {NODE_PACKAGE} from npm"):
        downloads.published(_own_node().name, fetch)

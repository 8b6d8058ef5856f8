"""Cargo: the toolchain, the JavaScript engine's library, and building the programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Dict, List, Optional

from . import console, downloads, files
from .failure import Failure
from .layout import ROOT

PACKAGES = ("millrace-ingest", "millrace-bulker", "millrace-millctl")
ROTOR = "millrace-rotor"
PROGRAMS = ("millrace-ingest", ROTOR, "millrace-bulker", "millctl")
BENCHES = "millrace-benches"
QUICKJS = ("--no-default-features", "--features", "engine-quickjs")
RUSTUP = ("https://sh.rustup.rs", "https://static.rust-lang.org/rustup/rustup-init.sh")
"""The official installer; the second address is where the first one leads."""
RUSTUP_FLAGS = ("-y", "--profile", "minimal", "--default-toolchain", "none", "--no-modify-path")
V8_HOST = "https://github.com/denoland/rusty_v8/releases/download"


def binary(name: str) -> Path:
    """A program of the development build."""
    target = os.environ.get("CARGO_TARGET_DIR")
    return (ROOT / target if target else ROOT / "target") / "debug" / name


def release(name: str) -> Path:
    """A program of the build that is shipped."""
    return binary(name).parents[1] / "dist" / name


def cargo_home() -> Path:
    return Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")


def channel() -> str:
    """The toolchain that the checkout asks for."""
    found = re.search(r'^channel\s*=\s*"([^"]+)"', (ROOT / "rust-toolchain.toml").read_text(), re.M)
    if found is None:
        raise Failure("rust-toolchain.toml names no channel")
    return found.group(1)


def toolchain_present() -> bool:
    """Whether the toolchain and its components are there; looks at files only, for it runs before every recipe."""
    if shutil.which("cargo") is None:
        return False
    if shutil.which("rustup") is None:
        # A toolchain that came another way: it has to be the right one.
        done = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, check=False, cwd=ROOT)
        return done.stdout.decode().startswith(f"rustc {channel()} ")
    home = Path(os.environ.get("RUSTUP_HOME") or Path.home() / ".rustup")
    programs = ("cargo", "rustc", "cargo-clippy", "rustfmt")
    for toolchain in home.glob(f"toolchains/{channel()}-*"):
        if all((toolchain / "bin" / program).exists() for program in programs):
            return True
    return False


def install_toolchain(log: Path) -> None:
    """Installs rustup where it is missing, then the toolchain."""
    if shutil.which("rustup") is None:
        with console.step("installing rustup"), tempfile.TemporaryDirectory() as home:
            installer = str(Path(home) / "rustup-init.sh")
            _fetch_rustup(installer, log)
            downloads.run_logged(["sh", installer, *RUSTUP_FLAGS], log)
        os.environ["PATH"] += os.pathsep + str(cargo_home() / "bin")
    with console.step(f"installing Rust {channel()}") as step:
        step.detail = lambda: downloads.last_line(log)
        argv = ["rustup", "toolchain", "install", channel(), "--profile", "minimal", "-c", "clippy", "-c", "rustfmt"]
        downloads.run_logged(argv, log)


def _fetch_rustup(target: str, log: Path) -> None:
    for url in RUSTUP:
        argv = ["curl", "--proto", "=https", "--tlsv1.2", "-sSfL", "--connect-timeout", "15", "-o", target, url]
        try:
            return downloads.run_logged(argv, log)
        except Failure:
            continue
    command = f"curl --proto '=https' --tlsv1.2 -sSf {RUSTUP[0]} | sh"
    raise Failure(f"rustup cannot be downloaded; once its host can be reached: {command}", log)


# -- the engine ------------------------------------------------------------------------------------------------------


def offered_library() -> Path:
    """The directory beside the checkout that may hold a V8 library."""
    return ROOT.parent / "shared" / "v8"


def place_library() -> None:
    """Puts a V8 library that lies beside the checkout where the `v8` crate looks before it downloads."""
    offered = offered_library()
    try:
        names = re.findall(r"https___\w+_a_gz", (offered / "README.md").read_text())
    except OSError:
        return
    home = cargo_home() / ".rusty_v8"
    for archive in offered.glob("*.a.gz"):
        for name in names:
            if not name.endswith(escaped(archive.name)):
                continue
            target = home / name
            if target.exists() and target.stat().st_size == archive.stat().st_size:
                continue
            home.mkdir(parents=True, exist_ok=True)
            part = home / f".{name[-40:]}.{os.getpid()}"
            shutil.copyfile(archive, part)
            os.replace(part, target)
            console.line(f"V8 library copied to {home}")


def has_library() -> bool:
    """Whether a build finds V8's library without a download."""
    if os.environ.get("RUSTY_V8_ARCHIVE"):
        return True
    return (cargo_home() / ".rusty_v8" / escaped(library_url())).exists()


def choose_engine() -> str:
    """`v8` where its library is there or can be downloaded, else `quickjs`."""
    place_library()
    if has_library() or _reachable(library_url()):
        return "v8"
    return "quickjs"


def warn_of_quickjs() -> None:
    rule = "!" * 90
    console.line(rule)
    console.line("V8's library is not here and its host cannot be reached: the rotor is built with QuickJS.")
    console.line("Functions run, slower and under other limits; this build is not the one that counts.")
    console.line("Once the host answers, or RUSTY_V8_ARCHIVE names a library, `./dev setup` goes back to V8.")
    console.line(rule)


def quickjs_environment(directory: Path) -> Dict[str, str]:
    """What a build of QuickJS needs: its WebAssembly part would clone simde, which Debian has as a package."""
    toolchain = directory / "quickjs-toolchain.cmake"
    files.write_text(toolchain, 'set(FETCHCONTENT_SOURCE_DIR_SIMDE /usr/include CACHE PATH "" FORCE)\n')
    return {"CMAKE_TOOLCHAIN_FILE": str(toolchain)}


def library_url() -> str:
    """The address that the `v8` crate would download from, for the version in Cargo.lock."""
    base = os.environ.get("RUSTY_V8_MIRROR") or V8_HOST
    found = re.search(r'name = "v8"\nversion = "([^"]+)"', (ROOT / "Cargo.lock").read_text())
    if found is None:
        raise Failure("Cargo.lock names no `v8`")
    return f"{base}/v{found.group(1)}/librusty_v8_simdutf_release_{os.uname().machine}-unknown-linux-gnu.a.gz"


def escaped(url: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", url)


def _reachable(url: str) -> bool:
    with console.step("looking for V8's library", quiet=True):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10):
                return True
        except (OSError, urllib.error.URLError, ValueError):
            return False


# -- building --------------------------------------------------------------------------------------------------------


def build(engine: str, scratch: Path, locked: bool = False) -> None:
    """Builds the services and millctl; cargo's own progress is what people see."""
    console.heading("building the services")
    flags = ["--locked"] if locked else []
    packages = [flag for package in PACKAGES for flag in ("-p", package)]
    if engine == "v8":
        cargo(["build", *flags, *packages, "-p", ROTOR])
    else:
        warn_of_quickjs()
        cargo(["build", *flags, *packages])
        cargo(["build", *flags, "-p", ROTOR, *QUICKJS], quickjs_environment(scratch))


def build_release(engine: str, scratch: Path, cpu: str) -> None:
    """Builds all programs for `cpu` (a name that `rustc --print target-cpus` knows) with the profile `dist`.

    Always the same packages: cargo would choose other features for another set and compile most of it anew.
    """
    packages = [flag for package in (*PACKAGES, ROTOR, BENCHES) for flag in ("-p", package)]
    engine_flags: List[str] = []
    if engine == "quickjs":
        warn_of_quickjs()
        engine_flags = ["--no-default-features", "--features"]
        engine_flags.append(f"{ROTOR}/engine-quickjs,{BENCHES}/engine-quickjs")
    environment = _as_shipped(engine, scratch, cpu)
    cargo(["build", "--profile", "dist", "--bins", *packages, *engine_flags], environment)
    for program in PROGRAMS:
        _has_no_failpoints(release(program))


def bench(engine: str, scratch: Path, cpu: str, arguments: List[str]) -> None:
    """Runs Criterion's benches, all unless the arguments name one by `--bench`, compiled as what is shipped."""
    which = [] if "--bench" in arguments else ["--bench", "*"]
    engine_flags = QUICKJS if engine == "quickjs" else ()
    environment = _as_shipped(engine, scratch, cpu)
    cargo(["bench", "--profile", "dist", "-p", BENCHES, *engine_flags, *which, *arguments], environment)


def _as_shipped(engine: str, scratch: Path, cpu: str) -> Dict[str, str]:
    environment = {"RUSTFLAGS": f"{os.environ.get('RUSTFLAGS', '')} -C target-cpu={cpu}".strip()}
    if engine == "quickjs":
        environment.update(quickjs_environment(scratch))
    return environment


def _has_no_failpoints(program: Path) -> None:
    """What is shipped cannot be told to kill itself: none of the names is in the binary."""
    text = (ROOT / "crates" / "service" / "src" / "failpoint.rs").read_text()
    names = re.findall(r'^    "([a-z]+::[a-z_]+)",$', text, re.MULTILINE)
    if not names:
        raise Failure("failpoint.rs lists no failpoints: the release build could not be checked for them")
    content = program.read_bytes()
    found = [name for name in names if name.encode() in content]
    if found:
        raise Failure(f"{program.relative_to(ROOT)} has failpoints: {', '.join(found)}")


def cargo(arguments: List[str], environment: Optional[Dict[str, str]] = None) -> None:
    """Runs cargo in the checkout, its output for people to see."""
    code = subprocess.call(["cargo", *arguments], cwd=ROOT, env={**os.environ, **(environment or {})})
    if code != 0:
        raise Failure(f"`cargo {' '.join(arguments)}` ended with status {code}")

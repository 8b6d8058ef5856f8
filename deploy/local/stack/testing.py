"""`test`: every test, on a stack of its own that is gone when the tests are over, however they end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import Dict, Iterator, List

from . import console, lifecycle, locks, rust, setup
from .failure import Failure
from .layout import DEPLOY, ROOT, Layout
from .parts import STACK, Parts
from .parts.part import Part


class Interrupted(Failure):
    """A signal asked us to end."""


def run(arguments: List[str]) -> None:
    """Runs the tests of the local stack and of the workspace; `arguments` go to `cargo test`."""
    layout = Layout.test()
    with signals_raise(), locks.held(layout.lock, "`./dev test`", wait=False):
        engine = setup.ensure(Layout.local())
        console.heading("testing deploy/local")
        _in_group(
            [sys.executable, "-m", "unittest", "discover", "-q", "-s", str(DEPLOY / "tests"), "-t", str(DEPLOY)], {}
        )
        # Everything at once: the binaries that the tests start are built with the tests, and no second time.
        console.heading("building the services and the tests")
        flags, environment = engine_flags(engine)
        if engine != "v8":
            rust.warn_of_quickjs()
        rust.cargo(["test", "--workspace", "--no-run", "--locked", *flags], environment)
        with stack(layout) as parts:
            console.heading("testing the workspace")
            _in_group(
                ["cargo", "test", "--workspace", "--locked", "--no-fail-fast", *flags, *arguments],
                {**parts.test_addresses(), **environment},
            )


def run_quickjs(arguments: List[str]) -> None:
    """The ordinary tests of the script crate, with the other engine."""
    setup.ensure_quickjs(Layout.local())
    environment = rust.quickjs_environment(Layout.local().base)
    rust.cargo(["test", "--locked", "-p", "millrace-script", *rust.QUICKJS, *arguments], environment)


@contextlib.contextmanager
def stack(layout: Layout) -> Iterator[Parts]:
    """The test stack while the block runs. What an earlier run left behind, killed with SIGKILL, goes first."""
    _remove(layout)
    parts = Parts(layout)
    console.heading("starting the stack of the tests")
    try:
        lifecycle.settle_ports(parts, list(STACK))
        lifecycle.start_stack(parts, list(STACK))
        # Tests that stop a broker start one of their own, also where the stack's is somebody else's.
        parts["kafka"].install()
        with _revived(parts["clickhouse"]):
            yield parts
    except BaseException:
        # The logs are what a failed test needs; the next run removes them.
        with _signals_ignored():
            console.line(f"the logs of the stack are in {layout.log.relative_to(ROOT)}")
            _stop(layout)
        raise
    with _signals_ignored():
        _remove(layout)


@contextlib.contextmanager
def _revived(part: Part) -> Iterator[None]:
    """Starts a part anew that ends by itself while the block runs, as an orchestrator would, and says so.

    Tests kill clients in the middle of their inserts. This version of ClickHouse may take the broken pipe for a fatal
    error of its own; what is tested has to live with that, and does.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            if part.external or part.record.pid() is not None:
                continue
            console.line(f"{part.name} ended by itself and is started anew; its log says why")
            with contextlib.suppress(Failure):
                part.start()

    watcher = threading.Thread(target=watch, name=f"watch-{part.name}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def engine_flags(engine: str) -> "tuple[List[str], Dict[str, str]]":
    if engine == "v8":
        return [], {}
    features = ("millrace-service/failpoints", "millrace-script/engine-quickjs", "millrace-rotor/engine-quickjs")
    flags = ["--no-default-features", "--features", ",".join(features)]
    return flags, rust.quickjs_environment(Layout.local().base)


def _stop(layout: Layout) -> None:
    parts = Parts(layout)
    lifecycle.stop(parts, list(STACK))
    for name in STACK:
        parts[name].wipe()
    shutil.rmtree(layout.base / "data", ignore_errors=True)
    for name in ("ports.json", "postgres.password"):
        (layout.base / name).unlink(missing_ok=True)


def _remove(layout: Layout) -> None:
    _stop(layout)
    for name in ("run", "log"):
        shutil.rmtree(layout.base / name, ignore_errors=True)


def _in_group(argv: List[str], environment: Dict[str, str]) -> None:
    """Runs a command in a process group of its own and ends the whole group with it.

    Tests start real binaries; one that is interrupted or crashes must not leave them behind.
    """
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        preexec_fn=os.setpgrp,
    )
    try:
        code = process.wait()
    finally:
        with _signals_ignored():
            with contextlib.suppress(ProcessLookupError):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(10)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code != 0:
        raise Failure(f"`{' '.join(argv[:3])} …` ended with status {code}")


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Turns the signals that end a command into an exception, so that every `finally` runs."""

    def interrupt(number: int, _: object) -> None:
        raise Interrupted(f"ended by {signal.Signals(number).name}")

    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(kind, interrupt) for kind in kinds]
    _end_with_parent()
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before):
            signal.signal(kind, handler)


def _end_with_parent() -> None:
    """Asks the kernel for SIGTERM when `just`, which started us, dies: it does not pass that signal on."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM, 0, 0, 0)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Lets the clean-up finish when Ctrl-C is pressed again."""
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(kind, signal.SIG_IGN) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before):
            signal.signal(kind, handler)

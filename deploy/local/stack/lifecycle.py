"""Starting and stopping parts in the right order."""

from __future__ import annotations

import threading
from typing import Callable, Dict, List, Sequence

from . import console, rust, workspace
from .failure import Failure
from .parts import SERVICES, STACK, Parts
from .parts.part import Part


def chosen(names: Sequence[str]) -> List[str]:
    """The parts that are meant, in the order in which they start; all of them when none is named."""
    known = (*STACK, *SERVICES)
    for name in names:
        if name not in known:
            raise Failure(f"there is no part `{name}`; the parts are {', '.join(known)}")
    return [name for name in known if name in names or not names]


def start(parts: Parts, names: List[str], engine: str) -> None:
    """Starts the named parts and returns when they are ready.

    A service that is named alone is started alone, whatever the stack's state is: it has to cope. What has to be
    applied to a part of the stack that does not run is left for the start that finds it running.
    """
    stack = [name for name in names if name in STACK]
    services = [name for name in names if name in SERVICES]
    settle_ports(parts, names)
    if stack:
        start_stack(parts, stack)
    if services:
        rust.build(engine, parts.layout.base)
        workspace.prepare(parts)
        _start_together(parts, services)


def start_stack(parts: Parts, names: List[str]) -> None:
    """Installs and starts the named parts of the stack; their ports were settled before."""
    for name in names:
        if not parts[name].external:
            parts[name].install()
    _start_together(parts, names)


def stop(parts: Parts, names: List[str]) -> None:
    """Stops the named parts, services before the stack they use."""
    for group in (SERVICES, STACK):
        wanted = [name for name in names if name in group and parts[name].record.pid() is not None]
        _together(wanted, lambda name: _stop_one(parts, name), "stopping")
        for name in names:
            if name in group:
                parts[name].record.clear()


def _stop_one(parts: Parts, name: str) -> None:
    how = parts[name].stop()
    if how:
        console.line(f"{name:<11} {how}")


def settle_ports(parts: Parts, names: List[str]) -> None:
    """Gives ports to the parts that are about to start, and to those that never had one.

    A service that starts alone must not find another checkout's Kafka at the usual port.
    """
    idle = []
    for name in (*STACK, *SERVICES):
        part = parts[name]
        new = not all(parts.ports.is_settled(port) for port in part.port_names)
        if not part.external and part.pid() is None and (new or name in names):
            idle += part.port_names
    parts.ports.settle(idle)


def _start_together(parts: Parts, names: List[str]) -> None:
    _together(names, lambda name: parts[name].start(), "starting")


def _together(names: List[str], action: Callable[[str], None], doing: str) -> None:
    """Runs the action for all names at once, waits for all of them, then reports the first fault."""
    if not names:
        return
    faults: Dict[str, BaseException] = {}

    def run(name: str) -> None:
        try:
            action(name)
        except BaseException as fault:
            faults[name] = fault

    threads = [threading.Thread(target=run, args=(name,), name=name) for name in names]
    with console.step(f"{doing} {', '.join(names)}", quiet=True) as step:
        step.detail = lambda: "waiting for " + ", ".join(thread.name for thread in threads if thread.is_alive())
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            # Interrupted: nobody may start another process once the caller cleans up.
            Part.cancelled.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            Part.cancelled.clear()
            raise
    found = [faults[name] for name in names if name in faults]
    for fault in found[1:]:
        console.line(str(fault))
    if found:
        raise found[0]

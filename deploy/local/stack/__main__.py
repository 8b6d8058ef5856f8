"""`python3 -m stack COMMAND …`: what the recipes of the justfile call."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Callable, Dict, List

from . import (
    bench,
    checks,
    clients,
    console,
    demo,
    fuzz,
    lifecycle,
    locks,
    prove,
    rust,
    setup,
    status,
    testing,
    workspace,
)
from .failure import Failure, tail
from .layout import ROOT, Layout
from .parts import SERVICES, STACK, Parts, postgres
from .parts.clickhouse import command_at

ONE_AT_A_TIME = "another command that starts or stops parts"


def run_setup(arguments: List[str]) -> None:
    """`--fast` trusts the last outcome where nothing changed and says nothing."""
    layout = Layout.local()
    fast = "--fast" in arguments
    with locks.held(layout.base / "setup.lock", "another setup"):
        engine = setup.ensure(layout, again=not fast)
    if not fast:
        console.line(f"nothing is missing; the rotor is built with {engine}")


def start(arguments: List[str]) -> None:
    layout = Layout.local()
    names = lifecycle.chosen(arguments)
    with locks.held(layout.lock, ONE_AT_A_TIME):
        lifecycle.start(Parts(layout), names, setup.ensure(layout))


def stop(arguments: List[str]) -> None:
    layout = Layout.local()
    names = lifecycle.chosen(arguments)
    with locks.held(layout.lock, ONE_AT_A_TIME):
        lifecycle.stop(Parts(layout), names)


def restart(arguments: List[str]) -> None:
    stop(arguments)
    start(arguments)


def show_status(arguments: List[str]) -> None:
    parts = Parts(Layout.local())
    print(json.dumps(status.document(parts)) if "--json" in arguments else status.table(parts))


def logs(arguments: List[str]) -> None:
    """`logs PART… [flags of tail]`; without a part it says which logs there are."""
    layout = Layout.local()
    names = [argument for argument in arguments if argument in (*STACK, *SERVICES)]
    flags = [argument for argument in arguments if argument not in names]
    paths = [str(Parts(layout)[name].log) for name in names]
    if not names:
        if flags:
            raise Failure(f"there is no part `{flags[0]}`; the parts are {', '.join((*STACK, *SERVICES))}")
        paths = sorted(str(path) for path in layout.log.glob("*.log"))
        print("\n".join(paths))
        return
    for path in paths:
        if not Path(path).exists():
            raise Failure(f"there is no log yet: {path}")
    os.execvp("tail", ["tail", *(flags or ["-n", "200"]), *paths])


def environment(_: List[str]) -> None:
    for name, value in Parts(Layout.local()).test_addresses().items():
        print(f"export {name}={value}")


def millctl(arguments: List[str]) -> None:
    """Runs millctl with the settings of the running stack."""
    parts = Parts(Layout.local())
    rust.cargo(["build", "--quiet", "-p", "millrace-millctl"])
    program = str(rust.binary("millctl"))
    os.execve(program, [program, *arguments], {**os.environ, **workspace.settings(parts)})


def cargo(arguments: List[str]) -> None:
    rust.cargo(arguments)


def clickhouse_at(arguments: List[str]) -> None:
    """Becomes a ClickHouse of a test's own: `clickhouse-at DIRECTORY HTTP_PORT NATIVE_PORT`."""
    directory, http, native = arguments
    command = command_at(Path(directory), int(http), int(native))
    os.chdir(command.cwd)
    os.execv(command.argv[0], command.argv)


def postgres_at(arguments: List[str]) -> None:
    """Becomes a PostgreSQL of a test's own: `postgres-at DIRECTORY PORT [CERTIFICATES]`."""
    directory, port, *certificates = arguments
    command = postgres.command_at(Path(directory), int(port), *map(Path, certificates))
    command.become()


def wipe(_: List[str]) -> None:
    """Stops everything and removes what the stack wrote; what was downloaded or built stays."""
    for layout in (Layout.local(), Layout.test()):
        with locks.held(layout.lock, ONE_AT_A_TIME):
            parts = Parts(layout)
            lifecycle.stop(parts, lifecycle.chosen([]))
            for name in STACK:
                parts[name].wipe()
            for name in ("data", "run", "log", "demo-client"):
                shutil.rmtree(layout.base / name, ignore_errors=True)
            for name in ("ports.json", "demo.json", "postgres.password"):
                (layout.base / name).unlink(missing_ok=True)
    console.line("all data, keys and logs of the local stack are gone")


COMMANDS: Dict[str, Callable[[List[str]], None]] = {
    "setup": run_setup,
    "start": start,
    "stop": stop,
    "restart": restart,
    "status": show_status,
    "logs": logs,
    "env": environment,
    "millctl": millctl,
    "cargo": cargo,
    "clickhouse-at": clickhouse_at,
    "postgres-at": postgres_at,
    "demo": demo.run,
    "clients": clients.run,
    "test": testing.run,
    "test-quickjs": testing.run_quickjs,
    "bench": bench.run,
    "build-release": bench.build_release,
    "lint": checks.run,
    "fuzz": fuzz.run,
    "prove": prove.run,
    "wipe": wipe,
}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: python3 -m stack {{{','.join(COMMANDS)}}} …", file=sys.stderr)
        return 64
    setup.extend_path()
    try:
        COMMANDS[sys.argv[1]](sys.argv[2:])
    except Failure as failure:
        _explain(failure)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of `status` or `logs` went away.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _explain(failure: Failure) -> None:
    if failure.log is not None:
        last = tail(failure.log)
        if last:
            print(f"\n-- last lines of {_relative(failure.log)}\n{last}\n--", file=sys.stderr)
    print(f"error: {failure}", file=sys.stderr)


def _relative(path: Path) -> str:
    try:
        return str(path.relative_to(ROOT))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main())

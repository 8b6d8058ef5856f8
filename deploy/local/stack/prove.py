"""`prove`: the long proofs, each a program of its own that takes its own flags (`prove NAME --help`)."""

from __future__ import annotations

import os
import sys
from typing import List, NamedTuple, Tuple

from . import lifecycle, locks, rust, setup
from .failure import Failure
from .layout import ROOT, Layout
from .parts import Parts


class Proof(NamedTuple):
    """A program that proves something: its package, and what must run for it."""

    package: str
    needs: Tuple[str, ...] = ()
    """Parts of the stack. Where any is needed, the services are built too: the program starts them itself."""
    test: str = ""
    """The package's test that is the program, for one that `./dev test` runs too, in short."""


PROOFS = {
    "model": Proof("millrace-model"),
    "freshness": Proof("millrace-freshness", ("kafka", "clickhouse", "postgres", "redis")),
    # Broker and ClickHouse are its own: it kills them.
    "chaos": Proof("millrace-chaos", ("postgres", "redis")),
    "hostile": Proof("millrace-rotor", ("kafka", "postgres", "redis"), test="hostile"),
}


def run(arguments: List[str]) -> None:
    """`prove NAME [flags]`: becomes the program, so that its exit status and its signals are its own."""
    name, flags = (arguments[0] if arguments else ""), arguments[1:]
    proof = PROOFS.get(name)
    if proof is None:
        raise Failure(f"there is no proof `{name}`; there are {', '.join(PROOFS)}")
    environment = {}
    if proof.needs and not {"--help", "-h"} & set(flags):
        layout = Layout.local()
        engine = setup.ensure(layout)
        rust.build(engine, layout.base)
        parts = Parts(layout)
        with locks.held(layout.lock, "another command that starts or stops parts"):
            lifecycle.start(parts, list(proof.needs), engine)
        for own in ("kafka", "clickhouse"):
            if own not in proof.needs:
                parts[own].install()
        environment = parts.test_addresses()
    if proof.test:
        rust.cargo(["test", "--quiet", "-p", proof.package, "--test", proof.test, "--", *flags], environment)
        return
    rust.cargo(["build", "--quiet", "-p", proof.package])
    program = str(rust.binary(proof.package))
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execve(program, [program, *flags], {**os.environ, **environment})

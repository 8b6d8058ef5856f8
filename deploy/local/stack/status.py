"""`status`: how every part is, for people and as JSON that scripts rely on."""

from __future__ import annotations

from typing import Dict, List

from . import workspace
from .parts import SERVICES, STACK, Parts
from .parts.part import Part
from .parts.service import Service


def document(parts: Parts) -> Dict[str, object]:
    """Every key is always there; `pid` is null where a part does not run or is not ours."""
    return {
        "services": {name: parts[name].status() for name in SERVICES},
        "stack": {name: parts[name].status() for name in STACK},
        "demo": workspace.noted(parts.layout),
    }


def table(parts: Parts) -> str:
    rows: List[List[str]] = [["PART", "STATE", "PID", "ADDRESS"]]
    for name in (*STACK, *SERVICES):
        part = parts[name]
        pid = part.pid()
        rows.append([name, _state(part), str(pid or "-"), part.shown_address])
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    demo = workspace.noted(parts.layout)
    if demo["workspace"]:
        lines += ["", f"workspace demo, table {demo['table']}; its keys are in {parts.layout.demo}"]
    gone = [name for name in (*STACK, *SERVICES) if parts[name].record.exited() and not parts[name].external]
    for name in gone:
        lines += ["", f"{name} went away by itself: `./dev logs {name}` shows why, `./dev start {name}` starts it"]
    return "\n".join(lines)


def _state(part: Part) -> str:
    if part.external:
        return "external" if part.unhealthy() is None else "external, no answer"
    if part.pid() is not None:
        reason = part.unhealthy()
        if reason is None:
            return "ready"
        return "not ready" if isinstance(part, Service) else "no answer"
    return "exited" if part.record.exited() else "stopped"

"""The parts of the stack, one module each, all of the shape in `part.py`."""

from __future__ import annotations

from typing import Dict, Tuple

from ..layout import DEPLOY, Layout
from ..ports import Ports
from .clickhouse import ClickHouse
from .kafka import Kafka
from .part import Part
from .postgres import Postgres
from .redis import Redis
from .service import Bulker, Ingest, Rotor

STACK = ("kafka", "clickhouse", "postgres", "redis")
SERVICES = ("ingest", "rotor", "bulker")


class Parts:
    """All parts of one stack, by name."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.ports = Ports(layout)
        stack = [kind(layout, self.ports) for kind in (Kafka, ClickHouse, Postgres, Redis)]
        services = [kind(layout, self.ports, self.settings) for kind in (Ingest, Rotor, Bulker)]
        self._by_name: Dict[str, Part] = {part.name: part for part in [*stack, *services]}

    def __getitem__(self, name: str) -> Part:
        return self._by_name[name]

    def settings(self, names: Tuple[str, ...]) -> Dict[str, str]:
        """The environment that makes a program of ours use these parts of the stack."""
        found: Dict[str, str] = {}
        for name in names:
            found.update(self[name].settings())
        return found

    def test_addresses(self) -> Dict[str, str]:
        """The environment that makes the tests use this stack."""
        addresses = {self[name].override: self[name].address for name in STACK}
        # For tests that kill a part of their own: the broker's jars, and what knows how to start a ClickHouse.
        own = {"MILLRACE_TEST_KAFKA_JARS": str(self["kafka"].jars()), "MILLRACE_TEST_STACK": str(DEPLOY)}
        return {**addresses, **own}

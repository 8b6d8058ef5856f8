"""Ports: the well-known one when it is free, the same one again, another when it is taken."""

import os
import socket
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from stack import files, ports, process
from stack.layout import Layout


class Ports(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.home = Path(directory.name)
        patch = mock.patch.dict(os.environ, {"MILLRACE_CACHE": str(self.home / "cache")})
        patch.start()
        self.addCleanup(patch.stop)
        self.free = ports.free_port(set())
        defaults = mock.patch.dict(ports.DEFAULTS, {"redis": self.free})
        defaults.start()
        self.addCleanup(defaults.stop)
        self.layout = Layout(self.home / ".local")

    def listen(self, port):
        taken = socket.socket()
        taken.bind((ports.HOST, port))
        taken.listen()
        self.addCleanup(taken.close)

    def settled(self, layout=None):
        chosen = ports.Ports(layout or self.layout)
        with mock.patch("stack.console.line"):
            chosen.settle(["redis"])
        return chosen["redis"]

    def test_the_well_known_port_is_taken_when_it_is_free(self):
        self.assertEqual(self.settled(), self.free)
        self.assertEqual(files.read_json(self.layout.ports), {"redis": self.free})

    def test_a_taken_port_is_replaced_and_the_choice_is_kept(self):
        self.listen(self.free)
        first = self.settled()
        self.assertNotEqual(first, self.free)
        self.assertEqual(self.settled(), first)

    def test_a_kept_port_that_somebody_took_is_replaced(self):
        first = self.settled()
        self.listen(first)
        self.assertNotEqual(self.settled(), first)

    def test_the_tests_never_take_the_well_known_port(self):
        self.assertNotEqual(self.settled(Layout(self.home / ".local" / "test")), self.free)

    def test_a_port_that_a_starting_checkout_chose_is_left_to_it(self):
        other = {"pid": os.getppid(), "start": process.start_ticks(os.getppid())}
        files.write_json(self.home / "cache" / "port-claims.json", {str(self.free): other})
        self.assertNotEqual(self.settled(), self.free)

    def test_a_claim_ends_with_its_process(self):
        gone = {"pid": os.getpid(), "start": 0}
        files.write_json(self.home / "cache" / "port-claims.json", {str(self.free): gone})
        self.assertEqual(self.settled(), self.free)

    def test_free_ports_lie_below_those_of_outgoing_connections(self):
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        if first <= 12000:
            self.skipTest("this machine hands out nearly all ports")
        self.assertLess(ports.free_port(set()), first)

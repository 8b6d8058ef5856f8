"""Pid files name a process only while it is the one that was started."""

import json
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from stack.process import Command, Record, start_ticks


class PidFiles(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.home = Path(directory.name)
        self.record = Record(self.home / "part.pid")

    def spawn(self, script="import time; time.sleep(60)"):
        process = self.record.spawn(Command([sys.executable, "-c", script], self.home), self.home / "part.log")
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_a_started_process_is_known_and_a_stopped_one_is_not(self):
        process = self.spawn()
        self.assertEqual(self.record.pid(), process.pid)
        self.assertEqual(self.record.stop(signal.SIGTERM, 10), "stopped")
        self.assertIsNone(self.record.pid())
        self.assertFalse(self.record.exited())

    def test_a_killed_process_is_shown_as_exited(self):
        process = self.spawn()
        process.kill()
        process.wait()
        self.assertIsNone(self.record.pid())
        self.assertTrue(self.record.exited())

    def test_a_zombie_is_not_alive(self):
        process = self.spawn("pass")
        # Not waited for: the process stays a zombie of ours.
        while start_ticks(process.pid) is not None:
            pass
        self.assertIsNone(self.record.pid())

    def test_a_pid_that_was_used_again_is_not_ours(self):
        self.spawn()
        noted = json.loads(self.record.path.read_text())
        self.record.path.write_text(json.dumps({**noted, "start": noted["start"] - 1}))
        self.assertIsNone(self.record.pid())
        self.assertIsNone(self.record.stop(signal.SIGTERM, 1))

    def test_a_pid_file_of_an_earlier_boot_is_not_ours(self):
        self.spawn()
        noted = json.loads(self.record.path.read_text())
        self.record.path.write_text(json.dumps({**noted, "boot": "another"}))
        self.assertIsNone(self.record.pid())

    def test_a_torn_pid_file_is_not_ours(self):
        self.record.path.write_text('{"pid": 1')
        self.assertIsNone(self.record.pid())

    def test_a_process_that_ignores_the_polite_signal_is_killed(self):
        ready = self.home / "ready"
        ignoring = (
            "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
        )
        process = self.spawn(ignoring)
        while not ready.exists():
            self.assertIsNone(process.poll())
        self.assertEqual(self.record.stop(signal.SIGTERM, 0.1), "killed")
        self.assertEqual(process.wait(), -signal.SIGKILL)

    def test_a_started_process_has_a_session_of_its_own_and_writes_to_its_log(self):
        process = self.spawn("import os; print(os.getsid(0) == os.getpid())")
        process.wait()
        self.assertEqual((self.home / "part.log").read_text(), "True\n")


class StartTicks(unittest.TestCase):
    def test_of_a_missing_process_is_none(self):
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        self.assertIsNone(start_ticks(process.pid))

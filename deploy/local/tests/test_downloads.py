"""Downloads are published whole or not at all, once."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from stack import downloads
from stack.failure import Failure


class Published(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cache = Path(directory.name) / "cache"
        patch = mock.patch.dict(os.environ, {"MILLRACE_CACHE": str(self.cache)})
        patch.start()
        self.addCleanup(patch.stop)

    def test_a_download_happens_once(self):
        fetched = []

        def fetch(directory):
            fetched.append(directory)
            (directory / "file").write_text("content")

        first, second = downloads.published("thing", fetch), downloads.published("thing", fetch)
        self.assertEqual(first, second)
        self.assertEqual((first / "file").read_text(), "content")
        self.assertEqual(len(fetched), 1)

    def test_a_failed_download_leaves_nothing_that_looks_whole(self):
        def fetch(directory):
            (directory / "file").write_text("half")
            raise Failure("the network went away")

        with self.assertRaises(Failure):
            downloads.published("thing", fetch)
        self.assertFalse((self.cache / "thing").exists())
        self.assertEqual(list(self.cache.glob(".thing.part-*")), [])

    def test_what_a_killed_download_left_is_removed(self):
        leftover = self.cache / ".thing.part-killed"
        leftover.mkdir(parents=True)
        downloads.published("thing", lambda directory: None)
        self.assertFalse(leftover.exists())


class RunLogged(unittest.TestCase):
    def test_a_failing_tool_is_named_with_its_log(self):
        with tempfile.TemporaryDirectory() as home:
            log = Path(home) / "tool.log"
            with self.assertRaises(Failure) as caught:
                downloads.run_logged(["sh", "-c", "echo reason; exit 3"], log)
            self.assertEqual(caught.exception.log, log)
            self.assertEqual(log.read_text(), "reason\n")
            self.assertIn("status 3", str(caught.exception))

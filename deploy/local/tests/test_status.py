"""The shape of `status --json`, which scripts rely on."""

import json
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from stack import files, status
from stack.layout import Layout
from stack.parts import Parts

OVERRIDES = ("MILLRACE_TEST_KAFKA", "MILLRACE_TEST_CLICKHOUSE", "MILLRACE_TEST_POSTGRES", "MILLRACE_TEST_REDIS")


class Status(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.layout = Layout(Path(directory.name) / ".local")
        patch = mock.patch.dict(os.environ)
        patch.start()
        self.addCleanup(patch.stop)
        for name in OVERRIDES:
            os.environ.pop(name, None)

    def document(self):
        return json.loads(json.dumps(status.document(Parts(self.layout))))

    def test_every_key_is_there_when_nothing_runs(self):
        found = self.document()
        self.assertEqual(list(found), ["services", "stack", "demo"])
        self.assertEqual(list(found["services"]), ["ingest", "rotor", "bulker"])
        for name, port in (("ingest", 3049), ("rotor", 3401), ("bulker", 3042)):
            self.assertEqual(
                found["services"][name], {"url": f"http://127.0.0.1:{port}", "pid": None, "ready": False}
            )
        self.assertEqual(found["stack"]["kafka"], {"address": "127.0.0.1:9092", "pid": None})
        self.assertEqual(
            found["stack"]["clickhouse"], {"http": "http://127.0.0.1:8123", "native": "127.0.0.1:9000", "pid": None}
        )
        self.assertRegex(found["stack"]["postgres"]["url"], r"^postgres://millrace:\w+@127\.0\.0\.1:5432/millrace$")
        self.assertEqual(found["stack"]["redis"], {"url": "redis://127.0.0.1:6379", "pid": None})
        self.assertEqual(
            found["demo"],
            dict.fromkeys(["workspace", "write_key", "browser_key", "service_token", "table"]),
        )

    def test_the_demo_shows_what_was_kept_and_nothing_else(self):
        kept = {
            "workspace": "w",
            "write_key": "a:b",
            "browser_key": "c",
            "service_token": "t",
            "table": "d.t",
            "source": "s",
        }
        files.write_json(self.layout.demo, kept, 0o600)
        del kept["source"]
        self.assertEqual(self.document()["demo"], kept)

    def test_an_address_that_is_given_is_shown_and_its_process_is_not_ours(self):
        os.environ.update(MILLRACE_TEST_KAFKA="broker:19092", MILLRACE_TEST_CLICKHOUSE="http://house:18123/")
        found = self.document()
        self.assertEqual(found["stack"]["kafka"], {"address": "broker:19092", "pid": None})
        self.assertEqual(
            found["stack"]["clickhouse"], {"http": "http://house:18123", "native": "house:9000", "pid": None}
        )

    def test_our_own_address_given_back_to_us_is_not_somebody_else_s(self):
        own = Parts(self.layout).test_addresses()
        os.environ.update(own)
        self.assertTrue(
            all(Parts(self.layout)[name].external is None for name in ("kafka", "clickhouse", "postgres", "redis"))
        )

    def test_the_table_hides_passwords(self):
        with mock.patch("stack.parts.part.Part.pid", return_value=None):
            text = status.table(Parts(self.layout))
        password = (self.layout.base / "postgres.password").read_text().strip()
        self.assertNotIn(password, text)
        self.assertIn("postgres://127.0.0.1:5432/millrace", text)
